"""llama.cpp's own samplers change logits as fewbit does: bias, penalties, DRY with its breakers."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fewbit
from fewbit.run.sampler import sampler_of
from fewbit.run.sampling import Sampling
from tests.compare import within_bound
from tests.peers.peer import NEEDS, llama_cpp

if llama_cpp is None:
    pytest.skip(NEEDS, allow_module_level=True)

MODEL = fewbit.load("demo", "cpu")
VOCAB = MODEL.config.vocab
TEXT = (
    'The dog said: "Come on, come on, come on." The cat said: "Come on, come on, come here."\n'
    "The dog ran up the hill. The cat ran up the hill. The dog ran up"
)
ROUNDINGS = 2.0**-20
"""llama.cpp computes in binary32: a few roundings, and the power of DRY's base."""


@pytest.fixture(scope="module")
def vocab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The demo's vocabulary in llama.cpp."""
    path: Path = tmp_path_factory.mktemp("peer") / "demo.gguf"
    MODEL.save(path)
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    yield llama_cpp.llama_model_get_vocab(model)
    llama_cpp.llama_model_free(model)


def samplers(vocab: Any, s: Sampling, most: int) -> list[Any]:
    """llama.cpp's chain before its filters; a window of -1 is `most` tokens."""
    core = llama_cpp.llama_cpp
    biases = (core.llama_logit_bias * len(s.logit_bias))()
    for slot, (token, bias) in zip(biases, s.logit_bias.items(), strict=True):
        slot.token, slot.bias = token, bias
    texts = [text.encode() for text in s.dry_sequence_breakers]
    breakers = (ctypes.c_char_p * len(texts))(*texts)
    windows = [most if n < 0 else n for n in (s.repeat_last_n, s.dry_penalty_last_n)]
    return [
        core.llama_sampler_init_logit_bias(VOCAB, len(biases), biases),
        core.llama_sampler_init_penalties(
            VOCAB, windows[0], s.repeat_penalty, s.frequency_penalty, s.presence_penalty
        ),
        core.llama_sampler_init_dry(
            vocab, s.dry_multiplier, s.dry_base, s.dry_allowed_length, windows[1], breakers,
            len(texts),
        ),
    ]  # fmt: skip


def by_llama_cpp(
    chain: list[Any], logits: NDArray[np.float32], history: list[int]
) -> NDArray[np.float64]:
    core = llama_cpp.llama_cpp
    data = (core.llama_token_data * VOCAB)()
    for token, value in enumerate(logits):
        data[token].id, data[token].logit = token, value
    row = core.llama_token_data_array(data, VOCAB, -1, False)
    for sampler in chain:
        for token in history:
            core.llama_sampler_accept(sampler, token)
        core.llama_sampler_apply(sampler, ctypes.byref(row))
        core.llama_sampler_free(sampler)
    found = np.empty(VOCAB)
    for each in data:
        found[each.id] = each.logit
    return found


@pytest.mark.parametrize(
    "options",
    [
        {"repeat_penalty": 1.3},
        {"repeat_penalty": 1.1, "repeat_last_n": -1, "presence_penalty": 0.5},
        {"frequency_penalty": 0.25, "repeat_last_n": 20},
        {"logit_bias": {5: 1.5, 300: -2.0}},
        {"dry_multiplier": 0.8},
        {"dry_multiplier": 0.8, "dry_sequence_breakers": ()},
        {"dry_multiplier": 0.5, "dry_base": 2.0, "dry_allowed_length": 1},
        {"dry_multiplier": 0.8, "dry_sequence_breakers": ("\n", ". The", "hill")},
        {"dry_multiplier": 0.8, "dry_penalty_last_n": 12, "repeat_penalty": 1.2},
    ],
    ids=str,
)
def test_changed_logits(options: dict[str, Any], vocab: Any) -> None:
    sampling, ids = Sampling(**options), MODEL.tokenizer.encode(TEXT)
    rng, changed = np.random.default_rng(1), 0
    sampler = sampler_of(sampling, MODEL.tokenizer, VOCAB)
    for length in range(1, len(ids) + 1):
        logits = rng.normal(0, 3, VOCAB).astype(np.float32)
        sampler.accept([ids[length - 1]])
        found = sampler.changed(logits)
        expected = by_llama_cpp(samplers(vocab, sampling, len(ids)), logits, ids[:length])
        within_bound(found, expected, ROUNDINGS * (np.abs(logits) + np.abs(expected) + 1))
        changed += int((expected != logits).sum())
    assert changed
