"""Writing GGUF files: values and metadata, failures half way, importance matrices."""

from __future__ import annotations

import errno
import shutil
import signal
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter

import fewbit
from fewbit.convert import gguf as convert
from fewbit.convert.encode import TensorEncoder
from fewbit.files.checkpoint import LazyTensor, open_checkpoint
from fewbit.files.gguf import read_gguf
from tests.compare import within_bound
from tests.golden.loading import MODELS, NOISE


def test_gguf_py_reads_the_file_and_its_values(tmp_path: Path) -> None:
    fewbit.load(MODELS / "qwen2").quantize("Q8_0").save(tmp_path / "m.gguf")
    reader = GGUFReader(tmp_path / "m.gguf")
    expected = {
        "general.architecture": "qwen2",
        "general.name": "qwen2",
        "general.size_label": "339K",
        "general.file_type": 7,
        "qwen2.block_count": 2,
        "qwen2.rope.scaling.type": "yarn",
        "qwen2.rope.scaling.original_context_length": 256,
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.add_bos_token": False,
    }
    found = {key: reader.fields[key].contents() for key in expected}
    assert found == expected
    norms = [t.tensor_type.name for t in reader.tensors if "norm" in t.name or "bias" in t.name]
    assert set(norms) == {"F32"}


def test_metadata_of_a_gguf_file_is_copied(tmp_path: Path) -> None:
    source = MODELS / "qwen3" / "model-f32.gguf"
    fewbit.load(source).quantize("Q4_1").save(tmp_path / "m.gguf")
    before, after = read_gguf(source).metadata, read_gguf(tmp_path / "m.gguf").metadata
    changed = {"general.file_type", "general.quantization_version"}
    assert {k: v for k, v in after.items() if k not in changed} == {
        k: v for k, v in before.items() if k not in changed
    }
    assert list(after)[-2:] == ["general.quantization_version", "general.file_type"]
    assert (after["general.quantization_version"].value, after["general.file_type"].value) == (2, 3)


