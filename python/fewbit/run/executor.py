"""What a backend offers: protocols for weights, executors and KV caches, on the CPU or a card."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fewbit.formats.table import find_format
from fewbit.plan.plan import Plan
from fewbit.run.predictions import Ids, Predictions
from fewbit.run.sampling import Sampling

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


class Cache(Protocol):
    """Keys, values and recurrent states of some sequences, layer by layer."""

    def length(self, sequence: int = 0, /) -> int:
        """The number of tokens of a sequence."""

    def reachable(self, sequence: int, length: int, /) -> int:
        """The largest length up to `length` that `truncate` can go back to."""

    def truncate(self, sequence: int, length: int, /) -> None:
        """Forget the tokens of a sequence after the first `length`."""

    def reset(self) -> None:
        """Forget all tokens."""

    def copy(self, source: int, target: int, /) -> None:
        """Make sequence `target` equal to sequence `source`."""

    def free(self, sequence: int, /) -> None:
        """Forget a sequence; the CPU gives its memory back to the system."""

    def bytes(self) -> int:
        """Bytes of keys, values and states: on the CPU of the tokens since `free`, else of all."""

    def snapshot(self, sequence: int, /) -> Any:
        """The recurrent state of a sequence, for `restore`.

        Raises:
            UnsupportedError: the cache is on a card, and the model has a recurrent state.

        """

    def restore(self, snapshot: Any, sequence: int, /) -> None:
        """Take a sequence, which begins with the tokens of the snapshot, back to them.

        Raises:
            InputError: it has fewer tokens, or the snapshot is of another model.

        """


class Executor(Protocol):
    """A plan bound to weights; its caches are its own kind of object."""

    def cache(self, sequences: int, capacity: int, kv: str = "f32", /) -> Any:
        """An empty cache for `sequences` sequences of up to `capacity` tokens each.

        Raises:
            InputError: `kv` is not a type of `fewbit.run.limits.KV_TYPES`.

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


class Backend(Protocol):
    """The device that runs plans: the CPU, or one graphics card."""

    @property
    def name(self) -> str:
        """What the device is called: `cpu` with its instruction set, or the card's name."""

    def weights(self, plan: Plan, tensors: Mapping[str, Stored]) -> Weights:
        """An empty set of tensors for `plan`, with room for `tensors`.

        Raises:
            UnsupportedError: the executor lacks an op of the plan, or a tensor's format.
            DeviceError: the card is too small, or lost.

        """

    def executor(self, plan: Plan, weights: Weights, threads: int) -> Executor:
        """The plan bound to the weights; `threads` 0 means all cores."""

    def predict(
        self, executor: Executor, cache: Any, tokens: Ids, sequences: Ids, outputs: Ids, acts: str
    ) -> Predictions:
        """As `Executor.forward`; the logits stay where they were made."""

    def decode(
        self, executor: Executor, cache: Any, token: int, sampling: Sampling,
        seed: int, acts: str, most: int,
    ) -> Generator[int] | None:  # fmt: skip
        """The tokens after `token` in sequence 0, chosen where the logits are, up to `most`.

        None if the device cannot choose tokens in this way; the host then chooses each.
        """

    def discard(self, weights: Weights, executor: Executor | None = None) -> None:
        """Free the memory of weights that nobody will use, and of the executor bound to them."""

    def memory_rate(self, weights: Weights, threads: int) -> float:
        """GB/s (10^9 bytes) of the memory that holds the weights: reading it, on a card copying."""

    def peak_rate(self, threads: int) -> float | None:
        """Billions of int8 multiply-adds per second of `threads` threads; None on a card."""


def stored_bytes(stored: Stored) -> int:
    """The bytes of a tensor."""
    format_, rows, columns = stored
    return rows * find_format(format_).row_bytes(columns)
