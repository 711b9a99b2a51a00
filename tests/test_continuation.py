"""The text of tokens that somebody else chooses, and tokenizers that threads share."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

import fewbit
from fewbit.errors import InputError
from fewbit.generation.continuation import Continuation
from fewbit.tokenizer.tokenizer import Tokenizer
from tests.bigram import ALPHABET, Bigram


def written(text: str, ends: str = "", **options: Any) -> tuple[list[str], Continuation]:
    """The pieces that come out as letters go in, until the end."""
    tokenizer: Any = Bigram(stop=ends).tokenizer
    made = Continuation(tokenizer, [0, 1], **{"max_tokens": 99, "context": 99, **options})
    pieces = []
    for letter in text:
        pieces.append(made.push(ALPHABET.index(letter)))
        if made.finish:
            break
    assert made.text == "".join(pieces)
    return pieces, made


def test_text_ends_at_the_limit_or_where_the_context_is_full() -> None:
    pieces, made = written("abcdef", max_tokens=4)
    assert (pieces, made.finish, len(made.tokens)) == (["a", "b", "c", "d"], "length", 4)
    # 2 tokens of the prompt and 3 of the text are in the context; the last one need not be
    pieces, made = written("abcdef", context=5)
    assert (pieces, made.finish) == (["a", "b", "c", "d"], "context")


def test_text_ends_at_a_stop_token() -> None:
    pieces, made = written("abcdef", ends="d")
    assert (pieces, made.finish, len(made.tokens)) == (["a", "b", "c", ""], "stop", 3)
    pieces, made = written("abcdef", ends="d", shows_end=True)
    assert (pieces[-1], made.finish, len(made.tokens)) == ("d", "stop", 3)


def test_what_may_become_a_stop_string_waits() -> None:
    pieces, made = written("abcdabce", stop="abce")
    assert (pieces, made.finish) == (["", "", "", "abcd", "", "", "", ""], "stop")
    pieces, made = written("abc", max_tokens=3, stop="abce")
    assert (pieces, made.finish) == (["", "", "abc"], "length")
    pieces, made = written("abc", max_tokens=3, stop="bc")
    assert (pieces, made.finish) == (["a", "", ""], "stop")


def test_a_generation_is_one() -> None:
    model = fewbit.load("demo", "cpu")
    made = model.generate("The old house", max_tokens=20, temperature=0, stop="very")
    list(made)
    again = Continuation(model.tokenizer, made.prompt, max_tokens=20, context=99, stop="very")
    pieces = [again.push(token) for token in made.tokens]
    assert ("".join(pieces), again.finish) == (made.text, made.finish) == (made.text, "stop")


def test_options_are_checked() -> None:
    with pytest.raises(InputError, match="cannot make 0 tokens"):
        written("a", max_tokens=0)
    with pytest.raises(InputError, match="a stop string is empty"):
        written("a", stop="")


def test_threads_share_a_tokenizer() -> None:
    class Backend:
        encode_special_tokens = False
        model = None

        def encode(self, text: str, add_special_tokens: bool) -> Any:
            time.sleep(0.002)  # another thread runs
            return SimpleNamespace(ids=[int(self.encode_special_tokens)])

    backend: Any = Backend()
    tokenizer = Tokenizer(backend)
    with ThreadPoolExecutor(4) as threads:
        found = list(
            threads.map(lambda i: tokenizer.encode("a", parse_special=i % 2 == 0), range(40))
        )
    assert found == [[i % 2] for i in range(40)]
