"""Shared by all benches: the number of threads, machine facts of pytest-benchmark, saved runs."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable
from typing import Any

import pytest

from benches import saved_runs
from fewbit import _core

THREADS = int(os.environ.get("FEWBIT_BENCH_THREADS", "0")) or len(os.sched_getaffinity(0))
"""Threads of fewbit and of the programs beside it; by default all cores of the process."""

Save = Callable[..., None]
"""Takes the arguments of `saved_runs.result`."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --save-run."""
    parser.addoption("--save-run", metavar="FILE", help="Append results to this saved run.")


@pytest.fixture(scope="session")
def save(request: pytest.FixtureRequest) -> Save:
    """Append a result to the saved run, if --save-run or FEWBIT_BENCH_RUN names one."""
    path = saved_runs.target(request.config.getoption("--save-run"))

    def write(*arguments: Any, **extra: Any) -> None:
        if path is not None:
            saved_runs.append(path, THREADS, [saved_runs.result(*arguments, **extra)])

    return write


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    """Add the instruction sets, the read and peak rates, and llama-cpp-python's version."""
    try:
        peer = importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        peer = None
    machine_info["fewbit"] = {
        "isa": _core.isa(),
        "isas": _core.isas(),
        "threads": THREADS,
        "read_rate": _core.read_rate(THREADS),
        "peak_rate": {isa: _core.peak_rate(THREADS, isa) for isa in _core.isas()},
        "llama_cpp_python": peer,
    }
