"""Generated text: streaming, stop strings, limits, and reuse of the KV cache."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

import fewbit
from fewbit.errors import InputError
from fewbit.generation.text import Session, generate
from fewbit.run.sampling import GREEDY, Sampling
from tests.bigram import ALPHABET, Bigram


def successor(model: Bigram, text: str, count: int) -> str:
    """The greedy continuation, read off the model's table."""
    written = ""
    for _ in range(count):
        last = ALPHABET.index((text + written)[-1])
        written += ALPHABET[int((model.table + model.noise)[last].argmax())]
    return written


def test_greedy_text_is_the_table_s() -> None:
    model = Bigram()
    made = generate(model, "abc", max_tokens=12, sampling=GREEDY)
    assert list(made) == list(successor(model, "abc", 12))
    assert (made.text, made.finish) == (successor(model, "abc", 12), "length")
    assert len(made.tokens) == 12


def test_one_seed_writes_one_text() -> None:
    texts = {
        seed: "".join(generate(Bigram(), "a", max_tokens=30, sampling=Sampling(1.0, seed=seed)))
        for seed in (1, 2)
    }
    assert texts[1] == "".join(
        generate(Bigram(), "a", max_tokens=30, sampling=Sampling(1.0, seed=1))
    )
    assert texts[1] != texts[2]


def test_only_the_last_token_of_a_prompt_needs_logits() -> None:
    model = Bigram(context=2000)
    list(generate(model, "a" * 1100, max_tokens=2, sampling=GREEDY))
    assert model.calls == [(512, 1), (512, 1), (76, 1), (1, 1)]


def test_a_stop_token_ends_the_text_and_is_not_part_of_it() -> None:
    plain = successor(Bigram(), "a", 40)
    stop = plain[5]
    made = generate(Bigram(stop=stop), "a", max_tokens=40, sampling=GREEDY)
    assert "".join(made) == plain[: plain.index(stop)]
    assert made.finish == "stop"


def test_a_stop_string_never_shows_even_in_part() -> None:
    plain = successor(Bigram(), "a", 40)
    for length in (1, 2, 3):
        stop = plain[4 : 4 + length]
        made = generate(Bigram(), "a", max_tokens=40, sampling=GREEDY, stop=["zzzz", stop])
        pieces = list(made)
        assert "".join(pieces) == plain[: plain.index(stop)] == made.text
        assert made.finish == "stop"


def test_text_held_back_for_a_stop_string_comes_at_the_end() -> None:
    plain = successor(Bigram(), "a", 6)
    made = generate(Bigram(), "a", max_tokens=6, sampling=GREEDY, stop=[plain[-2:] + "<<"])
    assert "".join(made) == plain
    assert made.finish == "length"


def test_a_full_context_ends_the_text() -> None:
    made = generate(Bigram(context=10), "abcdef", max_tokens=99, sampling=GREEDY)
    list(made)
    assert (made.finish, len(made.tokens)) == ("context", 5)  # the last is never fed back


def test_a_session_computes_only_what_is_new() -> None:
    model = Bigram()
    session = Session(model)
    list(generate(model, "abcd", max_tokens=3, sampling=GREEDY, session=session))
    assert model.tokenizer.decode(session.ids)[:4] == "abcd"
    model.calls.clear()
    list(generate(model, "abxy", max_tokens=1, sampling=GREEDY, session=session))
    assert model.calls == [(2, 1)]
    model.calls.clear()
    list(generate(model, "abxy", max_tokens=1, sampling=GREEDY, session=session))
    assert model.calls == [(1, 1)], "the last token is fed again for its logits"


def test_an_empty_prompt_begins_with_bos() -> None:
    model = Bigram(adds_bos=True)
    assert len(list(generate(model, [], max_tokens=3, sampling=GREEDY))) == 3


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ("", {}, "the prompt is empty\n\nhint: give at least one token of text"),
        (
            "a" * 64,
            {},
            "the prompt has 64 tokens, the context holds 64\n\n"
            "hint: leave room for at least one new token",
        ),
        ("a", {"max_tokens": 0}, "cannot make 0 tokens\n\nhint: use 1 or more"),
        ("a", {"stop": [""]}, "a stop string is empty\n\nhint: leave it out"),
    ],
)
def test_refusals(prompt: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        list(generate(Bigram(), prompt, **options))
    assert str(caught.value) == message


def test_a_context_beyond_the_model_s_is_refused() -> None:
    with pytest.raises(InputError, match="a context of 65 tokens, expected 2 to 64"):
        Session(Bigram(), 65)


def test_a_forbidden_token_is_never_written() -> None:
    model = Bigram()
    first = ALPHABET.index(successor(model, "a", 1))
    bias = Sampling(temperature=0, logit_bias={first: -math.inf})
    made = generate(model, "a", max_tokens=30, sampling=bias)
    assert ALPHABET[first] not in str(made)
    row = (model.table + model.noise)[ALPHABET.index("a")].copy()
    row[first] = -np.inf
    assert made.tokens[0] == int(row.argmax())


def test_penalties_count_prompt_and_text() -> None:
    """A huge presence penalty writes every character once before one comes again."""
    once = Sampling(temperature=0, presence_penalty=1000, repeat_last_n=-1)
    written = str(generate(Bigram(), "ab", max_tokens=len(ALPHABET) - 2, sampling=once))
    assert sorted("ab" + written) == sorted(ALPHABET)


def test_the_window_of_penalties() -> None:
    near = Sampling(temperature=0, presence_penalty=1000, repeat_last_n=2)
    written = "ab" + str(generate(Bigram(), "ab", max_tokens=30, sampling=near))
    triples = zip(written, written[1:], written[2:], strict=False)
    assert all(len(set(three)) == 3 for three in triples)
    assert len(set(written)) < len(ALPHABET)


def test_dry_ends_a_loop() -> None:
    loop = str(generate(Bigram(context=200), "a", max_tokens=90, sampling=GREEDY))
    assert loop[-20:] in loop[:-20], "greedy text of a bigram model runs in a circle"
    model = fewbit.load("demo", "cpu")
    dry = dataclasses.replace(GREEDY, dry_multiplier=50.0, dry_sequence_breakers=())
    made = generate(model, "Once upon a time", max_tokens=100, sampling=dry)
    str(made)
    ids = made.prompt + made.tokens
    triples = [tuple(ids[i : i + 3]) for i in range(len(ids) - 2)]
    assert len(set(triples)) == len(triples), model.tokenizer.decode(ids)


def test_special_tokens_show_if_asked() -> None:
    model = fewbit.load("demo", "cpu")
    end = model.tokenizer.eos
    assert end is not None
    bias = Sampling(temperature=0, logit_bias={end: 1000.0})
    for skip, text in ((True, ""), (False, model.tokenizer.token(end))):
        made = model.generate("Once", sampling=bias, skip_special=skip)
        assert (str(made), made.finish, made.tokens) == (text, "stop", [])
