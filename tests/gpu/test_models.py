"""Golden models on a card: logits, greedy text, several sequences, prompts in pieces."""

import numpy as np
import pytest

import fewbit
from fewbit.run.gpu.device import Adapter, Device, open_device
from fewbit.run.gpu.executor import Executor
from fewbit.run.gpu.source import shader
from tests.compare import same_bits, within_bound
from tests.golden.loading import NAMES, NOISE, load
from tests.golden.test_models import greedy
from tests.gpu.running import upload


def bound_model(card, name, batch=512):
    g = load(name)
    return g, Executor(g.plan, upload(card, g.weights, g.plan), batch)


def forward(executor, cache, tokens, sequences=None, outputs=None):
    where = np.zeros(len(tokens), np.uint32) if sequences is None else np.uint32(sequences)
    wanted = np.arange(len(tokens)) if outputs is None else outputs
    return executor.forward(cache, np.uint32(tokens), where, np.uint32(wanted), "f32")


@pytest.mark.parametrize("name", NAMES)
def test_logits_and_greedy_text(card, name):
    g, executor = bound_model(card, name)
    cache = executor.cache(1, len(g.ids) + len(g.greedy))
    within_bound(forward(executor, cache, g.ids), g.logits, NOISE, name)
    cache.reset()

    def step(tokens: list[int]) -> list[float]:
        return forward(executor, cache, tokens, outputs=[len(tokens) - 1])[0].tolist()

    assert greedy(g, step) == g.greedy


@pytest.mark.parametrize("name", ["mistral-swa", "qwen3"])
def test_prompts_in_pieces_and_in_batches(card, name):
    """In calls of 1, 7 and 16 tokens, and in one call that a small batch splits."""
    g, executor = bound_model(card, name, batch=5)
    cache = executor.cache(1, len(g.ids))
    pieces = [forward(executor, cache, g.ids[a:b]) for a, b in ((0, 1), (1, 8), (8, 24))]
    within_bound(np.concatenate(pieces), g.logits, NOISE)
    cache.reset()
    within_bound(forward(executor, cache, g.ids, outputs=[3, 4, 20]), g.logits[[3, 4, 20]], NOISE)


def test_several_sequences_and_copies(card):
    """Two sequences do not disturb each other; a copy continues like its source."""
    g, executor = bound_model(card, "qwen3")
    cache = executor.cache(3, len(g.ids))
    order = [i % 2 for i in range(2 * len(g.ids))]
    tokens = [g.ids[i // 2] for i in range(2 * len(g.ids))]
    rows = forward(executor, cache, tokens[:20], order[:20])
    within_bound(rows[::2], g.logits[:10], NOISE)
    within_bound(rows[1::2], g.logits[:10], NOISE)
    cache.copy(1, 2)
    rest = g.ids[10:]
    within_bound(forward(executor, cache, rest, [2] * len(rest)), g.logits[10:], NOISE)
    assert [cache.length(s) for s in range(3)] == [10, 10, len(g.ids)]


def test_truncation_forgets(card):
    g, executor = bound_model(card, "qwen2")
    cache = executor.cache(1, len(g.ids))
    forward(executor, cache, [*g.ids[:5], *g.ids[:9]])
    cache.truncate(0, 5)
    within_bound(forward(executor, cache, g.ids[5:]), g.logits[5:], NOISE)


def test_a_full_sequence_changes_nothing(card):
    g, executor = bound_model(card, "mistral-swa")
    cache = executor.cache(1, 10)
    forward(executor, cache, g.ids[:8])
    with pytest.raises(ValueError, match="sequence 0 is full: the cache holds 10 tokens of each"):
        forward(executor, cache, g.ids[8:12])
    assert cache.length() == 8
    within_bound(forward(executor, cache, g.ids[8:10]), g.logits[8:10], NOISE)


def test_runs_are_repeatable(card):
    g, executor = bound_model(card, "llama-spm")
    cache = executor.cache(1, len(g.ids))
    first = forward(executor, cache, g.ids)
    cache.reset()
    same_bits(forward(executor, cache, g.ids), first)


def test_a_long_prompt(card):
    """A prompt of 300 tokens at once, against the same tokens one by one."""
    g, executor = bound_model(card, "mistral-swa")
    tokens = np.resize(g.ids, 300)
    cache = executor.cache(1, 300)
    together = forward(executor, cache, tokens, outputs=[150, 299])
    cache.reset()
    forward(executor, cache, tokens[:150], outputs=[])
    single = [forward(executor, cache, [token], outputs=[0])[0] for token in tokens[150:]]
    within_bound(together, [single[0], single[-1]], NOISE)


def test_a_card_without_subgroups(card):
    """Sums and maxima use workgroup memory."""
    second = Device(card.adapter)
    second.features = frozenset()
    for name in ("qwen3_moe", "gemma3"):
        g, executor = bound_model(second, name)
        cache = executor.cache(1, len(g.ids))
        within_bound(forward(executor, cache, g.ids), g.logits, NOISE, name)
        texts = [second.source(item.stage.files) for item in executor.bound(cache, "f32")]
        assert any(shader("reduce_shared") in text for text in texts)
        assert not any("subgroupAdd" in text for text in texts)


def test_a_closed_model_gives_its_memory_back(adapter: Adapter) -> None:
    device = open_device(adapter)
    before = device.allocated
    with fewbit.load("demo", f"gpu:{adapter.index}") as model:
        assert model.weights.device is device
        loaded = device.allocated
        assert loaded > before
        assert model.executor
        assert device.allocated > loaded, "working memory comes with the executor"
    assert device.allocated == before
    assert model.logits([1, 2, 3], "f32").shape == (3, 4096), "the next use loads it again"
    model.close()
