"""`fewbit sensitivity`: the bits of models with one tensor quantized, rows kept in a file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fewbit
from fewbit import Model
from fewbit.cli import main as cli
from fewbit.errors import FewbitError
from fewbit.improve import sensitivity_run
from fewbit.improve import tails as tails_module
from fewbit.improve.segments import segments
from fewbit.improve.sensitivity import Substitution
from fewbit.improve.sensitivity_rows import Loss
from fewbit.improve.tails import Tails
from tests.compare import same_bits
from tests.golden.loading import NAMES, asset

TEXT = fewbit.demo_text()
SHORT = {"ctx": 32, "chunks": 2}


@pytest.fixture(scope="module")
def demo() -> Model:
    return fewbit.load("demo", "cpu")


@pytest.fixture(scope="module")
def found(demo: Model) -> fewbit.Sensitivity:
    return demo.sensitivity("Q4_0", TEXT, by="layer", all_but_one=True, **SHORT)


def measured(demo: Model, formats: dict[str, str]) -> Loss:
    model = Model(demo.checkpoint, formats)
    return Loss.of(model.divergence(demo, TEXT, acts="f32", **SHORT))


def test_a_loss_is_that_of_the_model_with_these_tensors_quantized(
    demo: Model, found: fewbit.Sensitivity
) -> None:
    new = demo.quantize("Q4_0").formats
    assert [row.name for row in found.rows] == [
        "token_embd.weight", *(f"blk.{i}" for i in range(4))
    ]  # fmt: skip
    for row in (found.rows[0], found.rows[2]):
        chosen = {name: new[name] for name in row.tensors}
        assert row.alone == measured(demo, {**demo.formats, **chosen})
        kept = {name: demo.formats[name] for name in row.tensors}
        assert row.all_but_one == measured(demo, {**new, **kept})
        assert row.alone.kld.value > 0
    assert found.total == measured(demo, new)


def test_bytes_saved_are_those_of_the_sizes(demo: Model, found: fewbit.Sensitivity) -> None:
    row = found.rows[1]
    chosen = demo.quantize("Q4_0").formats
    model = Model(demo.checkpoint, {**demo.formats, **{n: chosen[n] for n in row.tensors}})
    assert row.bytes_saved == demo.sizes.bytes - model.sizes.bytes > 0
    assert row.kld_per_byte == row.alone.kld.value / row.bytes_saved


def test_a_row_for_each_tensor(demo: Model) -> None:
    found = demo.sensitivity("Q2_K", TEXT, ctx=16, chunks=1)
    new = demo.quantize("Q2_K").formats
    quantized = {name for name in demo.plan.weights() if new[name] != "F32"}
    assert {row.name for row in found.rows} == quantized
    name = "blk.3.ffn_down.weight"
    (row,) = (row for row in found.rows if row.name == name)
    model = Model(demo.checkpoint, {**demo.formats, name: new[name]})
    assert (
        row.alone.kld.value == model.divergence(demo, TEXT, acts="f32", ctx=16, chunks=1).kld.value
    )
    assert np.isnan(row.alone.kld.error)
    assert row.all_but_one is None


@pytest.mark.parametrize("name", NAMES)
def test_tails_give_the_bits_of_every_architecture(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tails_module, "BATCH", 6)
    monkeypatch.setattr(tails_module, "WINDOWS", 1)
    model = fewbit.load(asset(name).parent, "cpu")
    rng = np.random.default_rng(4)
    tokens = rng.integers(model.config.vocab, size=(2, 19)).astype(np.uint32)
    tails = Tails(model, tokens, 7)
    for part in segments(model.plan):
        weights = sorted(set(part.plan.weights()) & set(model.plan.weights()))
        changed = [Substitution(w, "F32", (model.tensor(w) * 1.25).reshape(
            -1, model.tensor(w).shape[-1]).view(np.uint8)) for w in weights[:1]
            if tails.segment_of([w]) == part.index]  # fmt: skip
        other = with_values(model, changed)
        for window, logits in zip(tokens, tails.logits(part.index, changed), strict=True):
            same_bits(logits, other.logits(window, "f32")[7:], f"segment {part.index}")


def with_values(model: Model, changes: Iterable[Substitution]) -> Model:
    """The model with the bytes of `changes`."""
    from fewbit.files.checkpoint import with_data

    formats = {**model.formats, **{c.name: c.format for c in changes}}
    data = {c.name: c.data for c in changes}
    return Model(with_data(model.checkpoint, formats, data), formats)


def test_an_interrupted_call_goes_on(
    demo: Model, found: fewbit.Sensitivity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "s.json"
    asked: dict[str, Any] = {"by": "layer", "all_but_one": True, "results": file, **SHORT}

    def stop(done: int, total: int, text: str) -> None:
        if text == "blk.2 alone":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo.sensitivity("Q4_0", TEXT, progress=stop, **asked)
    saved = json.loads(file.read_text())
    assert saved["schema"] == "fewbit.sensitivity/1"
    assert [row["name"] for row in saved["rows"]] == ["token_embd.weight", "blk.0", "blk.1"]
    seen: list[str] = []
    again = demo.sensitivity("Q4_0", TEXT, progress=lambda *a: seen.append(a[2]), **asked)
    assert again == found
    assert seen[:2] == ["blk.2 alone", "blk.3 alone"]
    assert len(seen) == 2 + 5
    monkeypatch.setattr(sensitivity_run, "Tails", None)  # nothing is left to measure
    assert demo.sensitivity("Q4_0", TEXT, **asked) == found
    alone = demo.sensitivity("Q4_0", TEXT, **{**asked, "all_but_one": False})
    assert {row.all_but_one for row in alone.rows} == {None}


def test_a_file_of_other_results_is_refused(demo: Model, tmp_path: Path) -> None:
    file = tmp_path / "s.json"
    asked: dict[str, Any] = {"by": "layer", "results": file}
    demo.sensitivity("Q4_0", TEXT, ctx=16, chunks=1, **asked)
    before = file.read_bytes()
    for recipe, text, ctx in (("Q5_0", TEXT, 16), ("Q4_0", TEXT, 20), ("Q4_0", TEXT[9:], 16)):
        with pytest.raises(FewbitError, match="holds something else"):
            demo.sensitivity(recipe, text, ctx=ctx, chunks=1, **asked)
    assert file.read_bytes() == before
    damaged = json.loads(before)
    del damaged["rows"][0]["alone"]
    file.write_text(json.dumps(damaged))
    with pytest.raises(FewbitError, match="is damaged"):
        demo.sensitivity("Q4_0", TEXT, ctx=16, chunks=1, **asked)


def test_the_command(capsys: pytest.CaptureFixture[str], found: fewbit.Sensitivity) -> None:
    short = ("-f", "Q4_0", "--by", "layer", "--ctx", "32", "--chunks", "2", "--all-but-one")
    assert cli.run(["sensitivity", *short]) == 0
    shown = capsys.readouterr().out
    assert shown.rstrip() == str(found).rstrip()
    assert "████████████" in shown
    row, rest = found.rows[2], found.rows[2].all_but_one
    assert rest is not None
    (line,) = (line for line in shown.splitlines() if line.startswith("blk.1 "))
    adds = found.total.kld.value - rest.kld.value
    assert f"{row.alone.kld.value:.6f}" in line
    assert line.split()[-2:] == [f"{rest.kld.value:.6f}", f"{adds:.6f}"]
    assert cli.run(["sensitivity", *short, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found.to_dict()


def test_wrong_use(demo: Model, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FewbitError, match="by `layers`"):
        demo.sensitivity("Q4_0", TEXT, by="layers")
    with pytest.raises(FewbitError, match="every tensor as it is"):
        demo.sensitivity("BF16", TEXT)
    with pytest.raises(FewbitError, match="Q4_9"):
        demo.sensitivity("Q4_9", TEXT)
    assert cli.run(["sensitivity"]) == 1
    assert "no format named" in capsys.readouterr().err
