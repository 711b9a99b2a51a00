"""Generates text on the card: a shader chooses each token, and the next step reads it there.

The host records steps and does not wait: STEPS_AHEAD more steps are submitted before the token of
a step is read, through a ring of small buffers. If the text ends, the cache's length is set back,
which drops the steps that ran ahead.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Generator
from typing import Any

import numpy as np
import wgpu

from fewbit import _core
from fewbit.errors import DeviceError, InputError
from fewbit.run.gpu.cache import Cache
from fewbit.run.gpu.executor import Executor
from fewbit.run.gpu.guard import guarded, wait
from fewbit.run.sampling import Sampling, refuse_logits

STEPS_AHEAD = 3
"""Steps that are submitted before the token of one is read."""
RING = 8
"""Slots for tokens and random draws in flight: more than STEPS_AHEAD."""
MAX_CANDIDATES = 256
"""Largest top-k of choose.wgsl; the CPU chooses if a sampling has more."""
LANES = 256
"""Invocations that read a row of logits."""
LOWEST = -3e38


def can_choose(sampling: Sampling) -> bool:
    """True if the card can sample in this way."""
    if sampling.changes_logits:
        return False
    return sampling.greedy or 1 <= sampling.top_k <= MAX_CANDIDATES


class Decoder:
    """Pipeline and buffers to generate from one cache with one sampling."""

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
            log_min_p = math.log(sampling.min_p) if sampling.min_p else LOWEST
            constants |= {
                "K": min(sampling.top_k, executor.width), "TOP_P": sampling.top_p,
                "LOG_MIN_P": log_min_p, "TEMPERATURE": sampling.temperature,
            }  # fmt: skip
        flags = {at: writes for at, (_, writes) in buffers.items()}
        self.pipeline = self.device.pipeline(("choose",), flags, constants)
        self.bind_group = self.device.bind(buffers)
        self.ring = [self.device.staging(4) for _ in range(RING)]

    def submit(self, index: int, draw: float) -> tuple[Any, Any]:
        """Record and submit step `index`; the buffer of its token, and the promise that maps it."""
        ring_index = index % RING
        with guarded(f"{self.device.adapter.name} failed in generation"):
            self.device.queue.write_buffer(self.draws, 4 * ring_index, np.array([draw], np.float32))
            encoder = self.device.encoder()
            self.executor.encode(encoder, self.stages, {"tokens": 1, "outputs": 1})
            compute = encoder.begin_compute_pass()
            compute.set_pipeline(self.pipeline)
            compute.set_bind_group(0, self.bind_group)
            compute.dispatch_workgroups(1)
            compute.end()
            encoder.copy_buffer_to_buffer(self.history, 4 * ring_index, self.ring[ring_index], 0, 4)
            self.device.queue.submit([encoder.finish()])
            return self.ring[ring_index], self.ring[ring_index].map_async(wgpu.MapMode.READ)

    def read(self, pending: tuple[Any, Any]) -> int:
        """Wait for a step's token."""
        buffer, promise = pending
        message = f"{self.device.adapter.name} failed in generation"
        wait(promise, message)
        with guarded(message):
            token = int(np.frombuffer(buffer.read_mapped(), np.uint32)[0])
            buffer.unmap()
        return token

    def release(self) -> None:
        """Free its buffers."""
        for buffer in (self.history, self.draws):
            self.device.release(buffer)
        for buffer in self.ring:
            buffer.destroy()


def decode(
    executor: Executor, cache: Cache, token: int, sampling: Sampling,
    seed: int, acts: str, max_tokens: int,
) -> Generator[int]:  # fmt: skip
    """Generate up to `max_tokens` tokens after `token` in sequence 0; the cache has room for them.

    When a token is yielded, the cache holds the tokens before it. The random draws are those of
    the core's sampler: by seed and position.

    Raises:
        InputError: a logit is NaN or +inf, or another call used the cache in between.
        DeviceError: the card is lost.

    """
    start = cache.length()
    decoder = Decoder(executor, cache, sampling, acts)
    zero = np.zeros(1, np.uint32)
    executor.write_step(cache, np.array([token], np.uint32), zero + np.uint32(start), zero, zero)
    steps = cache.steps
    pending: deque[tuple[Any, Any]] = deque()
    submitted = read = 0
    try:
        while read < max_tokens:
            if cache.steps != steps:
                raise InputError("the sequence was changed while text was generated from it")
            while submitted < max_tokens and len(pending) <= STEPS_AHEAD:
                draw = _core.random_fraction(seed, start + 1 + submitted)
                cache.note_written(zero, zero + np.uint32(start + submitted))
                pending.append(decoder.submit(submitted, draw))
                submitted += 1
            found = decoder.read(pending.popleft())
            if found == _core.NO_TOKEN:
                raise refuse_logits()
            read += 1
            cache.set_lengths([start + read, *cache.lengths[1:]])
            yield found
    finally:
        with contextlib.suppress(DeviceError):  # the first error is raised, later ones are not
            for left in pending:
                decoder.read(left)
        decoder.release()
