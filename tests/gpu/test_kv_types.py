"""KV caches of type f16 and int8 on a card: their bits, their memory, and golden models."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import fewbit
from fewbit import _core
from fewbit.cli.main import app
from fewbit.errors import InputError
from fewbit.run.gpu.device import Adapter, Device
from fewbit.run.gpu.executor import Executor
from reference.cache import round_kv
from reference.floats import FLOAT16, encode
from tests.compare import same_bits, within_bound
from tests.golden.loading import MODELS, NAMES, NOISE, load
from tests.golden.test_models import packed
from tests.gpu.running import U, embed, op, stored, upload

QUANTIZED = ["f16", "int8"]
SIZE, HEADS = 12, 2


def stored_words(card: Device, rows: np.ndarray, kv: str) -> tuple[np.ndarray, np.ndarray]:
    """The words that a cache stores for keys `rows` and values -2 `rows`."""
    width = rows.shape[1]
    attributes = {"heads": HEADS, "kv_heads": HEADS, "scale": 1.0, "window": 0}
    plan = [
        embed("x", rows),
        op("scale", [0], [], width, factor=-2.0),
        op("attend", [0, 0, 1], [], width, layer=0, **attributes),
    ]
    executor = Executor(plan, upload(card, {"x": stored(rows)}, plan))
    cache, ids = executor.cache(1, len(rows), kv), np.arange(len(rows), dtype=np.uint32)
    executor.forward(cache, ids, 0 * ids, ids[:0], "f32")
    buffers = (cache.buffers[name] for name in ("keys.0", "values.0"))
    words = [np.frombuffer(card.read(b, 0, b.size, "no keys"), np.uint32) for b in buffers]
    return words[0], words[1]


def test_halves(card: Device) -> None:
    """f16 to nearest even: ties, subnormals, numbers that become 0, and overflow."""
    ties = [1 + 2**-11, 1 + 3 * 2**-11, 2**-14 - 2**-25, 3 * 2.0**-25, 2.0**-25]
    ends = [65504, 65519.996, 65520, 1e30, 2.0**-26, 2.0**-149, 2.0**-14, 0, -0.0, 1.6e38]
    rng = np.random.default_rng(0)
    random = rng.uniform(1, 2, 225) * 2.0 ** rng.integers(-30, 18, 225)
    x = np.float32([*ties, *ends, *random]).reshape(-1, HEADS * SIZE)
    x[::2] *= -1
    for words, expected in zip(stored_words(card, x, "f16"), (x, -2 * x), strict=True):
        codes = [encode(value, FLOAT16) for value in expected.reshape(-1).tolist()]
        same_bits(words.view(np.uint16)[: x.size], np.uint16(codes))


@pytest.mark.parametrize("subgroups", [True, False], ids=["", "shared"])
def test_codes(card: Device, subgroups: bool) -> None:
    """int8: each head has a scale of its own, 0 for a head of zeros; the values are the oracle's.

    If a quotient is close to a half, a card's division may round to the other side.
    """
    if not subgroups:
        card = Device(card.adapter)
        card.features = frozenset()
    x = np.float32(np.random.default_rng(1).normal(size=(40, HEADS * SIZE)))
    x[:, SIZE:] *= 30
    x[3, :SIZE] = x[4] = 0
    x[5, :SIZE] = 2.0**-120
    x[6] = [127, -127, 0.5, 1.5, -2.5, 63.5, *range(18)]
    for words, expected in zip(stored_words(card, x, "int8"), (x, -2 * x), strict=True):
        heads = words[: x.size // 4 + len(x) * HEADS].reshape(-1, SIZE // 4 + 1)
        codes = heads[:, :-1].copy().view(np.int8).astype(np.float32)
        scales = heads[:, -1:].copy().view(np.float32)
        rows = np.float32([round_kv(row, "int8", HEADS) for row in expected.tolist()])
        steps = np.abs(expected).reshape(-1, SIZE).max(axis=1, keepdims=True) / 127
        quotients = np.abs(expected.reshape(-1, SIZE) / np.maximum(steps, 2.0**-100))
        doubt = (np.abs(quotients % 1 - 0.5) < 127 * 8 * U) & (scales != 1) & (scales != 2)
        bound = 8 * U * np.abs(rows.reshape(-1, SIZE)) + steps * doubt + 2.0**-119
        within_bound(codes * scales, rows.reshape(-1, SIZE), bound)


@pytest.mark.parametrize("kv", ["f32", *QUANTIZED])
def test_memory(card: Device, kv: str) -> None:
    """f16 takes half of the memory of f32; int8 a quarter, plus a scale per head."""
    g = load("llama")
    executor = Executor(g.plan, upload(card, g.weights, g.plan))
    shape = g.config.layers, g.config.kv_heads, g.config.head_dim
    taken = card.allocated
    small = executor.cache(2, 8, kv)
    between = card.allocated
    large = executor.cache(2, 8 + 64, kv)
    layers, kv_heads, size = shape
    head = {"f32": 4 * size, "f16": 2 * size, "int8": size + 4}[kv]
    angles = 8 * 64 * size // 2
    assert (card.allocated - between) - (between - taken) == (
        2 * 64 * layers * 2 * kv_heads * head + angles
    )
    for cache in (small, large):
        cache.release()
    assert card.allocated == taken


def test_unknown_types_are_refused(card: Device) -> None:
    g = load("llama")
    executor = Executor(g.plan, upload(card, g.weights, g.plan))
    with pytest.raises(InputError, match="unknown type of keys and values `f8`") as e:
        executor.cache(1, 8, "f8")
    assert e.value.hint == "known: f32, f16, int8"


@pytest.mark.parametrize("kv", QUANTIZED)
@pytest.mark.parametrize("name", NAMES)
def test_models(card: Device, name: str, kv: str) -> None:
    """CPU and card differ by at most half of the error of the KV type, by token and in one call.

    That error comes from all roundings, of up to half a step each. CPU and card differ in the few
    values that round to the other side, by a step, because their f32 values differ slightly.
    """
    g = load(name)
    gpu = Executor(g.plan, upload(card, g.weights, g.plan))
    cpu = _core.Executor(json.dumps(g.plan), packed(g, g.weights), 2)
    ids = np.uint32(g.ids)

    def in_one_call(executor: Any, kv: str) -> np.ndarray:
        rows = np.arange(len(ids), dtype=np.uint32)
        return executor.forward(executor.cache(1, len(ids), kv), ids, 0 * ids, rows, "f32")

    expected = in_one_call(cpu, kv)
    bound = NOISE + np.abs(expected - in_one_call(cpu, "f32")).max() / 2
    within_bound(in_one_call(gpu, kv), expected, bound, name)
    cache, zero = gpu.cache(1, len(ids), kv), np.zeros(1, np.uint32)
    singly = [gpu.forward(cache, ids[i : i + 1], zero, zero, "f32") for i in range(len(ids))]
    within_bound(np.concatenate(singly), expected, bound, name)


@pytest.mark.parametrize("kv", QUANTIZED)
def test_copy_and_truncate_keep_the_cached_values(adapter: Adapter, kv: str) -> None:
    """The logits are not those of an f32 cache: it does store the smaller type."""
    model = fewbit.load(MODELS / "llama", f"gpu:{adapter.index}", kv=kv)
    ids = np.load(MODELS / "llama" / "ids.npy").astype(np.uint32)[:12]
    cache = model.cache(2, 16)
    model.forward(cache, ids[:5], acts="f32")
    cache.copy(0, 1)
    cache.truncate(1, 3)
    again = model.forward(cache, ids[3:], np.ones(9, np.uint32), acts="f32")
    cache.truncate(0, 3)
    same_bits(again, model.forward(cache, ids[3:], np.zeros(9, np.uint32), acts="f32"))
    plain = fewbit.load(MODELS / "llama", f"gpu:{adapter.index}").logits(ids, acts="f32")
    assert (plain[3:] != again).any()


@pytest.mark.parametrize("kv", QUANTIZED)
def test_text(adapter: Adapter, kv: str) -> None:
    """`generate --kv` gives the same text on a card and on the CPU."""
    command = ["generate", "The old", "-n", "8", "--temperature", "0", "--acts", "f32"]
    texts = []
    for device in ("cpu", f"gpu:{adapter.index}"):
        found = CliRunner().invoke(app, [*command, "--kv", kv, "--device", device, "--json"])
        assert found.exit_code == 0, found.output
        texts.append(json.loads(found.stdout)["text"])
    assert texts[0] == texts[1] != ""
