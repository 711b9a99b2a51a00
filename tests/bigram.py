"""A model small enough to check by hand: the next token depends on the last one alone."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np

from fewbit import _core
from fewbit.formats.table import find_format
from fewbit.models import build_plan
from fewbit.plan.config import Config
from fewbit.run.predictions import OnHost

ALPHABET = "abcdefgh .\nxyz<"
BOS = ALPHABET.index("<")


class Tokenizer:
    """One token per character of `ALPHABET`; "<" is the beginning of a text."""

    chat_template = None
    special_ids: frozenset[int] = frozenset()

    @property
    def vocab(self) -> dict[str, int]:
        return {text: i for i, text in enumerate(ALPHABET)}

    def token(self, id_: int) -> str | None:
        return ALPHABET[id_] if id_ < len(ALPHABET) else None

    def __init__(self, adds_bos: bool = False, stop: str = "") -> None:
        self.adds_bos = adds_bos
        self.bos = BOS if adds_bos else None
        self.eos = ALPHABET.index(stop) if stop else None
        self.stop_ids = frozenset(ALPHABET.index(c) for c in stop)

    def encode(self, text: str, special: bool = True, parse_special: bool = False) -> list[int]:
        ids = [ALPHABET.index(c) for c in text]
        return [BOS, *ids] if special and self.adds_bos else ids

    def decode(self, ids: list[int], skip_special: bool = True) -> str:
        return "".join(ALPHABET[i] for i in ids)

    def decoder(self, after: object = (), spelled: object = ()) -> SimpleNamespace:
        return SimpleNamespace(push=lambda token: ALPHABET[token], finish=lambda: "")


class Cache:
    """Counts what is in it, as the real one does."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.tokens: list[int] = []

    def length(self, sequence: int) -> int:
        return len(self.tokens)

    def reachable(self, sequence: int, length: int) -> int:
        return min(length, len(self.tokens))

    def reset(self) -> None:
        self.tokens = []

    def truncate(self, sequence: int, length: int) -> None:
        assert length <= len(self.tokens)
        del self.tokens[length:]


class Bigram:
    """`table` [vocab, vocab] holds the logits after each token; int8 adds `noise` to them."""

    def __init__(
        self, seed: int = 0, adds_bos: bool = False, stop: str = "", context: int = 64
    ) -> None:
        vocab = len(ALPHABET)
        rng = np.random.default_rng(seed)
        self.table = rng.normal(0, 2, (vocab, vocab)).astype(np.float32)
        self.noise = rng.normal(0, 0.1, (vocab, vocab)).astype(np.float32)
        self.tokenizer = Tokenizer(adds_bos, stop)
        self.config = Config("llama", vocab, 1, 32, 64, 2, 1, 16, 1e-5, context)
        self.plan = build_plan(self.config)
        self.formats = dict.fromkeys(self.plan.weights(), "F32")
        self.executor = None
        self.recipe = None
        self.checkpoint = SimpleNamespace(metadata={})  # recommends no sampling
        self.calls: list[tuple[int, int]] = []

    def quantize(self, recipe: str) -> Bigram:
        """The table rounded to as many steps as the format has bits."""
        format_ = find_format(recipe)
        rounded = copy.copy(self)
        steps = 2.0 ** (format_.bits_per_weight - 4)
        rounded.table = np.round(self.table * steps).astype(np.float32) / np.float32(steps)
        rounded.formats = {name: "F32" if "norm" in name else format_.name for name in self.formats}
        rounded.calls = []
        return rounded

    def close(self) -> None:
        pass

    def cache(self, sequences: int, capacity: int) -> Cache:
        return Cache(capacity)

    def memory_rate(self, threads: int = 0) -> float:
        return _core.read_rate(threads)

    def peak_rate(self, threads: int = 0) -> float:
        return _core.peak_rate(threads)

    def forward(self, cache, tokens, sequences=None, outputs=None, acts="int8"):
        cache.tokens.extend(int(t) for t in tokens)
        assert len(cache.tokens) <= cache.capacity
        self.calls.append((len(tokens), len(outputs)))
        rows = self.table[np.asarray(tokens)[np.asarray(outputs, np.int64)]]
        if acts == "int8":
            rows = rows + self.noise[np.asarray(tokens)[np.asarray(outputs, np.int64)]]
        return np.ascontiguousarray(rows)

    def predict(self, cache, tokens, outputs, acts="int8"):
        return OnHost(self.forward(cache, tokens, outputs=outputs, acts=acts))

    def decode(self, cache, token, sampling, rng, acts, most):
        return None
