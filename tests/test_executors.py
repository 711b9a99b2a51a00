"""Where models run by themselves, and what a command has to import before it can."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fewbit
from fewbit import _core, executors


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


@pytest.mark.parametrize(
    ("format_", "bits"),
    [
        ("Q8_0", 8.5), ("Q4_K", 4.625), ("Q2_K", 2.625), ("TQ1_0", 2.0625), ("IQ1_S", 2.3125),
        ("IQ1_M", 3.5625), ("IQ2_XXS", 3.3125), ("IQ2_XS", 3.5625), ("IQ2_S", 3.5625),
        ("IQ3_XXS", 4.3125), ("IQ3_S", 4.3125),
    ],
)  # fmt: skip
def test_bits_of_a_weight_in_memory(format_: str, bits: float) -> None:
    rows, columns = 32, 1024
    weights = _core.Weights()
    row_bytes = fewbit.find_format(format_).row_bytes(columns)
    weights.add("x", format_, rows, columns, np.zeros((rows, row_bytes), np.uint8))
    assert weights.nbytes * 8 == bits * rows * columns
