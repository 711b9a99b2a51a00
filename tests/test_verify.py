"""Files verified against their source and by themselves: what is wrong is named to the byte."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import fewbit
from fewbit import _core
from fewbit.convert import verify
from fewbit.files.gguf import read_gguf
from fewbit.formats.blocks import read_block
from fewbit.formats.layouts import layout_of
from fewbit.formats.table import FORMATS, find_format
from tests.golden.loading import MODELS, asset
from tests.random_models import MAKERS, mixtral
from tests.saved_llama import IMATRIX, LLAMA, TENSOR, changed, entry, verified, wrong


@pytest.mark.parametrize("name", FORMATS)
def test_one_changed_byte_is_named(name: str, saved: Callable[[str], Path], tmp_path: Path) -> None:
    """Tensor, row, block, field, byte, both bytes, and what they stand for."""
    path, format_ = saved(name), find_format(name)
    assert verified(path, rows="all").ok
    whole, place = entry(path), len(layout_of(format_).fields) - 1
    field = layout_of(format_).fields[place]
    row, block = 201, 256 // format_.block - 1
    offset = whole.offset + row * whole.data.shape[1] + block * format_.bytes + field.start
    was = path.read_bytes()[offset]
    bad = changed(path, tmp_path / "bad.gguf", {offset: was ^ 1})
    (tensor,) = wrong(verified(bad, rows="all"))
    assert (tensor.name, tensor.format) == (TENSOR, name)
    assert (tensor.differing_rows, tensor.differing_blocks) == (1, 1)
    found = tensor.difference
    assert found is not None
    assert (found.row, found.block, found.column) == (row, block, block * format_.block)
    assert (found.field, found.byte, found.offset) == (field.name, field.start, offset)
    assert (found.found, found.expected) == (was ^ 1, was)
    start = offset - field.start
    blocks = [
        np.frombuffer(file.read_bytes()[start : start + format_.bytes], np.uint8)
        for file in (bad, path)
    ]
    values = [_core.decode(block[None], name, format_.block)[0].tolist() for block in blocks]
    assert [list(found.found_values), list(found.expected_values)] == values
    assert found.number is not None
    key, _, index = found.number.partition("[")
    assert key in field.name.split()
    numbers = [read_block(block, name)[key][int(index[:-1] or 0)].item() for block in blocks]
    if format_.is_float:
        numbers = [value[0] for value in values]
    assert [found.found_number, found.expected_number] == numbers
    assert numbers[0] != numbers[1]


def test_the_number_is_one_that_the_first_byte_changes(
    saved: Callable[[str], Path], tmp_path: Path
) -> None:
    """Byte 16 of Q4_K holds codes 0 and 32; byte 17, which differs too, codes 1 and 33."""
    path = saved("Q4_K")
    start = entry(path).offset + 16
    was = path.read_bytes()
    edits = {start: was[start] ^ 0x30, start + 1: was[start + 1] ^ 5}
    (tensor,) = wrong(verified(changed(path, tmp_path / "bad.gguf", edits)))
    found = tensor.difference
    assert found is not None
    assert (found.byte, found.number) == (16, "codes[32]")
    assert found.expected_number == was[start] >> 4
    unequal = zip(found.found_values, found.expected_values, strict=True)
    assert [i for i, (a, b) in enumerate(unequal) if a != b] == [1, 32]


def test_rows_are_spread_from_the_first_to_the_last(
    saved: Callable[[str], Path], tmp_path: Path
) -> None:
    path = saved("Q4_0")
    whole = entry(path)
    rows, size = whole.data.shape
    for row, seen in ((0, True), (rows - 1, True), (1, False), (rows - 2, False)):
        bad = tmp_path / "bad.gguf"
        place = whole.offset + row * size + 7
        changed(path, bad, {place: path.read_bytes()[place] ^ 16})
        found = verified(bad, rows=5)
        assert [t.name for t in wrong(found)] == [TENSOR] * seen
        assert next(t.checked for t in found.tensors if t.name == TENSOR) == 5
        assert len(wrong(verified(bad, rows="all"))) == 1
    assert verify._spread(256, 5).tolist() == [0, 63, 127, 191, 255]
    assert verify._spread(3, 64).tolist() == [0, 1, 2]
    assert verify._spread(9, 1).tolist() == [0]
    checked = {t.checked for t in verified(path).tensors if t.rows > 64}
    assert checked == {verify.SAMPLED}
    assert all(t.checked == t.rows for t in fewbit.verify(path).tensors)


def test_slabs_give_what_whole_tensors_give(
    saved: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved("Q5_K")
    whole = entry(path)
    places = [whole.offset + row * whole.data.shape[1] + 20 for row in (3, 100, 255)]
    bad = changed(path, tmp_path / "bad.gguf", {p: path.read_bytes()[p] ^ 2 for p in places})
    expected = verified(bad, rows="all")
    steps: list[tuple[int, int, str]] = []
    monkeypatch.setattr(verify, "SLAB", 10_000)
    found = verified(bad, rows="all", progress=lambda *step: steps.append(step))
    assert found == expected
    assert [t.differing_rows for t in wrong(found)] == [3]
    assert (
        steps[-1][0] == steps[-1][1] == sum(t.data.size for t in read_gguf(path).tensors.values())
    )
    assert len(steps) > 2 * len(found.tensors)


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "qwen3_moe-between"])
def test_models_with_experts(name: str, tmp_path: Path) -> None:
    """All but the one with dense layers in between, which GGUF cannot describe."""
    folder = MAKERS[name](tmp_path / "m")
    fewbit.load(folder, device="cpu").quantize("Q8_0").save(tmp_path / "s.gguf")
    assert fewbit.verify(tmp_path / "s.gguf", folder, rows="all").ok


def test_experts_have_importance_of_their_own(tmp_path: Path) -> None:
    folder = mixtral(tmp_path / "m")
    model = fewbit.load(folder, device="cpu")
    rng = np.random.default_rng(2)
    importance = {
        name: rng.random(int(np.prod(info.shape[:-2])) * info.shape[-1]).astype(np.float32)
        for name, info in model.checkpoint.tensors.items()
        if len(info.shape) > 1
    }
    path = tmp_path / "s.gguf"
    model.quantize("Q4_0", importance).save(path)
    assert fewbit.verify(path, folder, imatrix=importance, rows=7).ok
    assert fewbit.verify(path, folder, imatrix=importance, rows="all").ok
    name = "blk.1.ffn_down_exps.weight"
    importance[name] = importance[name][::-1].copy()
    assert [t.name for t in wrong(fewbit.verify(path, folder, imatrix=importance))] == [name]


@pytest.mark.parametrize("name", ["gpt2", "qwen3_5-hub", "phi3-longrope", "llama-spm"])
def test_tensors_that_a_reader_puts_in_order(name: str, tmp_path: Path) -> None:
    """Transposed, interleaved and summed weights, and divisors of rotary frequencies."""
    folder, path = MODELS / name, tmp_path / "s.gguf"
    fewbit.load(folder, device="cpu").quantize("Q8_0").save(path)
    assert fewbit.verify(path, folder, rows="all").ok
    assert fewbit.verify(path, folder, rows=3).ok


def test_a_gguf_file_is_a_source_too(tmp_path: Path) -> None:
    source = MODELS / "qwen3" / "model-f32.gguf"
    path = tmp_path / "s.gguf"
    fewbit.load(source, device="cpu").quantize("Q6_K").save(path)
    assert fewbit.verify(path, source, rows="all").ok
    assert fewbit.verify(path, MODELS / "qwen3", rows="all").ok
    assert fewbit.verify(source, MODELS / "qwen3", rows="all").ok, "floats are copied"


@pytest.mark.parametrize("name", ["model-Q8_0.gguf", "model-Q4_K_M.gguf"])
def test_a_file_by_llama_quantize_is_equal(name: str) -> None:
    found = fewbit.verify(asset("llama", name), LLAMA, rows="all")
    assert found.ok
    assert sum(tensor.differing_blocks for tensor in found.tensors) == 0
    assert len({tensor.format for tensor in found.tensors}) > 1


def test_divisors_that_a_converter_computes_may_be_rounded_otherwise(
    saved: Callable[[str], Path], tmp_path: Path
) -> None:
    path = saved("Q8_0")
    freqs = entry(path, "rope_freqs.weight")
    place = freqs.offset + 4 * 5
    was = path.read_bytes()[place : place + 2]
    assert verified(changed(path, tmp_path / "near.gguf", {place: was[0] ^ 1})).ok
    bad = verified(changed(path, tmp_path / "far.gguf", {place + 1: was[1] ^ 1}))
    assert [tensor.name for tensor in wrong(bad)] == ["rope_freqs.weight"]


def test_importance_changes_bytes_and_the_file_says_so(saved: Callable[[str], Path]) -> None:
    found = verified(saved("Q4_K"), imatrix=None)
    assert len(wrong(found)) > 5
    assert found.notes == (
        f"the file was made with an importance matrix, `{IMATRIX}`: name it with `--imatrix`",
    )
    assert verified(saved("Q4_K")).notes == ()


def test_the_file_does_not_name_the_importance_matrix(tmp_path: Path) -> None:
    path = tmp_path / "s.gguf"
    fewbit.load(LLAMA, device="cpu").quantize("Q4_K").save(path)
    found = verified(path)
    assert len(wrong(found)) > 5
    assert found.notes == ("the file does not say that it was made with an importance matrix",)


IMPOSSIBLE = [
    ("Q4_K", 2, (0x00, 0x7E), "`dmin` is not finite", "dmin"),
    ("Q8_0", 0, (0x00, 0xBC), "`d` is negative", "d"),
    ("NVFP4", 1, (0x81,), "`d` has its unused highest bit set", "d"),
    ("TQ2_0", 9, (0xFF,), "`codes` are 0 to 2, found 3", "codes"),
    ("F16", 0, (0x00, 0xFC), "the value is not finite", "values"),
    ("F32", 0, (0x00, 0x00, 0xC0, 0x7F), "the value is not finite", "values"),
]


@pytest.mark.parametrize(("name", "start", "values", "reason", "field"), IMPOSSIBLE)
def test_impossible_values_are_found_without_a_source(
    name: str,
    start: int,
    values: tuple[int, ...],
    reason: str,
    field: str,
    saved: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    path, format_ = saved(name), find_format(name)
    assert fewbit.verify(path).ok
    whole = entry(path)
    starts = [
        whole.offset + row * whole.data.shape[1] + block * format_.bytes + start
        for row, block in ((77, 0), (200, 256 // format_.block - 1))
    ]
    data = bytearray(path.read_bytes())
    for place in starts:
        data[place : place + len(values)] = bytes(values)
    (tmp_path / "bad.gguf").write_bytes(data)
    (tensor,) = wrong(fewbit.verify(tmp_path / "bad.gguf"))
    (found,) = tensor.impossible
    assert (tensor.name, tensor.difference, found.reason) == (TENSOR, None, reason)
    assert (found.row, found.block, found.byte) == (77, 0, start)
    assert (found.offset, found.field) == (starts[0], field)
    assert (found.blocks, found.found) == (2, bytes(values).hex(" "))


def test_bytes_between_tensors(tmp_path: Path) -> None:
    """Padding to a multiple of 32, and whatever follows the last tensor."""
    path = tmp_path / "s.gguf"
    fewbit.load(MODELS / "qwen3_5-hub", device="cpu").save(path)  # some vectors have 16 bytes
    assert fewbit.verify(path).ok
    placed = sorted(read_gguf(path).tensors.items(), key=lambda item: item[1].offset)
    ends = {name: found.offset + found.data.size for name, found in placed}
    name = next(name for name, end in ends.items() if end % 32)
    data = bytearray(path.read_bytes()) + b"\0\0\5\6"
    data[ends[name] + 3] = 9
    path.write_bytes(data)
    found = fewbit.verify(path)
    assert not found.ok
    assert all(tensor.ok for tensor in found.tensors)
    inner, outer = found.padding
    assert (inner.after, inner.offset, inner.found, inner.bytes) == (name, ends[name] + 3, 9, 1)
    assert (outer.after, outer.found, outer.bytes) == (placed[-1][0], 5, 2)


def test_tensors_of_nothing_but_zeros_are_noted(tmp_path: Path) -> None:
    shutil.copytree(LLAMA, tmp_path / "m")
    tensors = load_file(LLAMA / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][:] = 0
    save_file(tensors, tmp_path / "m" / "model.safetensors")
    path = tmp_path / "s.gguf"
    fewbit.load(tmp_path / "m", device="cpu").quantize("IQ4_XS").save(path)
    found = fewbit.verify(path, tmp_path / "m")
    assert found.ok
    assert [t.name for t in found.tensors if t.zero] == ["blk.0.ffn_up.weight"]
