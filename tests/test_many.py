"""Many texts at once: each is what it is alone, to the bit, whatever shares its steps."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import fewbit
from fewbit import _core
from fewbit.errors import InputError
from fewbit.generation.many import Request, write_many
from fewbit.generation.slots import Slots, common_prefix, fitting_slots
from fewbit.measure.score import pair_ids
from fewbit.run.sampling import GREEDY
from tests.golden.loading import MODELS

WORDS = """
The old house A small dog river My brother town Her letter stood came went home
""".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def demo() -> fewbit.Model:
    return fewbit.load("demo", "cpu")


@pytest.fixture
def fed(demo: fewbit.Model, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of tokens of each step of `demo`."""
    found: list[int] = []
    forward = demo.forward

    def counted(cache: Any, tokens: Any, *rest: Any, **options: Any) -> Any:
        found.append(len(tokens))
        return forward(cache, tokens, *rest, **options)

    monkeypatch.setattr(demo, "forward", counted)
    return found


def prompts(count: int, seed: int = 1) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 9))) for _ in range(count)]


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0},
        {"seed": 3, "temperature": 1.0},
        {"temperature": 0, "repeat_penalty": 1.3, "stop": [".", " and"]},
        {"seed": 4, "logit_bias": {314: -5.0}, "skip_special": False},
    ],
    ids=["greedy", "drawn", "penalized", "biased"],
)
def test_texts_are_those_that_each_prompt_gives_alone(
    demo: fewbit.Model, options: dict[str, Any]
) -> None:
    given = prompts(14)
    many = demo.generate_many(given, max_tokens=9, parallel=7, **options)
    for prompt, found in zip(given, many, strict=True):
        alone = demo.generate(prompt, max_tokens=9, **options)
        text = str(alone)
        assert (str(found), found.finish) == (text, alone.finish)
        assert (list(found.tokens), list(found.prompt)) == (alone.tokens, alone.prompt)
    assert len({found.text for found in many}) > 4


def test_the_number_of_slots_changes_nothing(demo: fewbit.Model) -> None:
    given = prompts(12)
    one, five = (demo.generate_many(given, max_tokens=6, seed=2, parallel=n) for n in (1, 5))
    assert one == five


def test_texts_end_at_a_stop_token_and_in_a_full_context() -> None:
    model = fewbit.load(MODELS / "phi3-longrope", "cpu")
    ids = [list(range(5, 5 + n)) for n in (3, 250, 254)]
    found = model.generate_many(ids, max_tokens=20, temperature=0)
    alone = [model.generate(each, max_tokens=20, temperature=0) for each in ids]
    assert [str(each) for each in alone] == [each.text for each in found]
    assert [each.finish for each in alone] == [each.finish for each in found]
    assert "context" in [each.finish for each in found]


@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen3_5", "qwen3_next"])
def test_scores_are_those_of_the_logits_alone(name: str) -> None:
    """Also of models that keep a state, which go back only a few tokens."""
    model = fewbit.load(MODELS / name, "cpu")
    rng = np.random.default_rng(2)
    shared = rng.integers(3, 300, 45).tolist()
    contexts = [shared + rng.integers(3, 300, n).tolist() for n in (1, 9, 40)] + [[7], shared[:5]]
    endings = [rng.integers(3, 300, n).tolist() for n in (1, 1, 3, 6)]
    pairs = [(context, ending) for context in contexts for ending in endings]
    random.Random(1).shuffle(pairs)
    for parallel in (1, 3, None):
        for (context, ending), found in zip(
            pairs, model.score(pairs, parallel=parallel), strict=True
        ):
            rows = model.logits(context + ending[:-1])[len(context) - 1 :]
            targets = np.array(ending, np.uint32)
            assert found.token_logprobs == tuple((-_core.nll(rows, targets)).tolist())
            assert found.logprob == sum(found.token_logprobs)
            assert found.greedy == bool((rows.argmax(1) == targets).all())


