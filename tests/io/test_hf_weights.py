"""Which files of a Hugging Face folder are the model, and what its tensors say of themselves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import fewbit
from fewbit.files import hub
from fewbit.files.checkpoint import open_checkpoint
from tests.golden.loading import MODELS

IDS = [1, 5, 9, 70, 40, 3]
UP = "model.layers.0.mlp.up_proj."
Weights = dict[str, np.ndarray]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODELS / "llama", tmp_path / "m"))


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def logits(path: Path) -> np.ndarray:
    with fewbit.load(path, threads=1) as model:
        return model.logits(IDS, acts="f32")


def foreign(weights: Weights) -> Weights:
    """Mistral's own names, and other values."""
    return {
        "tok_embeddings.weight": weights["model.embed_tokens.weight"] * 2,
        "layers.0.attention.wq.weight": weights["model.layers.0.self_attn.q_proj.weight"] * 3,
    }


def shards(folder: Path, names: Iterable[str]) -> Weights:
    """Split the weights into files of these names, without an index."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = list(names)
    for i, file in enumerate(files):
        (folder / file).parent.mkdir(exist_ok=True)
        save_file({n: weights[n] for n in list(weights)[i :: len(files)]}, folder / file)
    return {n: files[i % len(files)] for i, n in enumerate(weights)}  # type: ignore[misc]


def write_index(folder: Path, files: Any) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))


@pytest.mark.parametrize("name", ["consolidated.safetensors", "adapter_model.safetensors"])
def test_other_files_are_no_part_of_the_model(name: str, folder: Path) -> None:
    expected = logits(folder)
    weights = load_file(folder / "model.safetensors")
    save_file(foreign(weights) | {"model.norm.weight": weights["model.norm.weight"] * 2},
              folder / name)  # fmt: skip
    assert np.array_equal(logits(folder), expected)
    with pytest.raises(fewbit.UnsupportedError, match=rf"in `{name}` has a name of Meta's"):
        fewbit.load(folder / name)  # what the user names is what is read, or refused
    (folder / "model.safetensors").unlink()
    with pytest.raises(fewbit.FileFormatError, match=rf"no model\*\.safetensors, only `{name}`"):
        fewbit.load(folder)


def test_a_file_of_any_name_is_read_if_it_is_named(folder: Path) -> None:
    expected = logits(folder)
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    assert np.array_equal(logits(folder / "weights.safetensors"), expected)


@pytest.mark.parametrize(
    "pattern",
    ["model-0000{}-of-00002.safetensors", "model.safetensors-0000{}-of-00002.safetensors"],
)
@pytest.mark.parametrize("index", [False, True])
def test_shards(pattern: str, index: bool, folder: Path) -> None:
    expected = logits(folder)
    files = shards(folder, [pattern.format(1), pattern.format(2)])
    if index:
        write_index(folder, files)
        save_file({"model.norm.weight": np.ones(256, np.float32)}, folder / "model-old.safetensors")
    assert np.array_equal(logits(folder), expected)
    assert np.array_equal(logits(folder / pattern.format(1)), expected)


def test_a_missing_shard_is_named(folder: Path) -> None:
    write_index(folder, shards(folder, ["model-1.safetensors", "model-2.safetensors"]))
    (folder / "model-2.safetensors").unlink()
    with pytest.raises(fewbit.FileFormatError, match=r"`model-2\.safetensors` is missing"):
        fewbit.load(folder)


def test_a_whole_file_goes_before_an_index(folder: Path) -> None:
    expected = logits(folder)
    write_index(folder, {"model.norm.weight": "model-00001-of-00009.safetensors"})
    assert np.array_equal(logits(folder), expected)


def test_the_index_says_which_file_a_tensor_is_of(folder: Path) -> None:
    expected = logits(folder)
    files = shards(folder, ["part/a.safetensors", "b.safetensors"])
    again = load_file(folder / "b.safetensors") | {"model.norm.weight": np.zeros(256, np.float32)}
    assert files["model.norm.weight"] == "part/a.safetensors"
    save_file(again, folder / "b.safetensors")
    write_index(folder, files)
    assert np.array_equal(logits(folder), expected)
    (folder / "part" / "a.safetensors").rename(folder / "model-a.safetensors")
    (folder / "b.safetensors").rename(folder / "model-b.safetensors")
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(fewbit.FileFormatError, match=r"`model\.norm\.weight` is in `model-a"):
        fewbit.load(folder)


@pytest.mark.parametrize("name", ["../m2/model.safetensors", "/etc/passwd", ""])
def test_an_index_stays_in_its_folder(name: str, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    write_index(folder, {"model.norm.weight": name})
    with pytest.raises(fewbit.FileFormatError, match="is not a file of the folder"):
        fewbit.load(folder)


def test_an_own_head_is_kept(folder: Path) -> None:
    expected = logits(folder)
    edit_config(folder, tie_word_embeddings=True)
    found = open_checkpoint(folder)
    assert not found.config.tied
    assert "output.weight" in found.tensors
    assert np.array_equal(logits(folder), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_copy_of_the_embedding_is_not(dtype: type, folder: Path) -> None:
    edit_config(folder, tie_word_embeddings=True)
    weights = load_file(folder / "model.safetensors")
    weights = {name: value.astype(dtype) for name, value in weights.items()}
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].copy()
    save_file(weights, folder / "model.safetensors")
    found = open_checkpoint(folder)
    assert found.config.tied
    assert "output.weight" not in found.tensors
    with_copy = logits(folder)
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors")
    assert np.array_equal(logits(folder), with_copy)


def test_one_different_element_makes_a_head_its_own(folder: Path) -> None:
    edit_config(folder, tie_word_embeddings=True)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].copy()
    weights["lm_head.weight"][-1, -1] += 1
    save_file(weights, folder / "model.safetensors")
    assert not open_checkpoint(folder).config.tied


@pytest.mark.parametrize("left_over", [{}, {"quant_method": "bitsandbytes", "load_in_4bit": True}])
def test_a_left_over_quantization_config_is_passed_over(
    left_over: dict[str, Any], folder: Path
) -> None:
    expected = logits(folder)
    edit_config(folder, quantization_config=left_over)
    assert np.array_equal(logits(folder), expected)


I4 = np.zeros((32, 512), np.int32)
QUANTIZED: dict[str, tuple[dict[str, Any], Weights, str]] = {
    "gptq": ({"quantization_config": {"quant_method": "gptq"}}, {"qweight": I4}, "by `gptq`"),
    "gptq without its config": ({}, {"qweight": I4}, r"\(it has `.*\.qweight`\)"),
    "bitsandbytes": (
        {"quantization_config": {"quant_method": "bitsandbytes"}},
        {"weight": np.zeros((65536, 1), np.uint8), "weight.absmax": np.zeros(2048, np.float32)},
        "by `bitsandbytes`",
    ),
    "int8 without scales": (
        {"quantization_config": {"quant_method": "own"}},
        {"weight": np.zeros((512, 256), np.int8)},
        "by `own`",
    ),
    "mlx": (
        {"quantization": {"group_size": 64, "bits": 4}},
        {"weight": np.zeros((512, 32), np.uint32), "scales": np.zeros((512, 4), np.float16)},
        r"\(it has `.*\.scales`\)",
    ),
    "floats beside their scales": ({}, {"weight_scale": np.ones(1, np.float32)}, "weight_scale`"),
    "bitnet": ({"quantization_config": {"quant_method": "bitnet"}}, {}, "by `bitnet`"),
}


@pytest.mark.parametrize("case", QUANTIZED)
def test_quantized_weights_are_refused(case: str, folder: Path) -> None:
    changes, tensors, what = QUANTIZED[case]
    edit_config(folder, **changes)
    weights = load_file(folder / "model.safetensors")
    weights |= {UP + name: value for name, value in tensors.items()}
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(fewbit.UnsupportedError, match=f"the weights are quantized .*{what}"):
        fewbit.load(folder)


def download(
    folder: Path, monkeypatch: pytest.MonkeyPatch, files: Iterable[str], index: Any = None
) -> tuple[Path, set[str]]:
    """Download a repository of these files through a double of the hub; what was asked for."""
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    asked: set[str] = set()

    def snapshot(repository: str, revision: str | None, **patterns: Any) -> str:
        assert (repository, revision) == ("acme/model", None)
        found = set(filter_repo_objects(files, **patterns))
        if index is not None and "model.safetensors.index.json" in found:
            write_index(folder, index)
        asked.update(found)
        for name in found:  # an index has been written already
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).touch()
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    return hub.resolve("acme/model"), asked


def test_what_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = {"config.json", "tokenizer.json", "chat_template.jinja", "model-1-of-2.safetensors",
             "model.safetensors-2-of-2.safetensors"}  # fmt: skip
    other = {"consolidated.safetensors", "adapter_model.safetensors", "original/params.json",
             "original/model.safetensors", "onnx/config.json", "pytorch_model.bin"}  # fmt: skip
    assert download(tmp_path, monkeypatch, model | other) == (tmp_path, model)


def test_files_of_the_index_are_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = {"config.json", "model.safetensors.index.json", "weights/a[1].safetensors"}
    index = {"model.norm.weight": "weights/a[1].safetensors"}
    files = model | {"weights/b.safetensors", "c.safetensors"}
    assert download(tmp_path, monkeypatch, files, index) == (tmp_path, model)
