"""Reasoning that is too long is ended by the marker that closes it, and the answer follows."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

import fewbit
from fewbit.errors import InputError
from fewbit.generation.budget import Budget
from fewbit.generation.many import Request, write_many
from fewbit.generation.reasoning import CHANNEL, CLOSING, MESSAGE, OPENING, START
from fewbit.run.sampling import GREEDY

HARMONY = f"Why?{START}assistant{CHANNEL}analysis{MESSAGE}"


def tokenizer(kind: str) -> Any:
    """A token for each character."""
    vocab = {CHANNEL: 1, MESSAGE: 2} if kind == "harmony" else {}
    return SimpleNamespace(
        vocab=vocab, encode=lambda text, special, parse_special: [ord(c) for c in text]
    )


def written(budget: Budget, digits: str) -> str:
    """What comes out if the model would write `digits`, each until it is taken."""
    out = ""
    while digits:
        token = chr(budget.next(ord(digits[0])))
        digits = digits[token == digits[0] :]
        out += token
        budget.push(token)
    budget.finish()
    return out


def test_a_thought_ends_after_its_budget() -> None:
    budget = Budget(tokenizer("think"), f"Why?{OPENING}", 5)
    assert written(budget, "123456789") == f"12345\n{CLOSING}\n\n6789"
    assert (budget.reasoning, budget.answer) == ("12345", "6789")
    assert (budget.tokens, budget.forced) == (5, True)


def test_harmony_goes_on_with_its_final_message() -> None:
    budget = Budget(tokenizer("harmony"), HARMONY, 3)
    assert written(budget, "12345") == f"123<|end|>{START}assistant{CHANNEL}final{MESSAGE}45"
    assert (budget.reasoning, budget.answer) == ("123", "45")


@pytest.mark.parametrize("limit", [None, 4])
def test_a_thought_within_its_budget_is_left_alone(limit: int | None) -> None:
    budget = Budget(tokenizer("think"), f"Why?{OPENING}", limit)
    assert written(budget, "1234") == "1234"
    assert (budget.reasoning, budget.answer, budget.forced) == ("1234", "", False)
    assert budget.tokens == 4


def test_an_answer_without_reasoning_has_no_budget() -> None:
    budget = Budget(tokenizer("think"), "Why?", 0)
    assert written(budget, "12345678") == "12345678"
    assert (budget.answer, budget.reasoning, budget.tokens) == ("12345678", "", 0)


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


def test_a_chat_ends_a_thought() -> None:
    model = fewbit.load("demo", "cpu")
    template = "{{ messages[0].content }} <think>"
    model.__dict__["tokenizer"] = dataclasses.replace(model.tokenizer, chat_template=template)
    plain, ended = (
        model.chat("The old house", max_tokens=40, temperature=0, reasoning_budget=budget)
        for budget in (None, 4)
    )
    assert str(plain) == ""
    assert len(str(ended)) > 0
    assert 0 < len(ended.reasoning) < len(plain.reasoning)
    assert plain.reasoning.startswith(ended.reasoning)
    with pytest.raises(InputError, match="a reasoning budget of -1 tokens, expected 0 or more"):
        model.chat("The old house", reasoning_budget=-1)