def test_the_same_weights_whether_saved_or_run(tmp_path: Path) -> None:
    model = fewbit.load(MODELS / "llama").quantize("Q4_K_M")
    model.save(tmp_path / "m.gguf")
    ids = np.load(MODELS / "llama" / "ids.npy")
    again = fewbit.load(tmp_path / "m.gguf")
    # only the divisors of the frequencies are rounded to f32 on the way
    expected = model.logits(ids, acts="f32")
    within_bound(again.logits(ids, acts="f32"), expected, NOISE, "before saving")


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_a_failure_leaves_no_file_and_the_old_one_unchanged(
    failure: BaseException, tmp_path: Path
) -> None:
    path = tmp_path / "m.gguf"
    path.write_text("what was there")
    model = fewbit.load(MODELS / "llama").quantize("Q8_0")

    def progress(done: int, total: int, name: str) -> None:
        if name.startswith("blk.1"):
            raise failure

    with pytest.raises(type(failure)):
        model.save(path, progress=progress)
    assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]
    assert path.read_text() == "what was there"


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_an_interrupt_leaves_no_file(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fewbit", "quantize", "demo", str(tmp_path / "m.gguf"), "-f"]
    with subprocess.Popen([*command, "Q4_K_M"], stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not list(tmp_path.iterdir()):
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=600)
    if process.returncode == 130:  # else it was done before the signal came
        assert err.strip().endswith("interrupted")
    left = [path.name for path in tmp_path.iterdir()]
    assert left in ([], ["m.gguf"])
    if left:  # the signal came after the file had got its name: it is complete
        assert fewbit.verify(tmp_path / "m.gguf", "demo", rows="all").ok


def test_the_target_must_be_a_file_in_a_folder(tmp_path: Path) -> None:
    model = fewbit.load(MODELS / "llama")
    with pytest.raises(IsADirectoryError) as caught:
        model.save(tmp_path)
    assert caught.value.filename == str(tmp_path)
    with pytest.raises(FileNotFoundError) as caught_parent:
        model.save(tmp_path / "none" / "m.gguf")
    assert caught_parent.value.filename == str(tmp_path / "none")


def write_imatrix(path: Path, entries: dict[str, tuple[np.ndarray, list[int]]]) -> Path:
    """Write sums [matrices, columns] and counts [matrices, 1], as llama-imatrix does."""
    writer = GGUFWriter(path, "")
    writer.add_array("imatrix.datasets", ["wiki.txt", "code.txt"])
    writer.add_uint32("imatrix.chunk_count", 7)
    writer.add_uint32("imatrix.chunk_size", 512)
    for name, (sums, counts) in entries.items():
        writer.add_tensor(f"{name}.in_sum2", sums.astype(np.float32))
        writer.add_tensor(f"{name}.counts", np.array(counts, np.float32)[:, None])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_dat(path: Path, name: str, calls: int, sums: np.ndarray, end: bytes = b"") -> Path:
    entry = struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", calls, sums.size)
    path.write_bytes(struct.pack("<i", 1) + entry + sums.astype("<f4").tobytes() + end)
    return path


def test_importance_matrices_of_both_kinds(tmp_path: Path) -> None:
    sums = np.array([4.0, 0.0, 2.0])
    new = write_imatrix(tmp_path / "new.gguf", {"a.weight": (sums, [2]), "b.weight": (sums, [0])})
    found = fewbit.read_imatrix(new)
    assert {k: v.tolist() for k, v in found.items()} == {
        "a.weight": [2, 0, 1],
        "b.weight": [1, 1, 1],
    }
    assert (found.file, found.datasets, found.chunks) == (str(new), ("wiki.txt", "code.txt"), 7)
    end = struct.pack("<ii8s", 9, 8, b"wiki.txt")
    for tail, chunks, datasets in ((end, 9, ("wiki.txt",)), (end[:4], 9, ()), (b"", 0, ())):
        old = write_dat(tmp_path / "old.dat", "a.weight", 2, sums, tail)
        found = fewbit.read_imatrix(old)
        assert {k: v.tolist() for k, v in found.items()} == {"a.weight": [2, 0, 1]}
        assert (found.chunks, found.datasets) == (chunks, datasets)


def test_each_expert_has_its_own_count(tmp_path: Path) -> None:
    sums = np.array([[4.0, 2.0], [8.0, 0.0], [3.0, 3.0]])
    path = write_imatrix(tmp_path / "new.gguf", {"a.weight": (sums, [2, 0, 3])})
    assert fewbit.read_imatrix(path)["a.weight"].tolist() == [2, 1, 1, 1, 1, 1]
    old = write_dat(tmp_path / "old.dat", "a.weight", 2, sums)
    assert fewbit.read_imatrix(old)["a.weight"].tolist() == (sums.ravel() / 2).tolist()
    path = write_imatrix(tmp_path / "odd.gguf", {"a.weight": (sums, [2, 0, 3, 4])})
    with pytest.raises(fewbit.FileFormatError, match=r"`a\.weight` has 6 sums and 4 counts"):
        fewbit.read_imatrix(path)


@pytest.mark.parametrize("cut", [3, 10, 20, 30, 38, 42, 46])
def test_a_truncated_importance_matrix_is_named(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "old.dat"
    whole = write_dat(path, "a.weight", 2, np.ones(3), struct.pack("<ii8s", 9, 8, b"wiki.txt"))
    path.write_bytes(whole.read_bytes()[:cut])
    with pytest.raises(fewbit.FileFormatError, match=r"old\.dat` is not a valid importance matrix"):
        fewbit.read_imatrix(path)


def test_importance_changes_what_is_stored(tmp_path: Path) -> None:
    model = fewbit.load(MODELS / "llama")
    name = "blk.0.ffn_up.weight"
    weights = {name: np.linspace(0, 1, 256, dtype=np.float32) ** 4}
    plain, weighted = model.quantize("Q4_0"), model.quantize("Q4_0", imatrix=weights)
    assert (plain.data(name) != weighted.data(name)).any()
    other = "blk.1.ffn_up.weight"
    assert (plain.data(other) == weighted.data(other)).all()


def test_the_file_names_the_importance_matrix(tmp_path: Path) -> None:
    model = fewbit.load(MODELS / "llama")
    sums = np.ones(256)
    path = write_imatrix(tmp_path / f"{'é' * 80}.gguf", {"blk.0.ffn_up.weight": (sums, [2])})
    model.quantize("Q4_0", fewbit.read_imatrix(path)).save(tmp_path / "m.gguf")
    after = list(read_gguf(tmp_path / "m.gguf").metadata.items())[-5:]
    assert [(key, field.value) for key, field in after] == [
        ("general.file_type", 2),
        ("quantize.imatrix.file", str(path).encode()[:127].decode(errors="ignore")),
        ("quantize.imatrix.dataset", "wiki.txt"),
        ("quantize.imatrix.entries_count", 1),
        ("quantize.imatrix.chunks_count", 7),
    ]
    made = {"blk.0.ffn_up.weight": np.ones(256, np.float32)}
    again = fewbit.load(tmp_path / "m.gguf").quantize("Q8_0", made, requantize=True)
    again.save(tmp_path / "again.gguf")
    fields = read_gguf(tmp_path / "again.gguf").metadata
    assert list(fields)[-1] == "quantize.imatrix.entries_count"
    model.quantize("Q4_0").save(tmp_path / "plain.gguf")
    assert not [k for k in read_gguf(tmp_path / "plain.gguf").metadata if k.startswith("quantize")]


@pytest.mark.parametrize("format_", [n for n, f in fewbit.FORMATS.items() if not f.is_float])
def test_every_format_can_be_written(format_: str, tmp_path: Path) -> None:
    """Formats that gguf-py does not know, too."""
    checkpoint, name = open_checkpoint(MODELS / "llama"), "blk.0.ffn_up.weight"
    formats = {other: tensor.format for other, tensor in checkpoint.tensors.items()}
    formats = convert.gguf_formats(checkpoint, formats | {name: format_})
    rows, columns = checkpoint.tensors[name].shape
    stored = np.arange(rows, dtype=np.uint8)[:, None].repeat(
        fewbit.FORMATS[format_].row_bytes(columns), axis=1
    )
    info = LazyTensor(name, format_, (rows, columns), lambda: stored)
    checkpoint = replace(checkpoint, tensors=checkpoint.tensors | {name: info})
    convert.write_model(tmp_path / "m.gguf", TensorEncoder(checkpoint, formats, {}))
    found = read_gguf(tmp_path / "m.gguf").tensors[name]
    assert (found.format, found.shape) == (format_, (rows, columns))
    assert (found.data == stored).all()


def test_all_stop_tokens_of_a_model_are_written(tmp_path: Path) -> None:
    """A list in generation_config.json; GGUF has two keys for them besides EOS."""
    folder = shutil.copytree(MODELS / "llama", tmp_path / "llama")
    eos = fewbit.load(folder).tokenizer.eos
    (folder / "generation_config.json").write_text(f'{{"eos_token_id": [{eos}, 7, 30]}}')
    model = fewbit.load(folder)
    assert model.tokenizer.stop_ids >= {eos, 7, 30}
    model.save(tmp_path / "m.gguf")
    assert fewbit.load(tmp_path / "m.gguf").tokenizer.stop_ids == model.tokenizer.stop_ids
