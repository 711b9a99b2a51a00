"""Score endings of contexts by their probability: what multiple choice and lm-eval ask for.

Requests are sorted by context; a context is computed once for all its endings, and several
sequences share each step. A score is that of the model's logits alone, to the bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fewbit import _core
from fewbit.callbacks import Progress
from fewbit.errors import InputError
from fewbit.generation.slots import Reading, Rows, Slots
from fewbit.run.limits import Activations
from fewbit.run.model import LoadedModel
from fewbit.tokenizer.tokenizer import Tokenizer

Ids: TypeAlias = tuple[int, ...]
Pair: TypeAlias = tuple[Ids, Ids]


@dataclass(frozen=True)
class Score:
    """How likely an ending is after its context.

    `logprob` is the natural logarithm of its probability, the sum of `token_logprobs`; `greedy`
    tells whether each of its tokens is the likeliest at its place.
    """

    logprob: float
    greedy: bool
    token_logprobs: tuple[float, ...]

    @property
    def tokens(self) -> int:
        """Tokens of the ending."""
        return len(self.token_logprobs)


def score(
    model: LoadedModel,
    pairs: Sequence[tuple[str | Sequence[int], str | Sequence[int]]],
    acts: Activations = "int8",
    parallel: int | None = None,
    progress: Progress | None = None,
) -> list[Score]:
    """A `Score` for each pair of a context and its ending, texts or ids, in their order.

    Raises:
        InputError: a pair has another shape, an ending is empty, or a pair is longer than the
            context.

    """
    found = []
    for index, pair in enumerate(pairs):
        if isinstance(pair, str | bytes) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise InputError(f"pair {index + 1} is {pair!r}, expected (context, ending)")
        found.append(pair_ids(model.tokenizer, *pair))
    return score_ids(model, found, acts, parallel, progress)


def pair_ids(
    tokenizer: Tokenizer, context: str | Sequence[int], ending: str | Sequence[int]
) -> Pair:
    """The ids of a context and of its ending.

    Two texts are split into tokens as one, as lm-eval does it: spaces at the end of the context
    belong to the ending, whose ids are those behind the context's own. An empty context is BOS,
    or EOS where there is no BOS.
    """
    if not isinstance(context, str) or not isinstance(ending, str):
        ids = [
            tokenizer.encode(each, special=first) if isinstance(each, str) else list(each)
            for each, first in ((context, True), (ending, False))
        ]
        return _begun(tokenizer, ids[0]), tuple(ids[1])
    bare = context.rstrip()
    if not bare:
        return _begun(tokenizer, []), tuple(tokenizer.encode(context + ending, special=False))
    first = _without_end(tokenizer, tokenizer.encode(bare, special=True))
    both = _without_end(tokenizer, tokenizer.encode(context + ending, special=True))
    if len(both) <= len(first):  # the ending merges into the context's last token
        return tuple(both[:-1]), tuple(both[-1:])
    return tuple(both[: len(first)]), tuple(both[len(first) :])


def _begun(tokenizer: Tokenizer, ids: Sequence[int]) -> Ids:
    if ids:
        return tuple(ids)
    begin = tokenizer.eos if tokenizer.bos is None else tokenizer.bos
    if begin is None:
        raise InputError(
            "the context is empty, and the model has no token that begins a text",
            hint="give at least one token of context",
        )
    return (begin,)


def _without_end(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    return ids[:-1] if len(ids) > 1 and ids[-1] == tokenizer.eos else ids


def score_ids(
    model: LoadedModel,
    pairs: Sequence[Pair],
    acts: Activations = "int8",
    parallel: int | None = None,
    progress: Progress | None = None,
) -> list[Score]:
    """As `score`, of ids: neither a context nor an ending may be empty."""
    if not pairs:
        return []
    for index, pair in enumerate(pairs):
        _check(index, pair, model.config.context)
    groups: dict[Ids, _Group] = {}
    for context, ending in sorted(set(pairs)):
        groups.setdefault(context, _Group(context)).endings.append(ending)
    capacity = max(len(context) + len(ending) - 1 for context, ending in pairs)
    slots = Slots(model, len(groups), capacity, acts, parallel)
    slots.share(list(groups))
    waiting = deque(groups.values())
    running: dict[int, _Group] = {}
    done = 0
    while waiting or running:
        for slot in range(slots.count):
            if slot not in running and waiting:
                running[slot] = waiting.popleft()
                running[slot].begin(slots, slot)
        for rows in slots.step([group.reading for group in running.values()]):
            group = running[rows.reading.slot]
            if group.take(slots, rows):
                del running[rows.reading.slot]
                done += len(group.endings)
                if progress:
                    progress(done, len(set(pairs)), "endings")
    return [groups[context].score(ending) for context, ending in pairs]


def _check(index: int, pair: Pair, most: int) -> None:
    context, ending = pair
    if not context or not ending:
        name = "ending" if context else "context"
        raise InputError(f"the {name} of pair {index + 1} has no tokens", index=index)
    if len(context) + len(ending) - 1 > most:
        raise InputError(
            f"pair {index + 1} has {len(context)} + {len(ending)} tokens, the context holds {most}",
            hint="shorten its context",
            index=index,
        )


@dataclass
class _Group:
    """A context with its endings: the context is read first, then one ending after another."""

    context: Ids
    endings: list[Ids] = field(default_factory=list)
    reading: Reading = field(default_factory=lambda: Reading(0, [], 0))
    _left: deque[Ids] = field(default_factory=deque)
    _ending: Ids = ()
    _found: dict[Ids, list[tuple[float, bool]]] = field(default_factory=dict)

    def begin(self, slots: Slots, slot: int) -> None:
        """Read the context in `slot`."""
        self.reading = Reading(slot, list(self.context), len(self.context) - 1)
        slots.rewind(slot, self.context, len(self.context) - 1)

    def take(self, slots: Slots, rows: Rows) -> bool:
        """Take logits of the step; True once all endings are scored."""
        if not len(rows.logits):
            return False
        if not self._found:
            firsts = [ending[0] for ending in self.endings]
            found = _logprobs(np.repeat(rows.logits[-1:], len(firsts), axis=0), firsts)
            self._found = {e: [one] for e, one in zip(self.endings, found, strict=True)}
            self._left.extend(ending for ending in self.endings if len(ending) > 1)
            return not self._next(slots)
        at = rows.first - len(self.context) + 1
        targets = self._ending[at : at + len(rows.logits)]
        self._found[self._ending] += _logprobs(rows.logits, targets)
        complete = len(self._found[self._ending]) == len(self._ending)
        return complete and not self._next(slots)

    def score(self, ending: Ids) -> Score:
        """The score of one of the endings."""
        values = tuple(value for value, _ in self._found[ending])
        return Score(sum(values), all(top for _, top in self._found[ending]), values)

    def _next(self, slots: Slots) -> bool:
        if not self._left:
            return False
        self._ending = self._left.popleft()
        self.reading.ids = [*self.context, *self._ending[:-1]]
        self.reading.wanted = len(self.context)
        slots.rewind(self.reading.slot, self.reading.ids, len(self.context))
        return True


def _logprobs(logits: NDArray[np.float32], targets: Sequence[int]) -> list[tuple[float, bool]]:
    """For each row the target's log-probability, and whether it is the likeliest token."""
    ids = np.array(targets, np.uint32)
    values = -_core.nll(np.ascontiguousarray(logits), ids)
    likeliest = logits.argmax(axis=1) == ids
    return list(zip(values.tolist(), likeliest.tolist(), strict=True))
