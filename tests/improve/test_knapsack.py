"""The knapsack against all combinations, and mixtures of a model's formats against its recipes."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import fewbit
from fewbit.improve.knapsack import Choice, choose


def random_tensors(seed: int, count: int) -> dict[str, list[Choice]]:
    """Tensors with three formats each: the more bytes, the less loss, mostly."""
    rng = np.random.default_rng(seed)
    found = {}
    for index in range(count):
        sizes = np.sort(rng.integers(10, 5000, 3))
        losses = np.sort(rng.random(3))[::-1]
        found[f"t{index}"] = [
            Choice(f"F{i}", int(size), float(loss))
            for i, (size, loss) in enumerate(zip(sizes, losses, strict=True))
        ]
    return found


@pytest.mark.parametrize("seed", range(8))
def test_no_combination_loses_less(seed: int) -> None:
    tensors = random_tensors(seed, 6)
    least = sum(choices[0].bytes for choices in tensors.values())
    most = sum(choices[-1].bytes for choices in tensors.values())
    for budget in np.linspace(least, most, 5).astype(int).tolist():
        chosen = choose(tensors, budget)
        assert list(chosen) == list(tensors)
        assert sum(choice.bytes for choice in chosen.values()) <= budget
        best = min(
            sum(choice.loss for choice in combination)
            for combination in product(*tensors.values())
            if sum(choice.bytes for choice in combination) <= budget
        )
        assert sum(choice.loss for choice in chosen.values()) == pytest.approx(best, rel=1e-12)


def test_a_large_budget_is_kept_though_its_lattice_is_coarse() -> None:
    tensors = {
        name: [Choice(c.format, c.bytes * 10**6 + 1, c.loss) for c in choices]
        for name, choices in random_tensors(9, 30).items()
    }
    least = sum(choices[0].bytes for choices in tensors.values())
    for budget in (least, least + 1, least + 10**9):
        chosen = choose(tensors, budget)
        assert sum(choice.bytes for choice in chosen.values()) <= budget


def test_too_few_bytes_are_refused() -> None:
    tensors = random_tensors(1, 3)
    least = sum(choices[0].bytes for choices in tensors.values())
    with pytest.raises(fewbit.InputError, match="bytes are too few"):
        choose(tensors, least - 1)
