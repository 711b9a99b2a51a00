"""Text token by token without waiting: the card chooses each token and feeds it to itself.

The host only records: AHEAD steps are submitted before the first one's token is read, through a
ring of small buffers. What was computed past a text's end is forgotten with the cache's length.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Generator
from typing import Any

import numpy as np
import wgpu

from fewbit.errors import DeviceError, InputError
from fewbit.run.gpu.cache import Cache
from fewbit.run.gpu.executor import Executor
from fewbit.run.gpu.guard import guarded, wait
from fewbit.run.sampling import Sampling, refuse_logits

AHEAD = 3
"""Steps in flight."""
RING = 8
"""Places for tokens and draws that are under way, more than AHEAD."""
MOST_CANDIDATES = 256
"""What choose.wgsl is asked to keep; a sampling that keeps more chooses on the CPU."""
LANES = 256
"""Invocations that look through the logits."""
NONE = 0xFFFFFFFF
LOWEST = -3e38


def can_choose(sampling: Sampling) -> bool:
    """Whether the card has this way of choosing."""
    return sampling.greedy or 1 <= sampling.top_k <= MOST_CANDIDATES


class Decoder:
    """What a cache needs to go on by itself from one token, for one way of choosing."""

    def __init__(self, executor: Executor, cache: Cache, sampling: Sampling, acts: str) -> None:
        self.executor, self.device = executor, executor.device
        self.stages = executor.bound(cache, acts)
        program = executor.program(acts)
        assert program.logits is not None
        self.history, self.draws = self.device.buffer(4 * RING), self.device.buffer(4 * RING)
        buffers = {
            3: (executor.shared(program.logits.slot), False),
            4: (self.history, True),
            5: (self.draws, False),
            7: (cache.buffers["step"], True),
        }
        constants: dict[str, float] = {
            "COUNT": executor.width, "K": 1, "RING": RING, "BATCH": executor.batch, "LANES": LANES,
        }  # fmt: skip
        if not sampling.greedy:
            least = math.log(sampling.min_p) if sampling.min_p else LOWEST
            constants |= {
                "K": min(sampling.top_k, executor.width), "TOP_P": sampling.top_p, "MIN_LOG": least,
                "TEMPERATURE": sampling.temperature,
            }  # fmt: skip
        flags = {at: writes for at, (_, writes) in buffers.items()}
        self.pipeline = self.device.pipeline(("choose",), flags, constants)
        self.group = self.device.bind(buffers)
        self.ring = [self.device.staging(4) for _ in range(RING)]

    def submit(self, index: int, draw: float) -> tuple[Any, Any]:
        """Record and submit step `index`; the buffer that its token comes in, and the promise."""
        place = index % RING
        with guarded(f"{self.device.adapter.name} failed in generation"):
            self.device.queue.write_buffer(self.draws, 4 * place, np.array([draw], np.float32))
            encoder = self.device.encoder()
            self.executor.encode(encoder, self.stages, {"tokens": 1, "outputs": 1})
            compute = encoder.begin_compute_pass()
            compute.set_pipeline(self.pipeline)
            compute.set_bind_group(0, self.group)
            compute.dispatch_workgroups(1)
            compute.end()
            encoder.copy_buffer_to_buffer(self.history, 4 * place, self.ring[place], 0, 4)
            self.device.queue.submit([encoder.finish()])
            return self.ring[place], self.ring[place].map_async(wgpu.MapMode.READ)

    def read(self, pending: tuple[Any, Any]) -> int:
        """Wait for a step's token."""
        buffer, promise = pending
        what = f"{self.device.adapter.name} failed in generation"
        wait(promise, what)
        with guarded(what):
            token = int(np.frombuffer(buffer.read_mapped(), np.uint32)[0])
            buffer.unmap()
        return token

    def release(self) -> None:
        """Free what was made for it."""
        for buffer in (self.history, self.draws):
            self.device.release(buffer)
        for buffer in self.ring:
            buffer.destroy()


def decode(
    executor: Executor, cache: Cache, token: int, sampling: Sampling,
    rng: np.random.Generator, acts: str, most: int,
) -> Generator[int]:  # fmt: skip
    """The tokens after `token` in sequence 0, up to `most`, which fit the cache.

    When a token is given out, the one before it is in the cache. The draws are those that
    `sampling.choose` would make: one a token.

    Raises:
        InputError: a logit is NaN or +inf, or the cache took other tokens in between.
        DeviceError: the card is lost.

    """
    start = cache.length()
    decoder = Decoder(executor, cache, sampling, acts)
    zero = np.zeros(1, np.uint32)
    executor.write_step(cache, np.array([token], np.uint32), zero + np.uint32(start), zero, zero)
    steps = cache.steps
    pending: deque[tuple[Any, Any]] = deque()
    sent = given = 0
    try:
        while given < most:
            if cache.steps != steps:
                raise InputError("the sequence was changed while text was generated from it")
            while sent < most and len(pending) <= AHEAD:
                draw = 0.0 if sampling.greedy else rng.random()
                cache.reach(zero, zero + np.uint32(start + sent))
                pending.append(decoder.submit(sent, draw))
                sent += 1
            found = decoder.read(pending.popleft())
            if found == NONE:
                raise refuse_logits()
            given += 1
            cache.restore([start + given, *cache.lengths[1:]])
            yield found
    finally:
        with contextlib.suppress(DeviceError):  # who is told of the first need not hear the rest
            for left in pending:
                decoder.read(left)
        decoder.release()
