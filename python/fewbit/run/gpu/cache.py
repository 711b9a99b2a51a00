"""The KV cache and recurrent states on a card, with the bind groups that use them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewbit.errors import InputError, UnsupportedError
from fewbit.run.gpu.device import Device
from fewbit.run.gpu.guard import guarded
from fewbit.run.gpu.stages import (
    CHUNK_TOKENS,
    FEW_TOKENS,
    STEP_HEADER,
    Program,
    kv_row_bytes,
    splits,
)
from fewbit.run.limits import kv_type_named

Ids = NDArray[np.uint32]


class Cache:
    """Keys, values and recurrent states of `sequences` sequences of up to `capacity` tokens.

    `kv` is the type of keys and values: "f32", "f16" or "int8", rounded as in reference/cache.py. A
    recurrent state is f32. It is updated every CHUNK_TOKENS positions, and `truncate` can go back
    to the start of the chunk before the last.
    """

    def __init__(
        self,
        device: Device,
        program: Program,
        batch: int,
        sequences: int,
        capacity: int,
        kv: str = "f32",
    ) -> None:
        """An empty cache for the layers of `program`, for steps of up to `batch` tokens.

        Raises:
            InputError: `sequences` or `capacity` is below 1, or `kv` is not a known type.
            DeviceError: the card is full.

        """
        if sequences < 1 or capacity < 1:
            raise InputError(f"a cache of {sequences} sequences of {capacity} tokens holds nothing")
        self.device, self.program, self.kv = device, program, kv_type_named(kv)
        self.batch = batch
        self.sequences = sequences
        self.capacity = capacity
        self._lengths = [0] * sequences
        self._chunks = [0] * sequences  # the last chunk that a state has begun
        self.buffers: dict[str, Any] = {}
        self.bound: dict[str, Any] = {}
        self.steps = 0
        """Steps written by the host; a running decode compares it to detect other writes."""
        try:
            self._allocate()
        except BaseException:
            self.release()
            raise

    def _allocate(self) -> None:
        device, program = self.device, self.program
        self.buffers["step"] = device.buffer(4 * (STEP_HEADER + 4 * self.batch))
        floats = FEW_TOKENS * splits(self.capacity) * program.split_floats
        self.buffers["splits"] = device.buffer(4 * floats)
        for name in program.kv_rows:
            size = self.sequences * self.capacity * self._row_bytes(name)
            self.buffers[name] = device.buffer(size, "the KV cache")
        for name, floats in program.states.items():
            self.buffers[name] = device.buffer(4 * self.sequences * floats, "the recurrent state")
        for index, angles in enumerate(program.rotations):
            table = rotary_table(angles.freqs(self.capacity), angles.factor, self.capacity)
            self.buffers[f"rotary.{index}"] = device.upload(table, "the rotary angles")

    def _row_bytes(self, name: str) -> int:
        """Bytes of the keys or values of one position."""
        return kv_row_bytes(self.kv, *self.program.kv_rows[name])

    def reachable(self, sequence: int, length: int) -> int:
        """The largest length up to `length` that `truncate` can go back to.

        Keys and values allow any length; a recurrent state allows `_earliest` and more, or 0.
        """
        length = min(length, self.length(sequence))
        return 0 if length < self._earliest(sequence) else length

    def _earliest(self, sequence: int) -> int:
        return max(self._chunks[sequence] - 1, 0) * CHUNK_TOKENS

    def note_written(self, sequences: Ids, positions: Ids) -> None:
        """Note that the card will write tokens at these positions."""
        if self.program.states:
            for sequence, position in zip(sequences.tolist(), positions.tolist(), strict=True):
                self._chunks[sequence] = max(self._chunks[sequence], position // CHUNK_TOKENS)

    def length(self, sequence: int = 0) -> int:
        """The number of tokens of a sequence.

        Raises:
            InputError: there is no such sequence.

        """
        if not 0 <= sequence < self.sequences:
            raise InputError(f"sequence {sequence} is not one of the cache's {self.sequences}")
        return self._lengths[sequence]

    def truncate(self, sequence: int, length: int) -> None:
        """Forget the tokens of a sequence after the first `length`.

        Raises:
            InputError: it has fewer tokens, or a recurrent state cannot go back that far.

        """
        present = self.length(sequence)
        if length > present:
            raise InputError(f"cannot truncate a sequence of {present} tokens to {length}")
        if self.reachable(sequence, length) != length:
            raise InputError(
                f"sequence {sequence} has {present} tokens; its recurrent state can take back only "
                f"the last {present - self._earliest(sequence)}",
                hint="keep 0 and read the sequence again",
            )
        self._set_length(sequence, length)

    def _set_length(self, sequence: int, length: int) -> None:
        self._lengths[sequence] = length
        if not length:
            self._chunks[sequence] = 0  # the shader starts from a zero state

    def reset(self) -> None:
        """Forget all tokens."""
        self._lengths = [0] * self.sequences
        self._chunks = [0] * self.sequences

    def copy(self, source: int, target: int) -> None:
        """Make sequence `target` equal to sequence `source`.

        Raises:
            InputError: there is no such sequence.

        """
        length = self.length(source)
        self.length(target)
        if source != target and length:
            encoder, program = self.device.encoder(), self.program
            for name in program.kv_rows:
                row = self._row_bytes(name)
                start = row * self.capacity
                self._copy_within(encoder, name, source * start, target * start, row * length)
            for name, floats in program.states.items():
                size = 4 * floats
                self._copy_within(encoder, name, source * size, target * size, size)
            with guarded("cannot copy a sequence"):
                self.device.queue.submit([encoder.finish()])
        self._lengths[target] = length
        self._chunks[target] = self._chunks[source]

    def _copy_within(self, encoder: Any, name: str, source: int, target: int, size: int) -> None:
        """Copy within one buffer, through another: a copy command may not name a buffer twice."""
        buffer = self.buffers[name]
        between = self.device.buffer(size, "a copied sequence")
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

    def release(self) -> None:
        """Free the card's memory."""
        for buffer in self.buffers.values():
            self.device.release(buffer)
        self.buffers.clear()
        self.bound.clear()

    def free(self, sequence: int) -> None:
        """Forget a sequence; the card's memory is freed with the cache.

        Raises:
            InputError: there is no such sequence.

        """
        self.truncate(sequence, 0)

    def bytes(self) -> int:
        """Bytes of the card's memory that keys, values and states take, used or not."""
        states = 4 * self.sequences * sum(self.program.states.values())
        rows = sum(map(self._row_bytes, self.program.kv_rows))
        return states + self.sequences * self.capacity * rows

    def snapshot(self, sequence: int) -> int:
        """The length of a sequence, for `restore`.

        Raises:
            InputError: there is no such sequence.
            UnsupportedError: the model has a recurrent state.

        """
        if self.program.states:
            raise UnsupportedError(
                "a recurrent state on a card cannot be kept", hint="use `--device cpu`"
            )
        return self.length(sequence)

    def restore(self, snapshot: int, sequence: int) -> None:
        """Take a sequence, which begins with the tokens of the snapshot, back to them.

        Raises:
            InputError: it has fewer tokens.

        """
        self.truncate(sequence, snapshot)

    def set_lengths(self, lengths: list[int]) -> None:
        """Go back to earlier `lengths`; to 0 for a sequence whose state cannot go back that far."""
        self._lengths = list(lengths)
        for sequence, length in enumerate(lengths):
            self._set_length(sequence, self.reachable(sequence, length))

    @property
    def lengths(self) -> list[int]:
        """The number of tokens of each sequence."""
        return list(self._lengths)


def rotary_table(freqs: tuple[float, ...], factor: float, capacity: int) -> np.ndarray:
    """[capacity, pairs, 2]: cos and sin of position * freqs, times factor; computed in f64."""
    angles = np.arange(capacity)[:, None] * np.array(freqs)
    return np.stack([np.cos(angles) * factor, np.sin(angles) * factor], axis=-1).astype(np.float32)
