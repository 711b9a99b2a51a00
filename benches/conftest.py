"""What every saved run says of its machine, beside what pytest-benchmark writes down."""

from __future__ import annotations

import importlib.metadata
import os
from typing import Any

from fewbit import _core

THREADS = int(os.environ.get("FEWBIT_BENCH_THREADS", "0")) or len(os.sched_getaffinity(0))


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    """Adds the instruction sets, the two ceilings and the peer's version."""
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
