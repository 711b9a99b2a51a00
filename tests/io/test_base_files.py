"""Base files: llama.cpp's layout read without fewbit, damaged files, and the compact kind."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fewbit.errors import FewbitError, FileFormatError, InputError, UnsupportedError
from fewbit.files import base_file, top_k_base
from fewbit.files.base_file import KldFile, Shape
from fewbit.files.top_k_base import Layout, TopKFile
from fewbit.measure import evaluate, top_k
from fewbit.measure.base_files import divergences_from, open_base, saving
from fewbit.measure.evaluate import Variant
from fewbit.measure.results import Divergence
from fewbit.reports.base_summary import inspect_base
from tests.bigram import ALPHABET, Bigram

VOCAB = 15
TEXT = "".join(np.random.default_rng(5).choice(list(ALPHABET[:14]), 205))
Floats = NDArray[np.float64]


def written(path: Path, base: Bigram, top: int | None = None, ctx: int = 20) -> Path:
    """A base file of `base` on `TEXT`; the models have 15 tokens."""
    windows = evaluate.windows(base, TEXT, ctx)
    with saving(path, base, windows, top) as on_base:
        evaluate.divergences([], Variant(base, "f32"), TEXT, ctx, on_base=on_base)
    return path


def from_file(model: Bigram, path: Path, formula: str = "fewbit") -> Divergence:
    found = divergences_from([Variant(model, "f32")], open_base(path), formula=formula)
    return found[0]


def ln_softmax(row: NDArray[np.float32]) -> list[float]:
    values = [float(x) for x in row]
    total = math.log(math.fsum(math.exp(x - max(values)) for x in values)) + max(values)
    return [x - total for x in values]


def test_the_layout_is_llama_cpp_s(tmp_path: Path) -> None:
    """Each byte of the file, by the layout alone: 10 windows of 20 tokens, 9 rows of 20 u16."""
    base = Bigram()
    data = written(tmp_path / "a.kld", base).read_bytes()
    assert data[:8] == b"_logits_"
    assert np.frombuffer(data, "<u4", 3, 8).tolist() == [20, VOCAB, 10]
    ids = [ALPHABET.index(c) for c in TEXT[:200]]
    assert np.frombuffer(data, "<i4", 200, 20).tolist() == ids
    rows = np.frombuffer(data, "<u2", offset=820).reshape(10, 9, 20)
    for window in range(10):
        for row in range(9):
            step, lowest = np.frombuffer(rows[window, row, :4].tobytes(), "<f4").astype(float)
            expected = ln_softmax(base.table[ids[20 * window + 10 + row]])
            stored = step * rows[window, row, 4:19] + lowest
            assert np.abs(stored - expected).max() <= 0.51 * step + 1e-6
            assert rows[window, row, 19] == 0, "the pad of an odd vocabulary"


def test_values_far_below_the_largest_are_cut(tmp_path: Path) -> None:
    logits = np.array([[0, -3, -15.9, -16.5, -40, -np.inf]], np.float32)
    (row,) = base_file.encode(logits)
    step, lowest = np.frombuffer(row[:4].tobytes(), "<f4").astype(float)
    assert row[4:].tolist()[3:] == [0, 0, 0]
    assert row[4] == 65535
    assert row[6] == round(0.1 / step)
    assert abs(step - 16 / 65535) < 1e-9
    assert abs(lowest - (-16 - math.log(1 + math.exp(-3) + math.exp(-15.9)))) < 1e-6


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_without_a_softmax_is_not_finite_when_it_is_read(bad: float) -> None:
    row = base_file.encode(np.array([[0, bad, 1]], np.float32))[0]
    assert not np.isfinite(np.frombuffer(row[:4].tobytes(), "<f4")).all()


def test_a_divergence_from_a_file_is_that_of_the_models(tmp_path: Path) -> None:
    base, model = Bigram(), Bigram(1)
    expected = evaluate.divergence(model, base, TEXT, ctx=20, acts="f32")
    for formula in ("fewbit", "llama.cpp"):
        found = from_file(model, written(tmp_path / "a.kld", base), formula)
        assert abs(found.kld.value / expected.kld.value - 1) < 1e-4
        assert abs(found.ppl_base.value / expected.ppl_base.value - 1) < 1e-4
        assert found.ppl.value == expected.ppl.value
        assert found.same_top.value == expected.same_top.value
        windows = 10 if formula == "fewbit" else 90  # llama.cpp's errors count tokens
        assert found.kld.windows == windows
        assert found.base_file is not None
        assert found.base_file.formula == formula
    assert "16 bits: ln p is off by up to" in str(found)


def test_cut_tokens_add_nothing(tmp_path: Path) -> None:
    """A quarter of the tokens is 30 nats below: with their raised values the divergence is off."""
    base = Bigram()
    base.table[:, ::4] -= 30
    model = Bigram()
    model.table = base.table + model.noise
    expected = evaluate.divergence(model, base, TEXT, ctx=20, acts="f32").kld
    path = written(tmp_path / "a.kld", base)
    assert abs(from_file(model, path).kld.value / expected.value - 1) < 1e-4
    model.table = base.table
    assert from_file(model, path).kld.value < 1e-8, "the model itself"


def test_llama_cpp_s_formula(tmp_path: Path) -> None:
    """Probabilities as stored, without the terms of ln p <= -16, one by one."""
    base, model = Bigram(), Bigram(1)
    base.table[:, 3] -= 30
    path = written(tmp_path / "a.kld", base)
    file, total, count = KldFile(path), 0.0, 0
    for window in range(10):
        for row, ln_p in enumerate(file.log_probabilities(window, 0, 9)):
            ln_q = ln_softmax(model.table[file.tokens[window, 10 + row]])
            total += math.fsum(
                math.exp(a) * (float(a) - b) for a, b in zip(ln_p, ln_q, strict=True) if a > -16
            )
            count += 1
    assert abs(from_file(model, path, "llama.cpp").kld.value - total / count) < 1e-9


def test_bos_of_the_model_is_put_in_front(tmp_path: Path) -> None:
    base = Bigram(adds_bos=True)
    path = written(tmp_path / "a.kld", base)
    expected = evaluate.divergence(Bigram(1, adds_bos=True), base, TEXT, ctx=20, acts="f32")
    found = from_file(Bigram(1, adds_bos=True), path)
    assert found.ppl == expected.ppl
    assert KldFile(path).tokens[1, 0] == ALPHABET.index(TEXT[19]), "as the text has it"


# --- damaged files ---


def kld(tmp_path: Path) -> bytearray:
    return bytearray(written(tmp_path / "whole.kld", Bigram()).read_bytes())


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, b"x", "does not begin with `_logits_`"),
        (8, b"\x03\0\0\0", "10 windows of 3 tokens"),
        (8, b"\xff\xff\xff\xff", "windows of 4294967295 tokens"),
        (12, b"\x01\0\0\0", "a vocabulary of 1"),
        (12, b"\x0e\0\0\0", "bytes, its header asks for"),
        (16, b"\0\0\0\0", "0 windows"),
        (16, b"\x0b\0\0\0", "bytes, its header asks for"),
        (16, b"\xff\xff\xff\x7f", "2147483647 windows"),
        (20 + 4 * 23, b"\x0f\0\0\0", "token 3 of window 1 is 15, the vocabulary has 15"),
        (20, b"\xff\xff\xff\xff", "token 0 of window 0 is -1"),
    ],
)
def test_a_wrong_header_is_named(at: int, value: bytes, message: str, tmp_path: Path) -> None:
    data = kld(tmp_path)
    data[at : at + len(value)] = value
    (tmp_path / "a.kld").write_bytes(data)
    with pytest.raises(FileFormatError, match=message):
        KldFile(tmp_path / "a.kld")


@pytest.mark.parametrize("end", [0, 7, 19, 100, -1])
def test_files_of_other_lengths_are_refused(end: int, tmp_path: Path) -> None:
    for name in ("a.kld", "a.fbkld"):
        data = written(tmp_path / name, Bigram()).read_bytes()
        (tmp_path / name).write_bytes(data[:end])
        with pytest.raises(FileFormatError):
            open_base(tmp_path / name)
        (tmp_path / name).write_bytes(data + b"\0\0")
        with pytest.raises(FileFormatError, match="its header asks for"):
            open_base(tmp_path / name)


@pytest.mark.parametrize("value", [-1.0, 3.0, np.inf])
def test_a_row_that_is_no_distribution_is_named(value: float, tmp_path: Path) -> None:
    data = kld(tmp_path)
    start = 820 + 2 * 20 * (2 * 9 + 5)
    data[start : start + 4] = np.float32(value).tobytes()
    (tmp_path / "a.kld").write_bytes(data)
    with pytest.raises(FileFormatError, match="row 5 of window 2 has a probability above 1"):
        from_file(Bigram(1), tmp_path / "a.kld")


@pytest.mark.parametrize("seed", range(60))
def test_changed_bytes_raise_nothing_but_fewbit_s_errors(seed: int, tmp_path: Path) -> None:
    name, rng = ("a.kld", "a.fbkld")[seed % 2], np.random.default_rng(seed)
    data = bytearray(written(tmp_path / name, Bigram(), ctx=60).read_bytes())
    for at in rng.integers(0, 400 if seed % 4 < 2 else len(data), 4):
        data[at] = rng.integers(256)
    (tmp_path / name).write_bytes(data)
    try:
        inspect_base(tmp_path / name)
        from_file(Bigram(1, context=128), tmp_path / name)
    except FewbitError:
        pass


def test_a_file_that_became_shorter_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.kld", Bigram())
    file = KldFile(path)
    with path.open("r+b") as shorter:
        shorter.truncate(100)
    with pytest.raises(FileFormatError, match="when it was opened and has 100 now"):
        file.stored(0, 0, 1)


def test_nothing_is_left_behind_when_the_base_fails(tmp_path: Path) -> None:
    windows = evaluate.windows(Bigram(), TEXT, 20)
    with pytest.raises(InputError), saving(tmp_path / "a.kld", Bigram(), windows):
        raise InputError("the base fails")
    assert list(tmp_path.iterdir()) == []


def test_another_vocabulary_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.kld", Bigram())
    other = Bigram()
    other.config = Bigram().config.__class__("llama", 99, 1, 32, 64, 2, 1, 16, 1e-5, 64)
    with pytest.raises(InputError, match=r"the model has 99 tokens, .* has 15"):
        from_file(other, path)


# --- the compact kind ---


def many(seed: int, rows: int = 40, vocab: int = 2000) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 3, (rows, vocab)).astype(np.float32)


def compact(logits: NDArray[np.float32], top: int, tmp_path: Path) -> TopKFile:
    """A file of one window whose rows are `logits`."""
    rows, vocab = logits.shape
    ctx = 2 * rows + 2
    shape, tokens = Shape(ctx, vocab, 1), np.arange(ctx, dtype=np.uint32)[None] % vocab
    targets = np.arange(rows, dtype=np.uint32)
    with top_k_base.writing(tmp_path / "a.fbkld", shape, tokens, top, bytes(32)) as writer:
        writer.add(logits[:7], targets[:7])
        writer.add(logits[7:], targets[7:])
    return TopKFile(tmp_path / "a.fbkld")


def exact(base: NDArray[np.float32], model: NDArray[np.float32]) -> Floats:
    p, q = (
        rows - np.log(np.exp(rows).sum(1, keepdims=True))
        for rows in (base.astype(np.float64), model.astype(np.float64))
    )
    found: Floats = (np.exp(p) * (p - q)).sum(1)
    return found


@pytest.mark.parametrize("noise", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("top", [1, 20, 200, 2000])
def test_the_bounds_hold_and_the_estimate_is_near(noise: float, top: int, tmp_path: Path) -> None:
    base = many(0)
    model = base + np.float32(noise) * many(1)
    file, targets = compact(base, top, tmp_path), np.arange(40, dtype=np.uint32)
    found = top_k.divergence(file.rows(0, 0, 40), model, targets)
    expected = exact(base, model)
    slack = 1e-7 + 1e-4 * np.sqrt(2 * expected)  # a step of 16 bits times the deviation
    assert (found["kld_low"] <= expected + slack).all()
    assert (found["kld_high"] >= expected - slack).all()
    assert (found["kld"] >= found["kld_low"]).all()
    rest = np.exp(file.rows(0, 0, 40).ln_rest).mean()
    allowed = 5 * rest * math.sqrt(2 / 16 / 40) * (2 if noise == 1 else 1) + 1e-3
    assert abs(found["kld"].mean() / expected.mean() - 1) <= allowed
    if top == 2000:
        assert np.abs(found["kld_low"] - found["kld"]).max() == 0, "nothing is left out"
        assert (np.abs(found["kld"] - expected) <= slack).all()


def test_a_model_against_its_own_compact_file_is_near_zero(tmp_path: Path) -> None:
    base = many(3)
    file = compact(base, 100, tmp_path)
    found = top_k.divergence(file.rows(0, 0, 40), base, np.arange(40, dtype=np.uint32))
    assert np.abs(found["kld"]).max() < 1e-7
    assert found["same_top"].all()
    assert np.abs(found["dp"]).max() < 1e-6


def test_the_layout_of_the_compact_kind(tmp_path: Path) -> None:
    """Fields by the documented layout alone."""
    base = np.array([[1, 5, 5, 0, -2, 3]] * 3, np.float32)
    shape, tokens = Shape(8, 6, 1), np.arange(8, dtype=np.uint32)[None] % 6
    with top_k_base.writing(tmp_path / "a.fbkld", shape, tokens, 2, b"d" * 32) as writer:
        writer.add(base, np.array([5, 0, 1], np.uint32))
    data = (tmp_path / "a.fbkld").read_bytes()
    assert data[:8] == b"fewbitKL"
    assert np.frombuffer(data, "<u4", 7, 8).tolist() == [1, 8, 6, 1, 2, 16, 2]
    assert data[36:68] == b"d" * 32
    assert np.frombuffer(data, "<u4", 8, 68).tolist() == [0, 1, 2, 3, 4, 5, 0, 1]
    size = -(-(20 + 2 * (2 + 2) + 16 * (2 + 4)) // 4) * 4
    assert len(data) == 100 + 3 * size
    ln_p = np.array(ln_softmax(base[0]))
    rest = [0, 3, 4, 5]
    for row in range(3):
        at = 100 + row * size
        step, lowest, target, mass, negentropy = np.frombuffer(data, "<f4", 5, at).astype(float)
        assert (step, np.frombuffer(data, "<u2", 2, at + 24).tolist()) == (0, [1, 2])
        assert abs(lowest - ln_p[1]) < 1e-6
        assert abs(target - ln_p[[5, 0, 1][row]]) < 1e-6
        assert abs(mass - math.log(np.exp(ln_p[rest]).sum())) < 1e-6
        assert abs(negentropy - (np.exp(ln_p[rest]) * ln_p[rest]).sum()) < 1e-6
        fraction = (row + 1) * (math.sqrt(5) - 1) / 2 % 1
        line = np.cumsum(np.exp(ln_p[rest])) / np.exp(ln_p[rest]).sum()
        drawn = [rest[int((line <= (j + fraction) / 16).sum())] for j in range(16)]
        assert np.frombuffer(data, "<u2", 16, at + 28).tolist() == drawn
        assert np.allclose(np.frombuffer(data, "<f4", 16, at + 60), ln_p[drawn], atol=1e-6)


@pytest.mark.parametrize("vocab", [15, 320, 4096, 49152, 65536, 128256, 248320])
def test_the_default_is_a_tenth(vocab: int) -> None:
    top = top_k_base.default_top(vocab)
    size = Layout(vocab, top, top_k_base.SAMPLES).bytes
    if vocab > 1000:
        assert size <= 2 * base_file.row_width(vocab) / 10
        assert Layout(vocab, top + 2, top_k_base.SAMPLES).bytes > 2 * vocab / 10
    assert 1 <= top <= vocab


def test_large_ids_come_back(tmp_path: Path) -> None:
    base = many(4, rows=8, vocab=70000)
    file = compact(base, 50, tmp_path)
    assert file.layout.id_bytes == 3
    expected = np.argsort(-base, axis=1)[:, :50]
    assert file.rows(0, 0, 8).ids.tolist() == expected.tolist()


def test_tokens_with_other_texts_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.fbkld", Bigram(), top=5)
    assert from_file(Bigram(1), path).kld.value > 0
    other = Bigram(1)
    other.tokenizer.token = lambda id_: "?"
    with pytest.raises(InputError, match="whose tokens have other texts"):
        from_file(other, path)


def test_a_compact_file_has_no_formula_of_llama_cpp(tmp_path: Path) -> None:
    path = written(tmp_path / "a.fbkld", Bigram())
    with pytest.raises(InputError, match="needs all log-probabilities"):
        from_file(Bigram(1), path, "llama.cpp")


def test_versions_of_later_releases_are_named(tmp_path: Path) -> None:
    data = bytearray(written(tmp_path / "a.fbkld", Bigram()).read_bytes())
    data[8] = 2
    (tmp_path / "a.fbkld").write_bytes(data)
    with pytest.raises(UnsupportedError, match="of version 2, this fewbit reads version 1"):
        open_base(tmp_path / "a.fbkld")


@pytest.mark.parametrize("top", [0, 16])
def test_top_is_within_the_vocabulary(top: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"`--top {top}` of a vocabulary of 15 tokens"):
        written(tmp_path / "a.fbkld", Bigram(), top=top)


def test_inspect_shows_both_kinds(tmp_path: Path) -> None:
    full = inspect_base(written(tmp_path / "a.kld", Bigram()))
    assert (full.windows, full.ctx, full.vocab, full.rows) == (10, 20, VOCAB, 90)
    assert full.top is None
    some = inspect_base(written(tmp_path / "b.fbkld", Bigram(), top=3))
    assert (some.top, some.samples) == (3, 16)
    assert abs(some.entropy - full.entropy) < 1e-3
    assert "kept of a row" in str(some)
    assert "rows cut at 16 nats" in str(full)
