"""Distributions of large tensors: in slabs, equal to those of the whole array."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from fewbit.files.tensor_file import open_tensors
from fewbit.reports import distributions as module
from fewbit.reports.distributions import distribution, distributions
from fewbit.reports.summaries import Distribution
from tests import foreign_files

RNG = np.random.default_rng(5)
ARRAYS = {
    "normal": RNG.normal(size=(64, 512)),
    "skewed": RNG.lognormal(0, 3, (64, 512)) - 1,
    "few values": RNG.integers(-3, 4, (64, 512)),
    "constant": np.full((64, 512), 0.1),
    "zeros of both signs": np.where(RNG.random((64, 512)) < 0.5, -0.0, 0.0),
    "tiny": RNG.normal(size=(64, 512)) * 1e-40,
    "infinite": np.where(np.arange(64)[:, None] == 7, np.inf, RNG.normal(size=(64, 512))),
    "not a number": np.where(np.arange(64)[:, None] == 7, np.nan, RNG.normal(size=(64, 512))),
}


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("name", ARRAYS)
def test_slabs_give_the_distribution_of_the_whole(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = ARRAYS[name].astype(np.float32)
    path = foreign_files.write(tmp_path / "x.gguf", {}, {"w": values})
    monkeypatch.setattr(module, "SLAB", 5000)
    steps: list[tuple[int, int, str]] = []
    (found,) = distributions(open_tensors(path), "w", lambda *step: steps.append(step))
    same(found, distribution("w", "F32", values.shape, values))
    assert len(steps) == 3 * math.ceil(64 / 9)
    assert steps[-1] == (3 * 64, 3 * 64, "w")
    assert [step[0] for step in steps] == sorted(step[0] for step in steps)


def same(found: Distribution, expected: Distribution) -> None:
    """All numbers are equal, but for sums in another order."""
    for key, value in vars(expected).items():
        if key in ("mean", "deviation"):
            close = np.isclose(getattr(found, key), value, rtol=1e-12, equal_nan=True)
            assert close, key
        else:
            np.testing.assert_equal(getattr(found, key), value, err_msg=key)


MEMORY = """
import resource, sys
from fewbit.files.tensor_file import open_tensors
from fewbit.reports.distributions import distributions
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
list(distributions(open_tensors(sys.argv[1]), ""))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
