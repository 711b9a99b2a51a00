"""The choice of a device, memory on the CPU, and what a command imports before it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fewbit
from fewbit import _core
from fewbit.run import cpu
from fewbit.run import device as choice
from fewbit.run.gpu import device as devices


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the drivers are always asked")
@pytest.mark.parametrize("present", [False, True])
def test_drivers_are_asked_only_where_one_has_left_a_file(
    present: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(devices, "find_adapter", lambda device: asked.append(device))
    monkeypatch.setattr(choice, "CARD_FILES", (f"{tmp_path}/dri/*", f"{tmp_path}/card*"))
    if present:
        (tmp_path / "card0").touch()
    model = fewbit.load(fewbit.DEMO)
    assert isinstance(model.backend, cpu.CpuBackend)
    assert asked == (["auto"] if present else [])


def test_a_command_imports_neither_wgpu_nor_jinja2() -> None:
    """Each is a good part of a second before the first token."""
    code = "import fewbit.cli, sys; sys.exit(bool({'wgpu', 'jinja2'} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


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


@pytest.mark.parametrize(
    "format_", sorted(name for name, f in fewbit.FORMATS.items() if f.larger_than_file)
)
def test_code_books_stay_small_where_memory_is(
    format_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, columns = 32, 1024
    size = rows * fewbit.find_format(format_).row_bytes(columns)
    data = np.zeros((rows, size // rows), np.uint8)
    plan = fewbit.load(fewbit.DEMO).plan
    taken = {}
    for memory in (0, 4 * size - 1, 4 * size):
        monkeypatch.setattr(cpu, "machine_memory", lambda memory=memory: memory)
        weights = cpu.CpuBackend().weights(plan, {"w": (format_, rows, columns)})
        weights.add("w", format_, rows, columns, data)
        taken[memory] = weights.nbytes
    assert taken[0] == taken[4 * size - 1] == size
    assert 1.2 * size < taken[4 * size] < 2.1 * size


def test_code_books_are_all_that_can_be_small() -> None:
    for name, format_ in fewbit.FORMATS.items():
        rows = np.zeros((32, format_.row_bytes(1024)), np.uint8)
        fast, small = _core.Weights(), _core.Weights(keep_file_size=True)
        for weights in (fast, small):
            weights.add("w", name, 32, 1024, rows)
        assert (small.nbytes < fast.nbytes) == format_.larger_than_file, name


def test_a_machine_knows_its_memory() -> None:
    assert cpu.machine_memory() > (1 << 28 if sys.platform == "linux" else -1)


@pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")
@pytest.mark.parametrize("said", [["268435456\n"], ["max\n", "268435456\n"], ["max\n"], [""], []])
def test_a_containers_memory_is_what_it_may_take(
    said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [tmp_path / str(i) for i in range(2)]
    for path, text in zip(limits, said, strict=False):
        path.write_text(text)
    monkeypatch.setattr(cpu, "MEMORY_LIMITS", tuple(map(str, limits)))
    want = 1 << 28 if any("268435456" in text for text in said) else machine
    assert cpu.machine_memory() == want
