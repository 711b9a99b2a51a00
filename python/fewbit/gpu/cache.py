"""The key/value cache on a card, with everything that is bound to it."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import numpy as np

from fewbit.errors import InputError
from fewbit.gpu.decode import can_choose, decode
from fewbit.gpu.device import guarded
from fewbit.sampling import Sampling

if TYPE_CHECKING:
    from fewbit.gpu.executor import Executor


class Cache:
    """Keys and values of `sequences` sequences of up to `capacity` tokens, f32, layer by layer."""

    def __init__(self, executor: Executor, sequences: int, capacity: int) -> None:
        if sequences < 1 or capacity < 1:
            raise InputError(f"a cache of {sequences} sequences of {capacity} tokens holds nothing")
        self.executor = executor
        self.sequences = sequences
        self.capacity = capacity
        self._lengths = [0] * sequences
        device, self.buffers = executor.device, dict[str, Any]()
        for layer, width in executor.program("f32").layers.items():
            for kind in ("keys", "values"):
                size = 4 * sequences * capacity * width
                self.buffers[f"{kind}.{layer}"] = device.buffer(size, "the key/value cache")
        for index, (freqs, factor) in enumerate(executor.program("f32").turns):
            self.buffers[f"turns.{index}"] = device.upload(
                turns(freqs, factor, capacity), "the rotary angles"
            )
        self.bound: dict[str, Any] = {}

    def reachable(self, sequence: int, length: int) -> int:
        """To how many of `length` tokens `truncate` can go back: to all, as no op keeps a state."""
        return min(length, self.length(sequence))

    def length(self, sequence: int = 0) -> int:
        """The tokens of a sequence.

        Raises:
            InputError: there is no such sequence.

        """
        if not 0 <= sequence < self.sequences:
            raise InputError(f"sequence {sequence} is not one of the cache's {self.sequences}")
        return self._lengths[sequence]

    def truncate(self, sequence: int, length: int) -> None:
        """Forget the tokens of a sequence after the first `length`.

        Raises:
            InputError: it has fewer.

        """
        if length > self.length(sequence):
            raise InputError(
                f"cannot truncate a sequence of {self.length(sequence)} tokens to {length}"
            )
        self._lengths[sequence] = length

    def reset(self) -> None:
        """Forget everything."""
        self._lengths = [0] * self.sequences

    def copy(self, source: int, target: int) -> None:
        """Make sequence `target` equal to sequence `source`.

        Raises:
            InputError: there is no such sequence.

        """
        length = self.length(source)
        self.length(target)
        if source != target and length:
            encoder = self.executor.device.encoder()
            for name, buffer in self.buffers.items():
                kind, _, layer = name.partition(".")
                if kind != "turns":
                    row = 4 * self.executor.program("f32").layers[int(layer)]
                    size, start = row * length, row * self.capacity
                    self._copy_part(encoder, buffer, source * start, target * start, size)
            with guarded("cannot copy a sequence"):
                self.executor.device.queue.submit([encoder.finish()])
        self._lengths[target] = length

    def _copy_part(self, encoder: Any, buffer: Any, source: int, target: int, size: int) -> None:
        """Within one buffer, which no copy command may name twice: by way of another."""
        between = self.executor.device.buffer(size, "a copied sequence")
        encoder.copy_buffer_to_buffer(buffer, source, between, 0, size)
        encoder.copy_buffer_to_buffer(between, 0, buffer, target, size)

    def advance(self, sequence: int) -> int:
        """The position of one more token of a sequence.

        Raises:
            InputError: the sequence is full.

        """
        position = self.length(sequence)
        if position == self.capacity:
            raise InputError(
                f"sequence {sequence} is full: the cache holds {self.capacity} tokens of each"
            )
        self._lengths[sequence] = position + 1
        return position

    def decode(
        self, token: int, sampling: Sampling, rng: np.random.Generator, acts: str, most: int
    ) -> Generator[int] | None:
        """The tokens that follow `token` in sequence 0, chosen on the card; see decode.py.

        None where the card has not this way of choosing.
        """
        return decode(self, token, sampling, rng, acts, most) if can_choose(sampling) else None

    def release(self) -> None:
        """Free the card's memory."""
        for buffer in self.buffers.values():
            self.executor.device.release(buffer)
        self.buffers.clear()
        self.bound.clear()

    def restore(self, lengths: list[int]) -> None:
        """Go back to earlier `lengths`."""
        self._lengths = lengths

    @property
    def lengths(self) -> list[int]:
        """The tokens of each sequence."""
        return list(self._lengths)


def turns(freqs: tuple[float, ...], factor: float, capacity: int) -> np.ndarray:
    """[capacity, pairs, 2]: cos and sin of position * freqs, times factor, made in binary64."""
    angles = np.arange(capacity)[:, None] * np.array(freqs)
    return np.stack([np.cos(angles) * factor, np.sin(angles) * factor], axis=-1).astype(np.float32)
