"""`fewbit outliers`: places, the proof by zeroing, and what keeping outliers apart gains."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import fewbit
from fewbit import Model
from fewbit.cli import main as cli
from fewbit.errors import FewbitError
from fewbit.files.checkpoint import LazyTensor
from fewbit.reports import outliers
from tests.compare import same_bits

TEXT = fewbit.demo_text()
SHORT = {"ctx": 64, "chunks": 3}
TENSOR = "blk.1.ffn_down.weight"


@pytest.fixture(scope="module")
def demo() -> Model:
    return fewbit.load("demo", "cpu")


def test_the_farthest_are_those_of_the_whole_tensors(
    demo: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outliers, "SLAB", 10_000)  # several slabs a tensor
    expected = []
    for tensor in demo.checkpoint.tensors.values():
        if len(tensor.shape) > 1:
            x = demo.tensor(tensor.name).astype(np.float64)
            far = np.abs(x - x.mean()) / x.std()
            for place in np.argsort(-far.ravel())[:5]:
                row, column = divmod(int(place), x.shape[1])
                expected.append((float(far[row, column]), tensor.name, row, column, x[row, column]))
    expected.sort(reverse=True)
    found = fewbit.find_outliers(demo, "", formats=[], single=0, count=5)
    assert (found.proven, found.apart) == ((), ())
    for got, (sigmas, name, row, column, value) in zip(found.farthest, expected, strict=False):
        assert (got.tensor, got.row, got.column, got.value) == (name, row, column, value)
        assert got.sigmas == pytest.approx(sigmas)


def with_weight(demo: Model, row: int, column: int, value: float, name: str = TENSOR) -> Model:
    x = demo.tensor(name).copy()
    x[row, column] = value
    data = x.view(np.uint8)
    tensors = dict(demo.checkpoint.tensors)
    tensors[name] = LazyTensor(name, "F32", x.shape, lambda: data)
    return Model(dataclasses.replace(demo.checkpoint, tensors=tensors))


def test_a_super_weight_is_found_and_proven(demo: Model) -> None:
    """A weight of 30 on a busy column comes first, and its loss is by far the largest."""
    found = fewbit.find_outliers(
        with_weight(demo, 7, 221, 30.0), TEXT, formats=[], single=2, **SHORT
    )
    first, *others = found.proven
    assert (first.weight.tensor, first.weight.row, first.weight.column) == (TENSOR, 7, 221)
    assert first.weight.value == 30
    assert first.spike is not None
    assert first.spike > 2
    assert all(first.kld.value > 20 * other.kld.value for other in others)
    assert others[-1].spike is None


def test_a_weight_counts_by_its_inputs(demo: Model) -> None:
    """Of two planted weights the smaller one comes first if its column is busy."""
    inputs = np.ravel(demo.imatrix(TEXT, ctx=64, chunks=3)[TENSOR])
    busy, quiet = int(inputs.argmax()), int(inputs.argmin())
    model = with_weight(demo, 7, busy, 3.0)
    changed = with_weight(model, 9, quiet, 4.0)
    found = fewbit.find_outliers(changed, TEXT, formats=[], single=1, **SHORT)
    assert (found.farthest[0].row, found.farthest[0].column) == (9, quiet)
    candidate, outlier = found.proven
    assert (candidate.weight.row, candidate.weight.column) == (7, busy)
    assert (outlier.weight.row, outlier.spike) == (9, None)
    assert candidate.kld.value > 10 * outlier.kld.value


def test_zeroing_measures_the_model_without_the_weight(demo: Model) -> None:
    found = fewbit.find_outliers(demo, TEXT, formats=[], single=1, **SHORT)
    assert len(found.proven) == 2
    for each in found.proven:
        place = (each.weight.row, each.weight.column)
        assert demo.tensor(each.weight.tensor)[place] == each.weight.value
        without = with_weight(demo, *place, 0.0, each.weight.tensor)
        assert each.kld == without.divergence(demo, TEXT, acts="f32", **SHORT).kld


def test_keeping_outliers_apart(demo: Model) -> None:
    (found,) = fewbit.find_outliers(
        demo, TEXT, formats=["Q2_K"], single=0, fraction=0.01, **SHORT
    ).apart
    plain = demo.quantize("Q2_K", options=fewbit.Options()).divergence(
        demo, TEXT, acts="f32", **SHORT
    )
    assert found.kld.value == pytest.approx(plain.kld.value, rel=1e-4)
    assert found.kld_with_outliers.value < found.kld.value
    assert found.bits_with_outliers == pytest.approx(found.bits_per_weight + 0.64, abs=0.01)


def test_what_is_kept_is_exact_and_does_not_scale_the_rest() -> None:
    x = np.random.default_rng(1).normal(size=(4, 64)).astype(np.float32)
    x[2, 5] = 1000
    out = outliers._through("Q4_0", 1)(x)
    assert out[2, 5] == 1000
    rest = x.copy()
    rest[2, 5] = 0
    expected = fewbit.quantize(rest, "Q4_0").dequantize()
    expected[2, 5] = 1000
    same_bits(out, expected)
    same_bits(outliers._through("Q4_0", 0)(x), fewbit.quantize(x, "Q4_0").dequantize())


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    short = ("--ctx", "64", "--chunks", "2", "--single", "1")
    assert cli.run(["outliers", "-f", "Q4_0", *short]) == 0
    shown = capsys.readouterr().out
    assert "blk.3.ffn_down.weight  154     529" in shown
    assert "KLD on 2 windows" in shown
    assert cli.run(["outliers", "--single", "0", "--count", "2", "--json"]) == 0
    assert '"sigmas"' in capsys.readouterr().out
    assert cli.run(["outliers", "--fraction", "2"]) == 1
    assert "a fraction of 2" in capsys.readouterr().err


def test_wrong_use(demo: Model) -> None:
    with pytest.raises(FewbitError, match="Q4_9"):
        fewbit.find_outliers(demo, TEXT, formats=["Q4_9"])
    with pytest.raises(FewbitError, match="0 outliers"):
        fewbit.find_outliers(demo, TEXT, count=0)
