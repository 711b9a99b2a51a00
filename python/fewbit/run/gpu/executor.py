"""The GPU executor: a plan and weights on a card; tokens and a cache in, logits out.

Pipelines and working memory are created with the executor, bind groups when a cache is first used.
A step is then one list of commands in one submission.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewbit.errors import InputError, ShapeError
from fewbit.run.gpu.cache import Cache
from fewbit.run.gpu.device import Device
from fewbit.run.gpu.fuse import fuse
from fewbit.run.gpu.guard import guarded
from fewbit.run.gpu.measure import Predictions
from fewbit.run.gpu.ops import Compiler, Op, check_ops
from fewbit.run.gpu.stages import (
    LANES,
    STEP_HEADER,
    TILE_QUERIES,
    Program,
    Stage,
    StepKind,
    step_kind,
)
from fewbit.run.gpu.weights import Weights
from fewbit.run.limits import ACTIVATIONS, BATCH

Ids = NDArray[np.uint32]
ReadOutputs = Callable[[int, Ids], None]
"""Takes the number of outputs of earlier steps, and the rows of this step's logits."""


@dataclass(frozen=True)
class Bound:
    """A stage with its pipelines, for few and for many tokens, and its bind group."""

    stage: Stage
    few_tokens: Any
    many_tokens: Any
    bind_group: Any


