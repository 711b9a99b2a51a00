"""Models that are split into pieces, and folders of GGUF files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter

import fewbit
from fewbit.errors import FileFormatError, InputError
from fewbit.files.checkpoint import open_checkpoint
from fewbit.files.gguf import read_gguf
from fewbit.formats.table import find_format
from tests.golden.loading import MODELS

COUNT = 3


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "llama-Q8_0.gguf"
    fewbit.load(MODELS / "llama", device="cpu", threads=1).quantize("Q8_0").save(path)
    return path


@pytest.fixture
def pieces(whole: Path, tmp_path: Path) -> list[Path]:
    """The model in pieces, as ``llama-gguf-split`` writes them."""
    file = read_gguf(whole)
    paths = [tmp_path / f"big-{i:05d}-of-{COUNT:05d}.gguf" for i in range(1, COUNT + 1)]
    for number, path in enumerate(paths):
        writer = GGUFWriter(path, "llama")
        for key, field in file.metadata.items() if number == 0 else ():
            if key != "general.architecture":
                writer.add_key_value(key, field.value, field.type, field.item)
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", COUNT)
        writer.add_int32("split.tensors.count", len(file.tensors))
        for name in list(file.tensors)[number::COUNT]:
            info = file.tensors[name]
            kind = find_format(info.format).gguf_id
            shape = info.data.shape if len(info.shape) > 1 else (info.data.size,)
            data = np.ascontiguousarray(info.data).reshape(shape)
            if info.format == "F32":
                writer.add_tensor(name, data.view("<f4").reshape(info.shape))
            else:
                writer.add_tensor(name, data, raw_dtype=kind)  # type: ignore[arg-type]
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return paths


def saved(source: Path, target: Path) -> bytes:
    model = fewbit.load(source, device="cpu", threads=1)
    model.quantize("Q4_0", requantize=True).save(target)
    return target.read_bytes()


@pytest.mark.parametrize("piece", range(COUNT))
def test_pieces_are_one_model(piece: int, pieces: list[Path], whole: Path, tmp_path: Path) -> None:
    expected = saved(whole, tmp_path / "whole.gguf")
    assert saved(pieces[piece], tmp_path / "joined.gguf") == expected


def test_a_missing_piece_is_named(pieces: list[Path]) -> None:
    pieces[2].unlink()
    with pytest.raises(FileFormatError, match=r"`big-00003-of-00003\.gguf` is missing"):
        open_checkpoint(pieces[0])


def test_exchanged_pieces_are_refused(pieces: list[Path]) -> None:
    shutil.copy(pieces[1], pieces[2])
    with pytest.raises(FileFormatError, match="another piece than its name says"):
        open_checkpoint(pieces[0])


def test_a_renamed_piece_is_refused(pieces: list[Path]) -> None:
    path = pieces[1].rename(pieces[1].with_name("model.gguf"))
    with pytest.raises(FileFormatError, match="is piece 2 of 3 of a model"):
        open_checkpoint(path)


def test_a_folder_with_one_model_is_that_model(whole: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(whole, tmp_path))
    shutil.copy(whole, tmp_path / "mmproj-F16.gguf")
    shutil.copy(MODELS / "llama" / "config.json", tmp_path)
    assert open_checkpoint(tmp_path).path == path


def test_a_folder_of_pieces_is_one_model(pieces: list[Path]) -> None:
    assert open_checkpoint(pieces[0].parent).path == pieces[0]


def test_several_models_in_a_folder_are_listed(whole: Path, tmp_path: Path) -> None:
    for name in ("a-Q8_0.gguf", "a-Q4_K_M.gguf"):
        shutil.copy(whole, tmp_path / name)
    with pytest.raises(InputError, match=r"2 models: `a-Q4_K_M\.gguf`, `a-Q8_0\.gguf`"):
        open_checkpoint(tmp_path)
