"""Importance matrices of fewbit against the one that llama-imatrix made of the same text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

import fewbit
from fewbit import _core
from fewbit.files.checkpoint import LazyTensor
from fewbit.files.gguf import read_gguf
from fewbit.measure import collect as calibrate
from fewbit.measure.evaluate import windows
from tests.compare import same_bits, within_bound
from tests.golden.loading import MODELS, asset

LLAMA = MODELS / "llama"
TEXT = (LLAMA / "calibration.txt").read_text("utf-8")
EPS = 2.0**-24
CACHE = 2.0**-11
"""llama-imatrix keeps keys and values as f16, so each is off by up to this part of itself."""


@pytest.fixture(scope="module")
def collected() -> fewbit.CollectedImatrix:
    return fewbit.load(LLAMA).imatrix(TEXT, ctx=128, chunks=8, output=True, dataset="wiki.txt")


def test_the_sums_are_llama_imatrix_s(collected: fewbit.CollectedImatrix) -> None:
    theirs = read_gguf(LLAMA / "imatrix.gguf")
    assert {name + end for name in collected for end in (".in_sum2", ".counts")} == set(
        theirs.tensors
    )
    for name, sums in collected.sums.items():
        counts = theirs.tensors[f"{name}.counts"].data.view("<f4").reshape(-1)
        assert collected.counts[name].tolist() == counts.tolist() == [1024]
        expected = theirs.tensors[f"{name}.in_sum2"].data.view("<f4").reshape(1, -1)
        # 1024 squares added in f32; behind attention both halves of the cache, and their squares
        first = name in {f"blk.0.attn_{n}.weight" for n in "qkv"}
        relative = 1024 * EPS + (0 if first else 4 * CACHE)
        within_bound(sums, expected, relative * expected, name)


def test_what_is_written_is_what_is_read(
    collected: fewbit.CollectedImatrix, tmp_path: Path
) -> None:
    collected.save(tmp_path / "m.gguf")
    found = fewbit.read_imatrix(tmp_path / "m.gguf")
    assert list(found) == sorted(collected)
    for name in found:
        same_bits(found[name], collected[name], name)
    assert (found.datasets, found.chunks) == (("wiki.txt",), 8)
    ours, theirs = read_gguf(tmp_path / "m.gguf"), read_gguf(LLAMA / "imatrix.gguf")
    assert {name: (e.format, e.shape) for name, e in ours.tensors.items()} == {
        name: (e.format, e.shape) for name, e in theirs.tensors.items()
    }
    differ = {key for key, field in theirs.metadata.items() if ours.metadata.get(key) != field}
    assert list(ours.metadata) == list(theirs.metadata)
    assert differ == {"imatrix.datasets"}


def test_the_output_is_left_out_unless_asked_for() -> None:
    found = fewbit.load(LLAMA).imatrix(TEXT, ctx=64, chunks=2)
    assert set(found) == {
        f"blk.{i}.{name}.weight"
        for i in range(2)
        for name in (*(f"attn_{n}" for n in ("q", "k", "v", "output")),
                     *(f"ffn_{n}" for n in ("gate", "up", "down")))
    }  # fmt: skip


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_changes_nothing(
    threads: int, collected: fewbit.CollectedImatrix
) -> None:
    model = fewbit.load(LLAMA, threads=threads)
    again = model.imatrix(TEXT, ctx=128, chunks=8, output=True)
    for name, sums in collected.sums.items():
        same_bits(again.sums[name], sums, name)


def test_windows_longer_than_a_batch_are_one_window() -> None:
    """Before any attention, and without a BOS in front, one window of 1024 is two of 512."""
    model, name = fewbit.load(MODELS / "qwen2"), "blk.0.attn_q.weight"
    long, short = model.imatrix(TEXT, ctx=1024, chunks=1), model.imatrix(TEXT, ctx=512, chunks=2)
    assert long.counts[name].tolist() == short.counts[name].tolist() == [1024]
    same_bits(long.sums[name], short.sums[name])
    behind = "blk.0.attn_output.weight"
    assert (long.sums[behind] != short.sums[behind]).all()


def test_a_quantized_model_is_looked_at_as_it_runs() -> None:
    model = fewbit.load(LLAMA).quantize("Q4_0")
    found = model.imatrix(TEXT, ctx=128, chunks=8)
    ids = windows(model, TEXT, 128, 8).inputs.reshape(-1)
    table = _core.decode(model.data("token_embd.weight"), model.formats["token_embd.weight"], 256)
    x = table[ids].astype(np.float64)
    norm = model.data("blk.0.attn_norm.weight").view("<f4").astype(np.float64)
    h = x / np.sqrt((x**2).mean(1, keepdims=True) + model.config.norm_eps) * norm
    expected = (h**2).sum(0, keepdims=True)
    # a norm in f32: a sum of 256 squares, a mean, a root, two products; and all of it squared
    within_bound(found.sums["blk.0.attn_q.weight"], expected, 2 * (256 + 5) * EPS * expected)


def test_it_is_taken_as_importance(collected: fewbit.CollectedImatrix, tmp_path: Path) -> None:
    model = fewbit.load(LLAMA)
    collected.save(tmp_path / "i.gguf")
    model.quantize("IQ2_XS", collected).save(tmp_path / "a.gguf")
    model.quantize("IQ2_XS", fewbit.read_imatrix(tmp_path / "i.gguf")).save(tmp_path / "b.gguf")
    a, b = (read_gguf(tmp_path / f"{n}.gguf") for n in "ab")
    assert {n: e.data.tobytes() for n, e in a.tensors.items()} == {
        n: e.data.tobytes() for n, e in b.tensors.items()
    }


def test_what_no_token_met_is_named() -> None:
    model = fewbit.load(LLAMA)
    extra = LazyTensor("blk.0.extra.weight", "F32", (4, 256), lambda: np.zeros((4, 1024), np.uint8))
    tensors = model.checkpoint.tensors | {extra.name: extra}
    model = fewbit.Model(replace(model.checkpoint, tensors=tensors))
    found = model.imatrix(TEXT, ctx=64, chunks=2)
    assert found.unseen == ("`blk.0.extra.weight`",)
    assert found.warnings == (
        "no token met `blk.0.extra.weight`",
        "128 tokens are few: 10,000 and more tell columns apart",
    )


def test_experts_share_what_the_router_saw() -> None:
    """Each token goes to `used` experts, so theirs add up to as many times the router's input."""
    folder = asset("qwen3_moe").parent
    model = fewbit.load(folder, threads=2)
    found = model.imatrix(TEXT, ctx=64, chunks=2)
    alone = fewbit.load(folder, threads=1).imatrix(TEXT, ctx=64, chunks=2)
    assert model.config.routing is not None
    used = model.config.routing.used
    for layer in range(model.config.layers):
        for name in ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"):
            weight = f"blk.{layer}.{name}.weight"
            same_bits(found.sums[weight], alone.sums[weight], weight)
            assert found.counts[weight].sum() == used * 2 * 64
            assert len(set(found.counts[weight].tolist())) > 1
        whole = used * found.sums[f"blk.{layer}.ffn_gate_inp.weight"][0]
        parts = found.sums[f"blk.{layer}.ffn_up_exps.weight"].sum(0)
        within_bound(parts, whole, used * 2 * 64 * 2.0**-53 * whole)


def test_experts_that_no_token_met_are_named() -> None:
    model = fewbit.load(LLAMA)
    counts = {name: np.ones(1, np.uint64) for name in model.checkpoint.tensors}
    counts["blk.1.ffn_up.weight"] = np.array([3, 0, 2, 0], np.uint64)
    assert calibrate._unseen(model, counts) == ["experts 1, 3 of `blk.1.ffn_up.weight`"]


def test_a_failure_leaves_nothing(
    collected: fewbit.CollectedImatrix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", fail)
    with pytest.raises(KeyboardInterrupt):
        collected.save(tmp_path / "m.gguf")
    assert list(tmp_path.iterdir()) == []
