"""Where a plan runs: the CPU executor of the core, or the GPU's, behind one interface."""

from __future__ import annotations

import contextlib
import glob
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fewbit import _core
from fewbit.errors import UnsupportedError
from fewbit.formats import find_format
from fewbit.plan import Plan
from fewbit.predictions import Ids, OnHost, Predictions

if TYPE_CHECKING:
    from fewbit.gpu.device import Adapter


CARD_FILES = ("/dev/dri/*", "/dev/nvidia*", "/proc/driver/nvidia", "/dev/dxg")
"""What a card's Linux driver makes (`dxg`: Windows' below WSL); no card without any of them."""


MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where Linux says how much memory a container may take (control groups 2 and 1)."""


Stored: TypeAlias = tuple[str, int, int]
"""How a tensor is stored: its format, rows and columns."""


class Weights(Protocol):
    """Tensors by name, on their way to an executor."""

    def add(
        self, name: str, format: str, rows: int, columns: int, data: NDArray[np.uint8],
        matrices: int = 1, /,
    ) -> None:  # fmt: skip
        """Take the bytes of a tensor; its rows are those of `matrices`, one below the other."""

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""


class Executor(Protocol):
    """A plan bound to weights; its caches are its own kind of object."""

    def cache(self, sequences: int, capacity: int, kv: str = "f32", /) -> Any:
        """An empty cache for `sequences` sequences of up to `capacity` tokens, kept as `kv`.

        Raises:
            InputError: no kind is called so.

        """

    def forward(
        self,
        cache: Any,
        tokens: NDArray[np.uint32],
        sequences: NDArray[np.uint32],
        outputs: NDArray[np.uint32],
        acts: str,
        /,
    ) -> NDArray[np.float32]:
        """Append tokens to their sequences; the logits [outputs, vocab]."""


class Backend:
    """What a `device` option stands for on this machine: see `fewbit.gpu.device.find_adapter`.

    "auto" is decided when the first weights are loaded: what never runs asks no driver.

    Raises:
        UnsupportedError: the option is none that is known.
        DeviceError: the card is not to be had.

    """

    def __init__(self, device: str = "cpu") -> None:
        self._adapter: Adapter | None = None
        self._open = device == "auto"
        if device not in ("auto", "cpu"):
            from fewbit.gpu.device import find_adapter

            self._adapter = find_adapter(device)

    def adapter(self, plan: Plan) -> Adapter | None:
        """The card that runs `plan`, None for the CPU."""
        if not self._open or not may_have_card():
            return self._adapter
        from fewbit.gpu.device import find_adapter
        from fewbit.gpu.ops import check_ops

        with contextlib.suppress(UnsupportedError):
            check_ops(plan.to_dicts())
            return find_adapter("auto")
        return None

    def weights(self, plan: Plan, tensors: Mapping[str, Stored]) -> Weights:
        """An empty set of tensors for `plan`; a card has room for all of them, or it is refused.

        Raises:
            UnsupportedError: the plan has an op, or a tensor a format, that the executor lacks.
            DeviceError: the card is too small, or lost.

        """
        adapter = self.adapter(plan)
        if adapter is None:
            return _core.Weights(keep_file_size=must_be_small(tensors))
        from fewbit.gpu.device import open_device
        from fewbit.gpu.ops import check_ops, vectors
        from fewbit.gpu.repack import check_matrix
        from fewbit.gpu.weights import Weights as OnCard

        ops = plan.to_dicts()
        check_ops(ops)
        plain = vectors(ops)
        for name, (format_, rows, columns) in tensors.items():
            if rows > 1 and name not in plain:
                check_matrix(format_, columns)
        device = open_device(adapter)
        device.reserve(sum(map(stored_bytes, tensors.values())), "the weights")
        return OnCard(device, plain)


def must_be_small(tensors: Mapping[str, Stored]) -> bool:
    """Whether tensors with code books keep to their file's bytes, which the CPU runs slower.

    They do where the model would else take more than half of this machine's memory, or where the
    system does not say how much there is.
    """
    books = sum(stored_bytes(s) for s in tensors.values() if find_format(s[0]).larger_than_file)
    return books > 0 and 2 * (sum(map(stored_bytes, tensors.values())) + books) > machine_memory()


def machine_memory() -> int:
    """Bytes of memory that this machine or container has; 0 where the system does not say."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 0
    for name in MEMORY_LIMITS:
        # Without a limit there is no file, or it says "max" or more than there is.
        with contextlib.suppress(OSError, ValueError):
            memory = min(memory, int(Path(name).read_text()))
    return memory


def may_have_card() -> bool:
    """Whether it is worth asking the graphics drivers, which takes a second of the first token."""
    return sys.platform != "linux" or any(map(glob.glob, CARD_FILES))


def stored_bytes(stored: Stored) -> int:
    """The bytes of a tensor."""
    format_, rows, columns = stored
    return rows * find_format(format_).row_bytes(columns)


def discard(weights: Weights) -> None:
    """Free what a card holds of a model that did not become whole."""
    if not isinstance(weights, _core.Weights):
        from fewbit.gpu.weights import Weights as OnCard

        assert isinstance(weights, OnCard)
        weights.release()


def executor(plan: Plan, weights: Weights, threads: int) -> Executor:
    """The plan bound to the weights, where they are."""
    if isinstance(weights, _core.Weights):
        return _core.Executor(plan.to_json(), weights, threads)
    from fewbit.gpu.executor import Executor as OnCard
    from fewbit.gpu.weights import Weights as Tensors

    assert isinstance(weights, Tensors)
    return OnCard(plan.to_json(), weights)


def predict(
    executor: Executor, cache: Any, tokens: Ids, sequences: Ids, outputs: Ids, acts: str
) -> Predictions:
    """As `forward`; the logits stay where they were made."""
    if isinstance(executor, _core.Executor):
        return OnHost(executor.forward(cache, tokens, sequences, outputs, acts))
    from fewbit.gpu.executor import Executor as OnCard

    assert isinstance(executor, OnCard)
    return executor.predict(cache, tokens, sequences, outputs, acts)


def memory_rate(weights: Weights, threads: int) -> float:
    """GB/s (10^9 bytes) of the memory that the weights are in: reading it, on a card copying."""
    if isinstance(weights, _core.Weights):
        return _core.read_rate(threads)
    from fewbit.gpu.weights import Weights as Tensors

    assert isinstance(weights, Tensors)
    return weights.device.copy_rate()
