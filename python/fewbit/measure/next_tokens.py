"""The likeliest next tokens after a prompt, in several formats beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewbit import _core
from fewbit.errors import InputError
from fewbit.generation.many import prompt_ids
from fewbit.measure.candidates import base_name
from fewbit.run.limits import BATCH, Activations
from fewbit.run.model import LoadedModel
from fewbit.tables import Page, Shown, Table


@dataclass(frozen=True)
class NextToken:
    """A token and its probability after the prompt, in each of the formats."""

    id: int
    text: str
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class NextTokens(Shown):
    """What comes after a prompt of `prompt_tokens` tokens, in each of `formats`.

    `tokens` are the likeliest of the first format, and the likeliest one of each other. `kld` is
    the KL divergence of each format from the first, over the whole vocabulary, in nats, and
    `entropy` how uncertain each is, in nats. `rest` is the probability of all tokens not listed.
    """

    prompt_tokens: int
    formats: tuple[str, ...]
    tokens: tuple[NextToken, ...]
    kld: tuple[float, ...]
    entropy: tuple[float, ...]

    @property
    def rest(self) -> tuple[float, ...]:
        """The probability that is left to all other tokens, in each format."""
        listed = zip(*(token.probabilities for token in self.tokens), strict=True)
        return tuple(max(1 - sum(column), 0.0) for column in listed)

    def page(self) -> Page:
        """As `fewbit next` prints it."""
        table = Table(("id", "token", *self.formats), text=2, keys=2)
        for token in self.tokens:
            chances = (f"{100 * p:.3f} %" for p in token.probabilities)
            table.add_row(str(token.id), repr(token.text), *chances)
        table.add_row("", "all others", *(f"{100 * p:.3f} %" for p in self.rest))
        table.add_row("", "entropy, nats", *(f"{value:.4f}" for value in self.entropy))
        if len(self.formats) > 1:
            table.add_row("", "KLD, nats", *(f"{value:.6f}" for value in self.kld))
        return [table]


def next_tokens(
    model: LoadedModel,
    prompt: str | Sequence[int],
    formats: Sequence[str] = (),
    top: int = 10,
    acts: Activations = "int8",
) -> NextTokens:
    """The `top` likeliest tokens after `prompt`, in the model as it is and in each of `formats`.

    With formats, the model as it is comes first, with f32 activations, as in `fewbit compare`;
    the others run with `acts`. Without, the model itself runs with `acts`.

    Raises:
        InputError: the prompt is empty or longer than the context, or `top` below 1.
        FormatError: a format is unknown, or weights cannot be stored in it.

    """
    if top < 1:
        raise InputError(f"cannot list {top} tokens", hint="use 1 or more")
    ids = prompt_ids(model.tokenizer, prompt)
    if not 0 < len(ids) <= model.config.context:
        raise InputError(
            f"the prompt has {len(ids)} tokens, expected 1 to {model.config.context}",
            hint="the upper limit is the context that the model was trained with",
        )
    chosen = [model.quantize(name) for name in formats]  # refuses unknown ones before work
    rows = [last_row(model, ids, "f32" if formats else acts)]
    for quantized in chosen:
        with quantized:
            rows.append(last_row(quantized, ids, acts))
    chances = [_softmax(row) for row in rows]
    order = np.argsort(-rows[0], kind="stable")[:top].tolist()
    listed = dict.fromkeys([*order, *(int(row.argmax()) for row in rows[1:])])
    ranked = sorted(listed, key=lambda id_: -chances[0][id_])
    tokenizer = model.tokenizer
    return NextTokens(
        len(ids),
        (base_name(model), *formats),
        tuple(
            NextToken(id_, _spelled(tokenizer.decode([id_], skip_special=False), id_),
                      tuple(float(each[id_]) for each in chances))
            for id_ in ranked
        ),
        tuple(_kld(rows[0], row) for row in rows),
        tuple(_entropy(each) for each in chances),
    )  # fmt: skip


def last_row(
    model: LoadedModel, ids: Sequence[int], acts: Activations = "int8"
) -> NDArray[np.float32]:
    """The logits [vocab] after all of `ids`."""
    cache = model.cache(1, max(len(ids), 2))
    for start in range(0, len(ids), BATCH):
        chunk = list(ids[start : start + BATCH])
        rows = model.forward(cache, chunk, outputs=[len(chunk) - 1], acts=acts)
    row: NDArray[np.float32] = rows[0]
    return row


def _softmax(row: NDArray[np.float32]) -> NDArray[np.float64]:
    weights = np.exp(row.astype(np.float64) - float(row.max()))
    found: NDArray[np.float64] = weights / weights.sum()
    return found


def _entropy(chances: NDArray[np.float64]) -> float:
    positive = chances[chances > 0]
    return float(-(positive * np.log(positive)).sum()) + 0.0


def _kld(base: NDArray[np.float32], row: NDArray[np.float32]) -> float:
    found = _core.divergence(base[None], row[None], np.zeros(1, np.uint32))
    return float(found["kld"][0])


def _spelled(text: str, id_: int) -> str:
    return text or f"<{id_}>"