def test_a_context_is_fed_once_for_its_endings(demo: fewbit.Model, fed: list[int]) -> None:
    context = list(range(100, 160))
    demo.score([(context, [token]) for token in range(300, 340)])
    assert sum(fed) == len(context)
    fed.clear()
    demo.score([(context, [token, 5, 6]) for token in range(300, 340)])
    assert sum(fed) == len(context) + 40 * 2


def test_a_beginning_that_all_share_is_fed_once(demo: fewbit.Model, fed: list[int]) -> None:
    begin = list(range(100, 190))
    pairs = [([*begin, token], [5]) for token in range(300, 316)]
    found = demo.score(pairs, parallel=8)
    assert sum(fed) == len(begin) + 16
    assert found == demo.score(pairs, parallel=1)


def test_a_step_holds_decoding_texts_beside_prompts(demo: fewbit.Model, fed: list[int]) -> None:
    list(demo.generate_many([[5] * 3, [6] * 500, [7] * 60], max_tokens=4, temperature=0))
    assert fed[0] == 512
    assert sum(fed) == 563 - 3 + 3 * 4 + 3 - 3


@pytest.mark.parametrize(
    ("context", "ending", "split"),
    [("The old", " house", 2), ("The old ", "house", 2), ("The old  ", " house", 2)],
)
def test_spaces_belong_to_the_ending(
    demo: fewbit.Model, context: str, ending: str, split: int
) -> None:
    first, second = pair_ids(demo.tokenizer, context, ending)
    assert (*first, *second) == tuple(demo.tokenizer.encode(context + ending))
    assert first == tuple(demo.tokenizer.encode("The old"))


def test_an_empty_context_is_the_beginning_of_a_text(demo: fewbit.Model) -> None:
    tokenizer = demo.tokenizer
    begin = tokenizer.eos if tokenizer.bos is None else tokenizer.bos
    assert pair_ids(tokenizer, "", " house") == (
        (begin,),
        tuple(tokenizer.encode(" house", special=False)),
    )


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["ab"], "expected (context, ending)"),
        ([([1], [])], "the ending of pair 1 has no tokens"),
        ([([1], [2]), ([1] * 600, [2])], "pair 2 has 600 + 1 tokens, the context holds 512"),
    ],
)
def test_wrong_pairs_are_named(demo: fewbit.Model, pairs: Sequence[Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        demo.score(pairs)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ("one text", {}, "prompts are str"),
        ([[1], [1] * 512], {}, "prompt 2 has 512 tokens"),
        (["a"], {"max_tokens": 0}, "cannot make 0 tokens"),
        (["a"], {"stop": ""}, "a stop string is empty"),
        (["a"], {"parallel": 0}, "0 texts in parallel"),
    ],
)
def test_wrong_prompts_are_named(
    demo: fewbit.Model, given: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        demo.generate_many(given, **options)
    assert message in caught.value.message


def test_nothing_asked_is_nothing_answered(demo: fewbit.Model) -> None:
    assert demo.score([]) == demo.generate_many([]) == []
    assert list(write_many(demo, [])) == []


def test_a_text_is_given_as_soon_as_it_is_complete(demo: fewbit.Model) -> None:
    requests = [Request([5, 6], n, GREEDY) for n in (9, 2, 5, 3)]
    order = [index for index, _ in write_many(demo, requests, parallel=2)]
    assert order[0] == 1
    assert sorted(order) == [0, 1, 2, 3]


def test_slots_fit_into_the_memory(demo: fewbit.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    config = demo.config
    token = 8 * config.layers * config.kv_heads * config.head_dim
    for memory, expected in ((4 * 5 * 100 * token, 5), (0, 32), (10**15, 32), (1, 1)):
        monkeypatch.setattr("fewbit.generation.slots.machine_memory", lambda size=memory: size)
        assert fitting_slots(demo, 100) == expected
    assert Slots(demo, 3, 10, parallel=9).count == 3


def test_common_prefix_of_nothing_is_empty() -> None:
    assert common_prefix([]) == []
    assert common_prefix([[1, 2], (1, 2)]) == [1, 2]
