"""`quantize` needs no plan: files that fewbit cannot run are quantized by names and shapes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import fewbit
from fewbit.cli import main as cli
from fewbit.errors import FewbitError, FileFormatError, InputError, UnsupportedError
from fewbit.files.gguf import GgufFile, read_gguf
from fewbit.files.tensor_file import open_tensors
from tests import foreign_files
from tests.golden.loading import MODELS

Captured = pytest.CaptureFixture[str]
CHANGED = ("general.file_type", "general.quantization_version")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("any") / "llama.gguf"
    fewbit.load(MODELS / "llama", device="cpu").quantize("F32").save(path)
    return path


def formats(file: GgufFile) -> dict[str, str]:
    return {name: tensor.format for name, tensor in file.tensors.items()}


@pytest.mark.parametrize("recipe", ["Q4_0", "Q4_K_M", "IQ4_NL"])
def test_another_architecture_is_quantized_as_a_known_one(
    recipe: str, llama: Path, tmp_path: Path
) -> None:
    source = foreign_files.renamed(llama, tmp_path / "olmo9.gguf", "olmo9")
    with pytest.raises(UnsupportedError, match="olmo9"):
        fewbit.load(source)
    fewbit.quantize_file(source, tmp_path / "out.gguf", recipe)
    fewbit.quantize_file(llama, tmp_path / "known.gguf", recipe)
    found, expected = read_gguf(tmp_path / "out.gguf"), read_gguf(tmp_path / "known.gguf")
    assert formats(found) == formats(expected)
    assert all(
        (found.tensors[n].data == tensor.data).all() for n, tensor in expected.tensors.items()
    )
    before = read_gguf(source).metadata
    assert [k for k in found.metadata if k not in CHANGED] == [
        k for k in before if k not in CHANGED
    ]
    assert all(found.metadata[k] == field for k, field in before.items() if k not in CHANGED)
    for key in CHANGED:
        assert found.metadata[key] == expected.metadata[key]
    checked = fewbit.verify(tmp_path / "out.gguf", source, rows="all")
    assert checked.ok
    assert sum(tensor.checked for tensor in checked.tensors) > 1000


def test_a_projector_keeps_what_llama_quantize_keeps(tmp_path: Path) -> None:
    source = foreign_files.projector(tmp_path / "mmproj.gguf")
    fewbit.quantize_file(source, tmp_path / "out.gguf", "Q8_0")
    found = formats(read_gguf(tmp_path / "out.gguf"))
    kept = {"v.patch_embd.weight", "v.blk.0.ln1.weight", "v.position_embd.weight"}
    assert {name for name, format_ in found.items() if format_ == "F32"} == kept
    assert {found[name] for name in found.keys() - kept} == {"Q8_0"}


def test_an_adapter_is_quantized_where_rows_fit(tmp_path: Path) -> None:
    source = foreign_files.adapter(tmp_path / "lora.gguf")
    fewbit.quantize_file(source, tmp_path / "out.gguf", "Q8_0")
    found = read_gguf(tmp_path / "out.gguf")
    assert formats(found) == {
        "blk.0.attn_q.weight.lora_a": "Q8_0", "blk.0.attn_q.weight.lora_b": "F16"
    }  # fmt: skip
    assert found.metadata["adapter.lora.alpha"].value == 16


def test_a_file_without_an_architecture_is_quantized(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(4, 64))
    source = foreign_files.write(tmp_path / "bare.gguf", {}, {"layer.weight": values})
    fewbit.quantize_file(source, tmp_path / "out.gguf", "Q4_0")
    found = read_gguf(tmp_path / "out.gguf")
    expected = fewbit.quantize(values.astype(np.float32), "Q4_0").data
    assert "general.architecture" not in found.metadata
    np.testing.assert_array_equal(found.tensors["layer.weight"].data, expected)


def test_what_holds_no_matrices_is_refused_by_name(tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    vocabulary = foreign_files.vocabulary(tmp_path / "vocab.gguf")
    with pytest.raises(InputError, match=r"vocab\.gguf` holds nothing to quantize: it has no tens"):
        fewbit.quantize_file(vocabulary, out, "Q8_0")
    importance = foreign_files.importance(tmp_path / "imatrix.gguf")
    with pytest.raises(UnsupportedError, match=r"imatrix\.gguf` is an importance matrix"):
        fewbit.quantize_file(importance, out, "Q8_0")
    norms = {"a_norm.weight": np.ones((4, 64)), "b.weight": np.ones(64), "c.scale": np.ones((2, 2))}
    plain = foreign_files.write(tmp_path / "norms.gguf", {}, norms)
    with pytest.raises(InputError, match="none of its 3 tensors is a matrix of weights"):
        fewbit.quantize_file(plain, out, "Q8_0")
    assert not out.exists()


def test_a_damaged_model_of_a_known_architecture_is_refused(llama: Path, tmp_path: Path) -> None:
    file = read_gguf(llama)
    tensors = {n: t.data.view("<f4").reshape(t.shape) for n, t in file.tensors.items()}
    tensors.pop("blk.1.ffn_down.weight")
    damaged = foreign_files.write(tmp_path / "damaged.gguf", file.metadata, tensors)
    with pytest.raises(FileFormatError, match=r"no tensor `blk\.1\.ffn_down\.weight`"):
        fewbit.quantize_file(damaged, tmp_path / "out.gguf", "Q8_0")
    assert open_tensors(damaged, damaged=True).tensors.keys() == tensors.keys()


def test_a_folder_of_an_unknown_architecture_says_what_to_do(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(MODELS / "llama", tmp_path / "hf"))
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "olmo9"}))
    with pytest.raises(UnsupportedError, match="olmo9") as caught:
        fewbit.quantize_file(folder, tmp_path / "out.gguf", "Q8_0")
    assert "convert_hf_to_gguf" in (caught.value.hint or "")


def test_a_folder_without_a_tokenizer_is_quantized_with_a_warning(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(MODELS / "llama", tmp_path / "hf"))
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.warns(UserWarning, match=r"has no tokenizer\.json.*no text"):
        fewbit.quantize_file(folder, tmp_path / "out.gguf", "Q8_0")
    found = fewbit.load(tmp_path / "out.gguf", device="cpu")
    fewbit.quantize_file(MODELS / "llama", tmp_path / "same.gguf", "Q8_0")
    expected = fewbit.load(tmp_path / "same.gguf", device="cpu")
    np.testing.assert_array_equal(found.logits([1, 2, 3]), expected.logits([1, 2, 3]))
    with pytest.raises(FewbitError, match="tokenizer"):
        found.tokenizer  # noqa: B018 - the property raises


def test_the_command_warns(llama: Path, tmp_path: Path, capsys: Captured) -> None:
    source = foreign_files.renamed(llama, tmp_path / "olmo9.gguf", "olmo9")
    assert cli.run(["quantize", str(source), str(tmp_path / "o.gguf"), "-f", "Q8_0"]) == 0
    err = capsys.readouterr().err
    assert "olmo9.gguf` is quantized by the names of its tensors" in err
    assert "unknown architecture `olmo9`" in err
    assert (
        cli.run(["inspect", str(tmp_path / "o.gguf"), "--tensor", "0.ffn_up", "--block", "2"]) == 0
    )
    assert "block 2 of" in capsys.readouterr().out
    assert cli.run(["inspect", str(tmp_path / "o.gguf"), "--tensor", "0.ffn_up", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["name"], found["format"]) == ("blk.0.ffn_up.weight", "Q8_0")
