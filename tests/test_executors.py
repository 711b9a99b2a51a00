"""Where models run by themselves, and what a command has to import before it can."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import fewbit
from fewbit import executors


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the drivers are always asked")
@pytest.mark.parametrize("present", [False, True])
def test_drivers_are_asked_only_where_one_has_left_a_file(
    present: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = pytest.importorskip("fewbit.gpu.device")
    asked = []
    monkeypatch.setattr(devices, "find_adapter", lambda device: asked.append(device))
    monkeypatch.setattr(executors, "CARD_FILES", (f"{tmp_path}/dri/*", f"{tmp_path}/card*"))
    if present:
        (tmp_path / "card0").touch()
    model = fewbit.load(fewbit.DEMO)
    assert model.backend.adapter(model.plan) is None
    assert asked == (["auto"] if present else [])


def test_a_command_imports_neither_wgpu_nor_jinja2() -> None:
    """Each is a good part of a second before the first token."""
    code = "import fewbit.cli, sys; sys.exit(bool({'wgpu', 'jinja2'} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