class Executor:
    """Runs one plan over one set of weights, with the interface of the core's `Executor`.

    Raises:
        UnsupportedError: the plan has an op, or an op a shape, that this executor lacks.
        DeviceError: the card refuses, or is full.

    """

    def __init__(
        self, ops: Sequence[Op], weights: Weights, batch: int = BATCH, *, fused: bool = True
    ) -> None:
        """Bind the ops of a plan (`Plan.to_dicts`) to weights, for steps of up to `batch` tokens.

        `fused` joins ops (fuse.py): the same values in fewer dispatches.
        """
        self.device: Device = weights.device
        if not ops:
            raise InputError("the plan has no ops")
        check_ops(ops)
        if fused:
            ops = fuse(list(ops), weights.can_join)
            joined = {name: op.get("experts", 1) for op in ops for name in op["weights"]}
            for name in sorted(name for name in joined if "+" in name):
                weights.join(name.split("+"), joined[name])
        self._programs = {acts: Compiler(ops, weights, acts).run() for acts in ACTIVATIONS}
        self.batch, self.outputs = self._rows(batch)
        self._spare: list[Predictions] = []
        self._shared: dict[str, Any] = {}
        try:
            self._allocate()
        except BaseException:
            self.release()
            raise

    def _allocate(self) -> None:
        """Allocate the slots of values, and buffers for bindings without an input or an output."""
        self._shared["no_input"] = self.device.buffer(16)
        self._shared["no_output"] = self.device.buffer(16)
        for program in self._programs.values():
            for name, (width, domain) in program.slots.items():
                if name not in self._shared:
                    rows = self.batch if domain == "tokens" else self.outputs
                    self._shared[name] = self.device.buffer(4 * rows * width)

    def program(self, acts: str) -> Program:
        """The stages for activations `acts`: "f32" or "int8"."""
        return self._programs[acts]

    @property
    def width(self) -> int:
        """Columns of the logits."""
        view = self._programs["f32"].logits
        assert view is not None
        return view.width

    def cache(self, sequences: int, capacity: int, kv: str = "f32") -> Cache:
        """An empty cache for `sequences` sequences of up to `capacity` tokens, in type `kv`.

        Raises:
            InputError: the model has embeddings for fewer positions, or `kv` is unknown.

        """
        positions = self._programs["f32"].max_positions
        if positions is not None and capacity > positions:
            raise InputError(
                f"a cache of {capacity} tokens, the model has {positions} positions",
                hint="use a shorter context",
            )
        return Cache(self.device, self._programs["f32"], self.batch, sequences, capacity, kv)

    def forward(
        self, cache: Cache, tokens: Ids, sequences: Ids, outputs: Ids, acts: str
    ) -> NDArray[np.float32]:
        """Append the tokens to their sequences; the logits f32 [outputs, width].

        An error leaves the cache as it was.

        Raises:
            InputError: a token, sequence or output does not exist, or a sequence is full.
            DeviceError: the card is lost.

        """
        logits = np.empty((len(outputs), self.width), np.float32)

        def read(done: int, rows: Ids) -> None:
            if len(rows):
                logits[done : done + len(rows)] = self._read(rows, acts)

        self._run_steps(cache, tokens, sequences, outputs, acts, read)
        return logits

    def predict(
        self, cache: Cache, tokens: Ids, sequences: Ids, outputs: Ids, acts: str
    ) -> Predictions:
        """As `forward`, but the logits stay on the card."""
        found = self._predictions(len(outputs))

        def store(_: int, rows: Ids) -> None:
            encoder = self.device.encoder()
            found.append(encoder, self._logits(acts), rows.tolist())
            self.device.queue.submit([encoder.finish()])

        try:
            self._run_steps(cache, tokens, sequences, outputs, acts, store)
        except BaseException:
            found.release()
            raise
        return found

    def _predictions(self, count: int) -> Predictions:
        """Predictions with room for `count` rows: the last released ones, if they have enough."""
        while self._spare:
            found = self._spare.pop()
            if found.capacity >= count:
                return found
            found.destroy()
        found = Predictions(self.device, self.width, max(count, 1))
        found.spare = self._spare
        return found

    def _run_steps(
        self, cache: Cache, tokens: Ids, sequences: Ids, outputs: Ids, acts: str, read: ReadOutputs
    ) -> None:
        """Run step after step, and call `read` after each."""
        self._check(cache, tokens, sequences, outputs, acts)
        before = cache.lengths
        try:
            positions = np.array([cache.advance(int(s)) for s in sequences], np.uint32)
            cache.note_written(sequences, positions)
            done = 0
            for batch, rows in self._batches(len(tokens), outputs):
                self.write_step(cache, tokens[batch], positions[batch], sequences[batch], rows)
                self._submit(cache, sequences[batch], len(rows), acts)
                has_all = not self._programs[acts].has_take
                read(done, rows if has_all else np.arange(len(rows), dtype=np.uint32))
                done += len(rows)
        except BaseException:
            cache.set_lengths(before)
            raise

    def _rows(self, batch: int) -> tuple[int, int]:
        """The most tokens and outputs of a step for which a shader can bind every slot."""
        widest = {"tokens": 1, "outputs": 1}
        for program in self._programs.values():
            for width, domain in program.slots.values():
                widest[domain] = max(widest[domain], width)
        fit = {domain: self.device.max_binding // (4 * w) for domain, w in widest.items()}
        tokens = max(min(batch, fit["tokens"]), 1)
        return tokens, max(min(tokens, fit["outputs"]), 1)

    def _batches(self, count: int, outputs: Ids) -> Iterator[tuple[slice, Ids]]:
        """Batches of tokens that a step can take, each with the rows of its outputs."""
        limit = self.outputs if self._programs["f32"].has_take else self.batch
        start = 0
        while start < count:
            stop = min(start + self.batch, count)
            inside = outputs[(outputs >= start) & (outputs < stop)]
            if len(inside) > limit:
                stop = int(inside[limit])
                inside = inside[:limit]
            yield slice(start, stop), (inside - start).astype(np.uint32)
            start = stop

    def _check(self, cache: Cache, tokens: Ids, sequences: Ids, outputs: Ids, acts: str) -> None:
        count, vocab = len(tokens), self._programs["f32"].vocab
        if acts not in ACTIVATIONS:
            raise InputError(f"unknown activations `{acts}`", hint="known: f32, int8")
        if cache.program is not self._programs["f32"]:
            raise InputError("the cache was made for another plan")
        if len(sequences) != count:
            raise ShapeError(f"{count} tokens but {len(sequences)} sequences")
        if count and int(tokens.max()) >= vocab:
            wrong = int(tokens[tokens >= vocab][0])
            raise InputError(f"token {wrong} is not in the vocabulary of {vocab}")
        ascending = bool((outputs[1:] > outputs[:-1]).all())
        if not ascending or (len(outputs) and int(outputs[-1]) >= count):
            raise InputError(f"`outputs` must be ascending indices below {count}")

    def release(self) -> None:
        """Free the working memory."""
        for buffer in self._shared.values():
            self.device.release(buffer)
        self._shared.clear()
        while self._spare:
            self._spare.pop().destroy()

    def shared(self, name: str) -> Any:
        """A buffer that is shared by all caches."""
        return self._shared[name]

    def write_step(
        self, cache: Cache, tokens: Ids, positions: Ids, sequences: Ids, outputs: Ids
    ) -> None:
        """Write the next step: its tokens, their positions and sequences, and the output rows."""
        cache.steps += 1
        words = np.zeros(STEP_HEADER + 4 * self.batch, np.uint32)
        words[:2] = len(tokens), len(outputs)
        for index, values in enumerate((tokens, positions, sequences, outputs)):
            start = STEP_HEADER + index * self.batch
            words[start : start + len(values)] = values
        with guarded("cannot write a step to the card"):
            self.device.queue.write_buffer(cache.buffers["step"], 0, words)

    def _submit(self, cache: Cache, sequences: Ids, outputs: int, acts: str) -> None:
        """Run one step that is written; its tokens belong to these `sequences`."""
        bound, tokens = self.bound(cache, acts), len(sequences)
        with guarded(f"{self.device.adapter.name} failed in a step of {tokens} tokens"):
            encoder, rows = self.device.encoder(), {"tokens": tokens, "outputs": outputs}
            kind = step_kind(sequences, self._programs[acts].queries_per_kv_head)
            self.encode(encoder, bound, rows, kind)
            self.device.queue.submit([encoder.finish()])

    def _logits(self, acts: str) -> Any:
        """The buffer with the logits of a step."""
        view = self._programs[acts].logits
        assert view is not None
        return self._shared[view.slot]

    def _read(self, rows: Ids, acts: str) -> NDArray[np.float32]:
        """Read rows of the logits of the last step."""
        last = 4 * self.width * (int(rows[-1]) + 1)
        message = f"cannot read logits back from {self.device.adapter.name}"
        data = self.device.read(self._logits(acts), 0, last, message)
        return np.frombuffer(data, np.float32).reshape(-1, self.width)[rows]

    def bound(self, cache: Cache, acts: str) -> list[Bound]:
        """The stages bound to a cache; created on the first call with it."""
        if acts not in cache.bound:
            buffers = {**self._shared, **cache.buffers}
            with guarded(f"cannot prepare the plan on {self.device.adapter.name}"):
                stages = (
                    s.for_cache(cache.capacity, cache.kv) for s in self._programs[acts].stages
                )
                cache.bound[acts] = [self._bind(s, buffers) for s in stages if s is not None]
        found: list[Bound] = cache.bound[acts]
        return found

    def _bind(self, stage: Stage, buffers: Mapping[str, Any]) -> Bound:
        found = {
            at: (buffers[ref] if isinstance(ref, str) else ref, at in stage.writes)
            for at, ref in stage.bindings.items()
        }
        flags = {at: writes for at, (_, writes) in found.items()}
        constants = {"LANES": LANES, **stage.constants, "BATCH": self.batch}
        few_tokens = self.device.pipeline(stage.files, flags, constants)
        many_tokens = None
        if stage.tiles:
            late = constants | {"AFTER_TAKE": stage.domain == "outputs"}
            many_tokens = self.device.pipeline(stage.tiles.files, flags, late)
        return Bound(stage, few_tokens, many_tokens, self.device.bind(found))

    def encode(
        self, encoder: Any, bound: Sequence[Bound], rows: Mapping[str, int],
        kind: StepKind = "few_tokens",
    ) -> None:  # fmt: skip
        """Record all stages in one pass; `rows` are the numbers of tokens and of outputs."""
        compute = encoder.begin_compute_pass()
        pipeline = None
        limit = self.device.max_groups
        for item in bound:
            count = rows[item.stage.domain]
            if count <= item.stage.above or kind not in item.stage.step_kinds:
                continue
            tiles = item.stage.tiles
            if tiles and count > tiles.above:
                chosen, x, y, z = item.many_tokens, tiles.workgroups, tiles.count(count), 1
            else:
                chosen, x, y, z = item.few_tokens, item.stage.workgroups, count, 1
                if item.stage.queries_per_token:
                    y = -(-count * item.stage.queries_per_token // TILE_QUERIES)
            if x > limit:  # only products have more: their shaders continue the count in z
                z = -(-x // limit)
                x = -(-x // z)
            if chosen is not pipeline:
                compute.set_pipeline(chosen)
                pipeline = chosen
            compute.set_bind_group(0, item.bind_group)
            compute.dispatch_workgroups(x, y, z)
        compute.end()
