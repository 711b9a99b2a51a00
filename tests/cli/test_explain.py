"""`fewbit explain`: every term, every format and every mixture has an example that is true."""

from __future__ import annotations

import math

import numpy as np
import pytest

import fewbit
from fewbit.errors import InputError
from fewbit.formats.table import FORMATS
from fewbit.measure.roofline import rooflines
from fewbit.recipes.mixtures import MAIN_FORMATS
from fewbit.reports.examples import EXAMPLES, TENSOR, weights
from fewbit.reports.explain import explainable
from fewbit.reports.glossary import TERMS, find_term
from fewbit.tables import Table
from tests.cli.running import Fewbit

MEASURED = "roofline"


def cells(name: str) -> list[tuple[str, ...]]:
    (table,) = [item for item in fewbit.explain(name).example if isinstance(item, Table)]
    return table.rows


def test_every_term_has_an_example_and_known_neighbours() -> None:
    assert EXAMPLES.keys() == TERMS.keys()
    for term in TERMS.values():
        assert all(find_term(name) for name in term.see), term.name
        for alias in term.aliases:
            assert find_term(alias) is term, alias


@pytest.mark.parametrize("name", [name for name in TERMS if name != MEASURED])
def test_terms(name: str, fewbit: Fewbit) -> None:
    ended = fewbit("explain", name.upper())
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"{name} (term)\n")
    assert TERMS[name].text[0] in ended.out.replace("\n", " ")
    found = fewbit("explain", name, "--json").json
    assert found["kind"] == "term"
    assert found["example"]


@pytest.mark.parametrize("name", [*FORMATS, *MAIN_FORMATS, "asym3-g64", "sym4", "e3m2", "u5"])
def test_formats_and_mixtures(name: str) -> None:
    found = fewbit.explain(name.lower())
    assert found.kind in ("format", "mixture", "number format")
    assert found.text
    assert found.example
    assert len(str(found).splitlines()) > 5
    if name in FORMATS and found.kind == "format":
        stored = fewbit.FORMATS[name]
        assert f"{stored.bits_per_weight:.4g} bits per weight" in found.text[0]


def test_an_example_is_what_the_format_stores() -> None:
    """The rows of the example are the first weights of the demo, encoded."""
    model = fewbit.load("demo", "cpu")
    x = model.tensor(TENSOR)[:1, :32]
    assert weights(32) == x[0].tolist()
    q = fewbit.quantize(x, "Q4_0")
    rows = cells("Q4_0")
    assert [row[1] for row in rows] == [str(code) for code in q.codes[0, :8]]
    assert [float(row[2]) for row in rows] == pytest.approx(q.dequantize()[0, :8], rel=1e-3)


def test_perplexity_is_the_exponential_of_the_mean() -> None:
    mean = np.mean([float(row[2]) for row in cells("perplexity")])
    assert f"{math.exp(mean):.0f}" in fewbit.explain("ppl").example[-1]  # type: ignore[operator]


def test_the_terms_of_kld_are_p_ln_p_over_q() -> None:
    *some, total = cells("kl divergence")
    for _, p, q, part in some:
        assert float(part) == pytest.approx(float(p) * math.log(float(p) / float(q)), abs=2e-4)
    assert 0 < float(total[3]) < 1


def test_the_list(fewbit: Fewbit) -> None:
    ended = fewbit("explain")
    assert ended.code == 0
    for name in [*TERMS, "Q4_K_M", "IQ2_XXS", "bfloat16"]:
        assert name in ended.out
    assert explainable().number_formats["float32"] == 32
    assert len(fewbit("explain", "--json").json["formats"]["recipes"]) > 30


def test_an_unknown_name(fewbit: Fewbit) -> None:
    ended = fewbit("explain", "Q4_KM")
    assert (ended.code, ended.out) == (1, "")
    assert "did you mean `Q4_K_M`" in ended.err
    ended = fewbit("explain", "bloc")
    assert "did you mean `block`" in ended.err


def test_rooflines_are_bounds() -> None:
    found = rooflines(["Q8_0", "Q2_K"], rounds=2, shape=(64, 512))
    assert [r.bits_per_weight for r in found] == [8.5, 2.625]
    assert found[0].memory * 8.5 == pytest.approx(found[1].memory * 2.625)
    for r in found:
        assert r.reached == min(r.arithmetic, r.memory) > 0
        assert (r.limit == "memory") == (r.memory <= r.arithmetic)
    with pytest.raises(InputError):
        rooflines(["Q8_0"], rounds=0)


def test_the_roofline_names_each_format_and_its_limit() -> None:
    rows = cells("2-bit")
    assert [row[0] for row in rows][:2] == ["Q8_0", "Q4_0"]
    for row in rows:
        arithmetic, memory = float(row[2]), float(row[3])
        assert {"memory": memory <= arithmetic, "arithmetic": memory >= arithmetic}[row[4]]
