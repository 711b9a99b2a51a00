"""Segments of a plan give the bits of the entire plan, for every architecture."""

from __future__ import annotations

import numpy as np
import pytest

import fewbit
from fewbit import _core
from fewbit.improve.calibration import Calibration
from fewbit.improve.passes import SKIP, SegmentRun, WindowPasses
from fewbit.improve.segments import segments
from tests.compare import same_bits
from tests.golden.loading import NAMES, asset

CTX = 24


def windows(model: fewbit.Model, count: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.integers(model.config.vocab, size=(count, CTX)).astype(np.uint32)


def all_at_once(
    model: fewbit.Model, tokens: np.ndarray
) -> tuple[_core.Collector, list[np.ndarray]]:
    """Covariances and logits of windows that run through the entire plan."""
    executor = model.executor
    assert isinstance(executor, _core.Executor)
    names = {op.weights[0] for op in model.plan.ops if op.kind in ("linear", "expert_linear")}
    collector = executor.collector(names, True, SKIP)
    cache = executor.cache(1, CTX)
    logits = []
    for window in tokens:
        cache.reset()
        logits.append(executor.collect(cache, window, collector, True))
    return collector, logits


@pytest.mark.parametrize("name", NAMES)
def test_segments_give_the_bits_of_the_plan(name: str) -> None:
    model = fewbit.load(asset(name).parent, "cpu")
    tokens = windows(model, 3)
    collector, logits = all_at_once(model, tokens)
    parts = segments(model.plan)
    assert len(parts) >= model.config.layers + 1
    states = np.zeros((*tokens.shape, parts[0].width), np.float32)
    seen = 0
    for part in parts[:-1]:
        for found in SegmentRun(model, part).run(states, tokens):
            for matrix in range(len(found.counts)):
                for weight in found.names:
                    expected = collector.covariance(weight, matrix)
                    assert expected is not None
                    same_bits(found.sums(matrix), expected, f"{weight} {matrix}")
                    seen += 1
    assert seen
    last = SegmentRun(model, parts[-1])
    result = np.zeros((*tokens.shape, parts[-1].width), np.float32)
    executor = last._executor(states)
    cache, nothing = executor.cache(1, CTX), executor.collector(set(), True)
    for row, expected in enumerate(logits):
        cache.reset()
        ids = np.arange(row * CTX, (row + 1) * CTX, dtype=np.uint32)
        result[row] = executor.collect(cache, ids, nothing, True)
        same_bits(result[row], expected, f"window {row}")


def test_a_segment_has_the_weights_of_one_layer() -> None:
    model = fewbit.load("demo", "cpu")
    parts = segments(model.plan)
    layers = [
        {name.split(".")[1] for name in p.plan.weights() if name[:4] == "blk."} for p in parts
    ]
    assert layers == [set(), *({str(i)} for i in range(model.config.layers)), set()]
    assert [name for part in parts for group in part.groups for name in group] == [
        op.weights[0] for op in model.plan.ops if op.kind == "linear"
    ]
    assert parts[1].groups[0] == tuple(f"blk.0.attn_{n}.weight" for n in "qkv")


def test_held_out_windows_are_collected_apart() -> None:
    model = fewbit.load("demo", "cpu")
    calibration = Calibration(windows(model, 9), "random tokens")
    assert len(calibration.held_out) == 1
    fitted, _ = all_at_once(model, calibration.fitted)
    held_out, _ = all_at_once(model, calibration.held_out)
    names = set()
    for _, judges in WindowPasses(model, calibration).judges(segments(model.plan)):
        for name, judge in judges.items():
            names.add(name)
            for found, collector in ((judge.fitted, fitted), (judge.held_out, held_out)):
                expected = collector.covariance(name)
                assert expected is not None
                same_bits(found.sums(0), expected, name)
    assert names == {op.weights[0] for op in model.plan.ops if op.kind == "linear"}
