"""Names of models: repositories of the hub, from a cache without a network, and their folders."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from huggingface_hub import constants

import fewbit
from fewbit.errors import InputError
from fewbit.files.hub import folder_name, resolve
from tests.golden.loading import MODELS

REVISION = "0a1b2c3d4e" * 4
GGUFS = (
    "m-Q4_K_M.gguf", "m-Q4_K_S.gguf", "mmproj-m-Q8_0.gguf", "big/m.q8_0-00001-of-00002.gguf",
    "big/m.q8_0-00002-of-00002.gguf", "m-UD-Q2_K.gguf", "m-Q2_K.gguf",
)  # fmt: skip


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of `acme/Tiny-Llama` in a cache of the hub, which cannot be reached."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "hub" / "models--acme--Tiny-Llama"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(REVISION)
    (repository / "snapshots" / REVISION).mkdir(parents=True)
    return repository / "snapshots" / REVISION


def put(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("acme/Tiny-Llama:Q4_K_M", GGUFS[0]),
        ("acme/Tiny-Llama:q4_k_s", GGUFS[1]),
        ("acme/Tiny-Llama:Q8_0", GGUFS[3]),
        ("acme/Tiny-Llama:UD-Q2_K", GGUFS[5]),
        ("acme/Tiny-Llama/m-Q2_K.gguf", GGUFS[6]),
        ("hf://acme/Tiny-Llama/big/m.q8_0-00002-of-00002.gguf", GGUFS[4]),
        ("hf://acme/Tiny-Llama@main:Q4_K_M", GGUFS[0]),
        (f"acme/Tiny-Llama@{REVISION}/m-Q2_K.gguf", GGUFS[6]),
        ("hf.co/acme/Tiny-Llama:Q4_K_M", GGUFS[0]),
    ],
)
def test_one_file_of_a_repository(name: str, file: str, cached: Path) -> None:
    put(cached, GGUFS)
    assert resolve(name) == cached / file


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("acme/Tiny-Llama:Q3_K_M", "has no GGUF models of quantization `Q3_K_M`; .*`m-Q2_K.gguf`"),
        ("acme/Tiny-Llama:Q2_K", "has 2 GGUF models .* `m-Q2_K.gguf`, `m-UD-Q2_K.gguf`"),
        ("acme/Tiny-Llama", "has 5 GGUF models; GGUF files there: .*`m-Q4_K_M.gguf`"),
        ("acme/Tiny-Llama/none.gguf", "cannot download `acme/Tiny-Llama`"),
        ("acme/none:Q4_K_M", "cannot download `acme/none`"),
        ("hf://acme", "no model at `hf://acme`"),
        ("acme/Tiny-Llama.safetensors", "no model at"),
    ],
)
def test_what_a_repository_lacks(name: str, what: str, cached: Path) -> None:
    put(cached, GGUFS)
    with pytest.raises(InputError, match=what):
        resolve(name)


def test_the_only_gguf_of_a_repository(cached: Path) -> None:
    put(cached, ["README.md", "m-Q4_K_M.gguf", "mmproj-m.gguf"])
    assert resolve("acme/Tiny-Llama") == resolve("hf://acme/Tiny-Llama/") == cached / GGUFS[0]


def test_a_scheme_is_never_a_path(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`acme/Tiny-Llama` may be a folder here; with the scheme it is the repository."""
    here = cached.parents[3] / "acme" / "Tiny-Llama"
    here.mkdir(parents=True)
    put(cached, ["m-Q4_K_M.gguf"])
    monkeypatch.chdir(here.parents[1])
    assert resolve("acme/Tiny-Llama") == Path("acme/Tiny-Llama")
    assert resolve("hf://acme/Tiny-Llama") == cached / GGUFS[0]


def test_a_model_is_named_by_its_repository(cached: Path) -> None:
    for file in (MODELS / "llama").iterdir():
        if file.suffix != ".npy":
            shutil.copy(file, cached)
    assert fewbit.load("hf://acme/Tiny-Llama").config.name == "Tiny-Llama"
    assert fewbit.load("hf://acme/Tiny-Llama/model.safetensors").config.name == "Tiny-Llama"


def test_a_file_of_the_hub_is_verified(cached: Path) -> None:
    fewbit.load(MODELS / "llama").quantize("Q8_0").save(cached / "m-Q8_0.gguf")
    found = fewbit.verify("acme/Tiny-Llama:Q8_0", source="hf://acme/Tiny-Llama/m-Q8_0.gguf")
    assert found.ok
    assert found.file == "acme/Tiny-Llama:Q8_0"


def test_names_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "Real Name"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(folder / "sub")
    assert folder_name(Path("..")) == "Real Name"
    assert folder_name(Path(os.curdir)) == "sub"
    assert folder_name(tmp_path / "link") == "link"
    assert folder_name(tmp_path / "models--gpt2" / "snapshots" / REVISION) == "gpt2"
    assert folder_name(tmp_path / "snapshots" / REVISION) == REVISION
