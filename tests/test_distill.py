"""Distilling scales and norms: what changes, what stays, and that it is judged."""

from __future__ import annotations

import numpy as np
import pytest

import fewbit
from fewbit import _core
from fewbit.errors import InputError
from fewbit.improve.distill import Schedule, distill
from tests.compare import same_bits

CTX = 64
SHORT = Schedule(steps=8, batch=256, rate=4e-3, warm_up=2)


@pytest.fixture(scope="module")
def model() -> fewbit.Model:
    return fewbit.load("demo")


@pytest.fixture(scope="module")
def windows(model: fewbit.Model) -> np.ndarray:
    text = (model.checkpoint.path / "demo.txt").read_text("utf-8")
    return np.array(model.tokenizer.encode(text)[: 20 * CTX], np.uint32).reshape(20, CTX)


def quantized(model: fewbit.Model, format_: str) -> dict[str, tuple[str, np.ndarray]]:
    """The matrices of all layers in a format, the embedding as it is."""
    found = {}
    for name in model.plan.weights():
        shape = model.checkpoint.tensors[name].shape
        if len(shape) == 2 and name.startswith("blk."):
            data = _core.encode(model.data(name), model.formats[name], shape[1], format_)
            found[name] = (format_, data)
    return found


def test_scales_and_norms_change(model: fewbit.Model, windows: np.ndarray) -> None:
    data, seen = quantized(model, "Q2_K"), list[str]()
    found = distill(
        model, data, windows[:16], windows[16:], schedule=SHORT,
        progress=lambda done, total, text: seen.append(f"{done} of {total}: {text}"),
    )  # fmt: skip
    assert found.improved
    assert found.after < 0.93 * found.before
    assert found.losses[-1] < found.losses[0]
    assert (len(seen), seen[-1][:7]) == (8, "8 of 8:")
    assert found.data.keys() == data.keys()
    assert found.norms.keys() == {n for n in model.plan.weights() if "norm" in n}
    for name, (_, old) in data.items():
        changed = (found.data[name] != old).reshape(-1, 84).any(axis=0)  # byte by byte of a block
        assert not changed[:80].any(), f"{name}: codes changed"
        assert changed[80:84].any(), f"{name}: d and dmin did not"
    for name, norm in found.norms.items():
        old_norm = model.tensor(name)
        assert 0 < np.abs(norm / old_norm - 1).max() < 0.2


def test_what_does_not_help_is_left_out(model: fewbit.Model, windows: np.ndarray) -> None:
    """Steps up the gradient diverge more: the bytes are those that were given."""
    data = quantized(model, "Q4_0")
    wrong = Schedule(steps=3, batch=128, rate=-0.02, warm_up=1)
    found = distill(model, data, windows[:4], windows[4:8], schedule=wrong)
    assert not found.improved
    assert found.norms == {}
    for name, (_, old) in data.items():
        same_bits(found.data[name], old)


def test_formats_without_an_f16_scale_stay(model: fewbit.Model, windows: np.ndarray) -> None:
    """MXFP4's scales are powers of two; the norms change all the same."""
    data = quantized(model, "MXFP4")
    found = distill(model, data, windows[:8], windows[16:], schedule=SHORT)
    assert found.data == {}
    assert found.improved
    assert len(found.norms) == 9


def test_same_seed_same_bytes(model: fewbit.Model, windows: np.ndarray) -> None:
    data = {"blk.1.ffn_down.weight": quantized(model, "Q2_K")["blk.1.ffn_down.weight"]}
    few = Schedule(steps=2, batch=64, rate=0.01, warm_up=1)
    both = [
        distill(model, data, windows[:3], windows[4:5], schedule=few, threads=n) for n in (1, 2)
    ]
    for name in data:
        same_bits(both[0].data[name], both[1].data[name])
    for name in both[0].norms:
        same_bits(both[0].norms[name], both[1].norms[name])
    assert both[0].losses == both[1].losses


def test_the_rate_rises_and_falls() -> None:
    rates = [Schedule(steps=30, rate=1.0, warm_up=10).rate_at(step) for step in range(30)]
    assert rates[0] == 0.1
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0.05 < rates[-1] < 0.06


def test_refusals(model: fewbit.Model, windows: np.ndarray) -> None:
    with pytest.raises(InputError, match="`held_out`"):
        distill(model, quantized(model, "Q4_0"), windows, windows[0])
    with pytest.raises(InputError, match="quantized"):
        distill(model, {}, windows, windows)
