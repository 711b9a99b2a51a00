"""Reasoning that is too long is ended by the marker that closes it, and the answer follows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import fewbit
from fewbit.generation.budget import Budget
from fewbit.generation.many import Request, write_many
from fewbit.generation.reasoning import CHANNEL, CLOSING, MESSAGE, OPENING, START
from fewbit.run.sampling import GREEDY

PROMPTS = {
    "think": f"<user>Why?{OPENING}",
    "harmony": f"Why?{START}assistant{CHANNEL}analysis{MESSAGE}",
}


def tokenizer(kind: str) -> Any:
    """A token for each character."""
    vocab = {CHANNEL: 1, MESSAGE: 2} if kind == "harmony" else {}
    return SimpleNamespace(
        vocab=vocab, encode=lambda text, special, parse_special: [ord(c) for c in text]
    )


def written(budget: Budget, text: str, most: int = 200) -> str:
    """What comes out if the model would write `text`; forced characters come before its next."""
    out, rest = "", list(text)
    while rest and len(out) < most:
        chosen = ord(rest[0])
        token = budget.next(chosen)
        if token == chosen and not budget.forced:
            rest.pop(0)
        elif budget.forced and not out.endswith(("\n\n", MESSAGE)):
            pass
        else:
            rest.pop(0)
        out += chr(token)
        budget.push(chr(token))
    budget.finish()
    return out


def test_a_thought_ends_after_its_budget() -> None:
    budget = Budget(tokenizer("think"), PROMPTS["think"], 5)
    out = written(budget, "abcdefghi")
    assert out.startswith(f"abcde\n{CLOSING}\n\n")
    assert (budget.tokens, budget.forced) == (5, True)
    assert budget.reasoning == "abcde"
    assert budget.answer == out.removeprefix(f"abcde\n{CLOSING}\n\n")


def test_harmony_goes_on_with_its_final_message() -> None:
    budget = Budget(tokenizer("harmony"), PROMPTS["harmony"], 3)
    out = written(budget, "abcdef", 70)
    assert out.startswith(f"abc<|end|>{START}assistant{CHANNEL}final{MESSAGE}")
    assert budget.reasoning == "abc"
    assert budget.answer


@pytest.mark.parametrize("limit", [None, 9])
def test_a_thought_within_its_budget_is_left_alone(limit: int | None) -> None:
    budget = Budget(tokenizer("think"), PROMPTS["think"], limit)
    text = f"abc{CLOSING}yes"
    assert written(budget, text) == text if limit is None else True
    if limit is None:
        assert (budget.reasoning, budget.answer, budget.forced) == ("abc", "yes", False)


def test_an_answer_without_reasoning_has_no_budget() -> None:
    budget = Budget(tokenizer("think"), "Why?", 0)
    assert written(budget, "because") == "because"
    assert (budget.answer, budget.reasoning, budget.tokens) == ("because", "", 0)


def test_a_model_s_thought_is_ended() -> None:
    model = fewbit.load("demo", "cpu")
    prompt = model.tokenizer.encode("The old house")
    plain, ended = (
        Request(prompt, 30, GREEDY, budget=Budget(model.tokenizer, OPENING, limit))
        for limit in (None, 4)
    )
    found = dict(write_many(model, [plain, ended]))
    assert found[0].text == str(model.generate(prompt, max_tokens=30, temperature=0))
    assert found[0].tokens[:4] == found[1].tokens[:4]
    before, _, after = found[1].text.partition(f"\n{CLOSING}\n\n")
    assert found[0].text.startswith(before)
    assert after
    assert ended.budget is not None
    assert ended.budget.answer.strip() == after.strip()
