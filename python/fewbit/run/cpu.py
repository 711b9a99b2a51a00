"""The CPU backend: plans run by the compiled core on all cores, with SIMD kernels."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from fewbit import _core
from fewbit.formats.table import find_format
from fewbit.plan.plan import Plan
from fewbit.run.executor import Executor, Stored, Weights, stored_bytes
from fewbit.run.predictions import Ids, OnHost, Predictions
from fewbit.run.sampling import Sampling

MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where Linux says how much memory a container may take (control groups 2 and 1)."""


class CpuBackend:
    """Runs plans on the CPU; see `fewbit.run.executor.Backend`."""

    @property
    def name(self) -> str:
        """`cpu` and the instruction set that the kernels use."""
        return f"cpu ({_core.isa()})"

    def weights(self, plan: Plan, tensors: Mapping[str, Stored]) -> Weights:
        """An empty set of tensors in this machine's memory."""
        return _core.Weights(keep_file_size=keep_file_size(tensors))

    def executor(self, plan: Plan, weights: Weights, threads: int) -> Executor:
        """The plan bound to the weights; `threads` 0 means all cores."""
        assert isinstance(weights, _core.Weights)
        return _core.Executor(plan.to_json(), weights, threads)

    def predict(
        self, executor: Executor, cache: Any, tokens: Ids, sequences: Ids, outputs: Ids, acts: str
    ) -> Predictions:
        """As `Executor.forward`; the logits are an array on the host."""
        return OnHost(executor.forward(cache, tokens, sequences, outputs, acts))

    def decode(
        self, executor: Executor, cache: Any, token: int, sampling: Sampling,
        seed: int, acts: str, most: int,
    ) -> Generator[int] | None:  # fmt: skip
        """None: the logits are on the host already, which chooses the tokens."""
        return None

    def discard(self, weights: Weights, executor: Executor | None = None) -> None:
        """Do nothing: Python frees the memory with the last reference."""

    def memory_rate(self, weights: Weights, threads: int) -> float:
        """GB/s (10^9 bytes) at which `threads` threads read this machine's memory."""
        return _core.read_rate(threads)

    def peak_rate(self, threads: int) -> float | None:
        """Billions of int8 multiply-adds per second that `threads` threads reach together."""
        return _core.peak_rate(threads)


def keep_file_size(tensors: Mapping[str, Stored]) -> bool:
    """Whether code-book weights stay at their file's size, which the CPU runs more slowly.

    They do if the fast layout would need more than half of this machine's memory, or if the system
    does not say how much there is.
    """
    books = sum(stored_bytes(s) for s in tensors.values() if find_format(s[0]).larger_than_file)
    return books > 0 and 2 * (sum(map(stored_bytes, tensors.values())) + books) > machine_memory()


def machine_memory() -> int:
    """Bytes of memory that this machine or container has; 0 if the system does not say."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 0
    for name in MEMORY_LIMITS:
        # Without a limit there is no file, or it says "max" or more than there is.
        with contextlib.suppress(OSError, ValueError):
            memory = min(memory, int(Path(name).read_text()))
    return memory
