"""Decide which of two models diverges less, from their values on the same tokens.

Both models read the same windows, so what makes a window hard cancels in their difference. Its
error is over windows, p is Student's, and Holm's correction covers all pairs of rows. The oracle is
`reference/clusters.py` and `reference/significance.py`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from fewbit.measure.results import Estimate
from fewbit.measure.significance import LEVEL, at_look, holm, mcnemar, t_two_sided
from fewbit.measure.token_values import TokenValues


@dataclass(frozen=True)
class Paired:
    """How model `name` differs from model `against` on the same tokens, both measured by one base.

    `kld` and `nll` are mean differences, `name` minus `against`, in nats per token. `only_this` and
    `only_other` count tokens where only one of them has the base's likeliest token; `p_same_top` is
    McNemar's exact p of these, which takes tokens as independent. `p_kld` and `p_nll` are two-sided
    p values of the differences; `p` is that of `kld`, corrected for the number of pairs and looks.
    """

    name: str
    against: str
    kld: Estimate
    nll: Estimate
    only_this: int
    only_other: int
    p_kld: float
    p_nll: float
    p_same_top: float
    p: float

    @property
    def verdict(self) -> str:
        """Whether `name` diverges less: "better", "worse", "tie", or "unknown" of one window."""
        if math.isnan(self.p):
            return "unknown"
        if self.p > LEVEL:
            return "tie"
        return "better" if self.kld.value < 0 else "worse"


def paired(name: str, against: str, values: TokenValues, others: TokenValues) -> Paired:
    """Compare two models token by token; `p` is not yet corrected."""
    kld, nll = (values.difference(others, key) for key in ("kld", "nll"))
    mine, theirs = values.tokens("same_top"), others.tokens("same_top")
    only = int(np.sum(mine & ~theirs)), int(np.sum(theirs & ~mine))
    p_kld = p_value(kld)
    return Paired(name, against, kld, nll, *only, p_kld, p_value(nll), mcnemar(*only), p_kld)


def p_value(difference: Estimate) -> float:
    """The two-sided p of a mean difference over windows; 1 of models that are the same."""
    if difference.error == 0:
        return 1.0 if difference.value == 0 else 0.0
    return t_two_sided(difference.value / difference.error, difference.windows - 1)


def all_pairs(
    values: Mapping[str, TokenValues], look: int = 0, against: str | None = None
) -> dict[tuple[str, str], Paired]:
    """Every pair of models in both directions, or each with `against`; p by Holm over all of them.

    `look` counts how often the run has asked whether it may stop, 0 if it never does.
    """
    pairs = [
        pair for pair in itertools.combinations(values, 2) if against is None or against in pair
    ]
    found = [paired(a, b, values[a], values[b]) for a, b in pairs]
    corrected = holm([pair.p_kld for pair in found])
    if look:
        corrected = [p if math.isnan(p) else at_look(p, look) for p in corrected]
    result = {}
    for pair, p in zip(found, corrected, strict=True):
        result[pair.name, pair.against] = replace(pair, p=p)
        result[pair.against, pair.name] = turned(replace(pair, p=p))
    return result


def turned(pair: Paired) -> Paired:
    """The same comparison, seen from the other model."""
    return replace(
        pair,
        name=pair.against,
        against=pair.name,
        kld=Estimate(-pair.kld.value, pair.kld.error, pair.kld.windows),
        nll=Estimate(-pair.nll.value, pair.nll.error, pair.nll.windows),
        only_this=pair.only_other,
        only_other=pair.only_this,
    )


def is_decided(values: Mapping[str, TokenValues], look: int) -> bool:
    """Whether the order of all models by divergence is certain at this look.

    Models that are the same token by token are not told apart by more text: they count as decided.
    """
    means = {name: float(found.tokens("kld").mean()) for name, found in values.items()}
    pairs = all_pairs(values, look)
    return all(
        pairs[pair].p <= LEVEL or pairs[pair].kld == Estimate(0.0, 0.0)
        for pair in itertools.pairwise(sorted(means, key=means.__getitem__))
    )
