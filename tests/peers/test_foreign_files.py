"""What fewbit cannot run and llama-quantize can: the same bytes; pieces that llama.cpp loads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fewbit
from fewbit.files.gguf import read_gguf
from fewbit.recipes.mixtures import FILE_TYPES
from tests import foreign_files
from tests.golden.loading import MODELS
from tests.peers.peer import NEEDS, Peer, llama_quantize, same_tensors

pytest.importorskip("llama_cpp", reason=NEEDS)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("foreign") / "llama.gguf"
    fewbit.load(MODELS / "llama", device="cpu").quantize("F32").save(path)
    return path


@pytest.mark.parametrize("recipe", ["Q4_0", "Q8_0", "Q5_1", "F16", "Q4_K_M"])
@pytest.mark.parametrize("architecture", ["olmo2", "gemma2", "internlm2", "glm4"])
def test_other_architectures(architecture: str, recipe: str, llama: Path, tmp_path: Path) -> None:
    source = foreign_files.renamed(llama, tmp_path / "source.gguf", architecture)
    same_as_theirs(source, recipe, tmp_path)


@pytest.mark.parametrize("recipe", ["Q4_0", "Q8_0", "Q4_K_M"])
def test_a_projector(recipe: str, tmp_path: Path) -> None:
    same_as_theirs(foreign_files.projector(tmp_path / "source.gguf"), recipe, tmp_path)


def same_as_theirs(source: Path, recipe: str, folder: Path) -> None:
    ours, theirs = folder / "ours.gguf", folder / "theirs.gguf"
    assert llama_quantize(source, theirs, FILE_TYPES[recipe])
    fewbit.quantize_file(source, ours, recipe)
    same_tensors(ours, theirs)
    found, expected = read_gguf(ours).metadata, read_gguf(theirs).metadata
    assert {k: f.value for k, f in found.items()} == {k: f.value for k, f in expected.items()}


@pytest.mark.parametrize("options", [{"split_max_tensors": 7}, {"split_max_size": "64K"}])
def test_pieces_are_loaded_by_llama_cpp(options: dict[str, object], tmp_path: Path) -> None:
    model = fewbit.load(MODELS / "llama", device="cpu").quantize("Q8_0")
    (whole,) = model.save(tmp_path / "whole.gguf")
    pieces = model.save(tmp_path / "m.gguf", **options)  # type: ignore[arg-type]
    assert len(pieces) > 2
    ids = [1, 5, 9, 70]
    np.testing.assert_array_equal(Peer(pieces[0]).logits(ids), Peer(whole).logits(ids))
