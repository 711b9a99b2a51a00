"""Calls that must fail: class, message and hint of each error, exactly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import fewbit
from fewbit import errors
from fewbit.api import Model
from fewbit.errors import FewbitError
from fewbit.formats import table as formats
from fewbit.recipes import mixtures
from fewbit.tokenizer.template import render
from tests.golden.loading import MODELS

Edit = Callable[[dict[str, Any]], None]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the golden llama, called `m`, in the current folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(MODELS / "llama", "m", ignore=shutil.ignore_patterns("*.gguf"))
    return Path("m")


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    settings = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in settings.items() if v is not ...}))


KNOWN = (
    "known: llama, qwen2, qwen3, qwen3moe, qwen3next, qwen35, qwen35moe, "
    "gemma3, phi3, gpt2, gpt-oss"
)

ELSEWHERE = (
    "make a GGUF file with llama.cpp's convert_hf_to_gguf.py; `fewbit quantize` takes any of them. "
    "Folders:"
)

CONFIGS = [
    (
        {"model_type": "qwen9"},
        errors.UnsupportedError,
        "unknown architecture `qwen9`: fewbit knows no GGUF names for its tensors",
        f"{ELSEWHERE} did you mean `qwen3`? {KNOWN}",
    ),
    (
        {"model_type": "mamba"},
        errors.UnsupportedError,
        "unknown architecture `mamba`: fewbit knows no GGUF names for its tensors",
        f"{ELSEWHERE} {KNOWN}",
    ),
    (
        {"hidden_size": "wide"},
        errors.FileFormatError,
        "`m/config.json`: `hidden_size` must be an integer of 1 or more, found 'wide'",
        "take the config.json that belongs to the weights",
    ),
    (
        {"rope_parameters": {"rope_type": "linear"}},
        errors.FileFormatError,
        "`m/config.json`: `factor` must be a value, found nothing",
        "take the config.json that belongs to the weights",
    ),
    (
        {"hidden_act": "gelu"},
        errors.UnsupportedError,
        "`m/config.json`: unknown activation `gelu`",
        "known: silu",
    ),
    (
        {"rope_parameters": {"rope_type": "ntk", "rope_theta": 1e4}},
        errors.UnsupportedError,
        "`m/config.json`: unknown rope scaling `ntk`",
        "known: default, linear, llama3, yarn, longrope",
    ),
    (
        {"num_hidden_layers": 3},
        errors.FileFormatError,
        "`m` has no tensor `blk.2.attn_norm.weight`",
        "the file is incomplete, or its configuration is that of another model",
    ),
    (
        {"num_hidden_layers": 1},
        errors.UnsupportedError,
        "unexpected tensor `model.layers.1.input_layernorm.weight`: llama with 1 layers does not "
        "have it",
        "take the config.json that belongs to the weights",
    ),
    (
        {"intermediate_size": 512},
        errors.FileFormatError,
        "tensor `blk.0.ffn_gate.weight` has shape [256, 256], expected [512, 256] by the "
        "configuration",
        "take the configuration that belongs to the weights",
    ),
    (
        {"num_key_value_heads": 4},
        errors.FileFormatError,
        "tensor `blk.0.attn_k.weight` has shape [64, 256], expected [128, 256] by the "
        "configuration",
        "take the configuration that belongs to the weights",
    ),
]


@pytest.mark.parametrize(("changes", "kind", "message", "hint"), CONFIGS)
def test_configurations(
    changes: dict[str, Any], kind: type[FewbitError], message: str, hint: str, folder: Path
) -> None:
    edit_config(folder, **changes)
    with pytest.raises(kind) as caught:
        fewbit.load(folder)
    assert type(caught.value) is kind
    assert (caught.value.message, caught.value.hint) == (message, hint)


def break_weights(folder: Path, name: str, value: float) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors[name].reshape(-1)[700] = value
    save_file(tensors, folder / "model.safetensors")


def no_tokenizer(folder: Path) -> Any:
    (folder / "tokenizer.json").unlink()
    return fewbit.load(folder).tokenizer


def junk_tokenizer(folder: Path) -> Any:
    (folder / "tokenizer.json").write_text("[]")
    return fewbit.load(folder).tokenizer


def junk_config(folder: Path) -> Any:
    (folder / "config.json").write_text("{")
    return fewbit.load(folder)


def no_weights(folder: Path) -> Any:
    (folder / "model.safetensors").unlink()
    return fewbit.load(folder)


def eight_bit_weights(folder: Path) -> Any:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].astype(np.int8)
    save_file(tensors, folder / "model.safetensors")
    return fewbit.load(folder)


def gptq_weights(folder: Path) -> Any:
    edit_config(folder, quantization_config={"quant_method": "gptq", "bits": 4})
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.qweight"] = np.zeros((32, 512), np.int32)
    save_file(tensors, folder / "model.safetensors")
    return fewbit.load(folder)


def quantize_nan(folder: Path) -> Any:
    break_weights(folder, "model.layers.1.mlp.up_proj.weight", np.nan)
    fewbit.load(folder).quantize("Q8_0").save("out.gguf")


def run_nan(folder: Path) -> Any:
    break_weights(folder, "model.layers.1.mlp.up_proj.weight", np.inf)
    return fewbit.load(folder).logits([1])


def model(folder: Path) -> Model:
    return fewbit.load(folder)


X = np.ones((2, 64), np.float32)
TABLE: list[tuple[Callable[[Path], Any], type[FewbitError], str, str | None]] = [
    (
        lambda m: fewbit.load("none.gguf"), errors.InputError,
        "no model at `none.gguf`",
        "give a GGUF file, a Hugging Face folder, or a Hub repository as owner/repository",
    ),
    (
        lambda m: fewbit.load(m.parent), errors.InputError,
        "no model in `.`: config.json is missing",
        "give a Hugging Face folder: it has config.json, *.safetensors and tokenizer.json",
    ),
    (
        lambda m: fewbit.load(m, device="tpu"), errors.UnsupportedError,
        "unknown device `tpu`", "did you mean `gpu`? known: auto, cpu, gpu, gpu:N",
    ),
    (
        no_tokenizer, errors.FileFormatError,
        "`m` has no tokenizer.json",
        "download the folder again, with tokenizer.json, with tokenizer.model, or with "
        "vocab.json and merges.txt",
    ),
    (
        no_weights, errors.FileFormatError,
        "the weights in `m` are incomplete: no safetensors files",
        "download the folder again; fewbit reads weights from safetensors files only",
    ),
    (
        eight_bit_weights, errors.UnsupportedError,
        "tensor `model.norm.weight` has the unsupported dtype I8",
        "known in safetensors files: F32, F16, BF16",
    ),
    (
        gptq_weights, errors.UnsupportedError,
        "`m/config.json`: the weights are quantized by `gptq`, which fewbit does not read",
        "take the original checkpoint",
    ),
    (
        quantize_nan, errors.FormatError,
        "tensor `blk.1.ffn_up.weight`: cannot store NaN as Q8_0: row 2, column 188 is not finite",
        "the checkpoint is damaged or was trained to overflow; mend it before quantizing",
    ),
    (
        run_nan, errors.FormatError,
        "`blk.1.ffn_up.weight`: a weight or a scale is NaN or infinite",
        "the file is damaged, or the model was trained to overflow",
    ),
    (
        lambda m: model(m).quantize("Q9_9"), errors.FormatError,
        "unknown recipe `Q9_9`",
        f"known: {', '.join(mixtures.FILE_TYPES)}, and sym1..8-gN, asym1..8-gN as in asym4-g32",
    ),
    (
        lambda m: model(m).quantize("Q8_0").quantize("Q4_0"), errors.UnsupportedError,
        "the model is quantized already: `output.weight` is Q8_0",
        "quantize the original; `--allow-requantize` (`requantize=True`) rounds twice",
    ),
    (
        lambda m: model(m).quantize("F16").quantize("Q4_0"), errors.UnsupportedError,
        "the model is quantized already: `output.weight` is F16",
        "quantize the original; `--allow-requantize` (`requantize=True`) rounds twice",
    ),
    (
        lambda m: model(m).quantize("asym4-g32").save("x.gguf"), errors.FormatError,
        "GGUF cannot hold asym4-g32, which `blk.0.ffn_down.weight` is stored as",
        "`fewbit perplexity` and `fewbit compare` measure it without a file",
    ),
    (
        lambda m: model(m).logits([320]), errors.InputError,
        "token 320 is not in the vocabulary of 320", None,
    ),
    (
        lambda m: model(m).logits([[1]]), errors.InputError,
        "ids must be a list of integers, found shape (1, 1) of int64", None,
    ),
    (
        lambda m: model(m).logits([-1]), errors.InputError, "ids must be 0 or more, found -1", None,
    ),
    (
        lambda m: model(m).logits([1], acts="int4"), errors.InputError,
        "unknown activations `int4`", "known: f32, int8",
    ),
    (
        lambda m: model(m).cache(1 << 50, 64), errors.InputError,
        "a cache of 1125899906842624 sequences of 64 tokens does not fit memory",
        "make it for fewer tokens or sequences",
    ),
    (
        lambda m: model(m).perplexity("short"), errors.InputError,
        "the text has 5 tokens, windows of 512 need at least 1024",
        "use a longer text or a smaller window (`--ctx`), or `--stride` (`stride=`), which scores "
        "every token of any text",
    ),
    (
        lambda m: render(model(m).tokenizer, []), errors.InputError,
        "the model has no chat template", "use `fewbit generate`, which needs none",
    ),
    (
        lambda m: fewbit.quantize(X, "Q9_9"), errors.FormatError,
        "unknown format `Q9_9`",
        f"known: {', '.join(formats.FORMATS)}, and sym1..8-gN, asym1..8-gN as in asym4-g32",
    ),
    (
        lambda m: fewbit.quantize(X, "Q4_K_M"), errors.FormatError,
        "unknown format `Q4_K_M`",
        "did you mean `Q4_K`? "
        f"known: {', '.join(formats.FORMATS)}, and sym1..8-gN, asym1..8-gN as in asym4-g32",
    ),
    (
        lambda m: model(m).quantize("q4km"), errors.FormatError,
        "unknown recipe `q4km`",
        "did you mean `Q4_K_M`? "
        f"known: {', '.join(mixtures.FILE_TYPES)}, and sym1..8-gN, asym1..8-gN as in asym4-g32",
    ),
    (
        lambda m: fewbit.quantize(X[:, :33], "Q4_0"), errors.ShapeError,
        "cannot store rows of 33 elements as Q4_0: not a multiple of 32",
        "Q8_0, Q4_0, Q5_0 and IQ4_NL need multiples of 32; F16 and affine formats (asym4-g32) take "
        "any length",
    ),
    (
        lambda m: fewbit.quantize(X.astype(np.int32), "Q4_0"), errors.FormatError,
        "cannot quantize an array of int32",
        "float32, float16, bfloat16 and float64 arrays can be quantized: "
        "`array.astype(np.float32)`",
    ),
    (
        lambda m: fewbit.quantize(np.float32(1), "Q4_0"), errors.ShapeError,
        "a tensor cannot have shape ()",
        "it needs at least one axis, and every axis at least one element",
    ),
    (
        lambda m: fewbit.quantize(X, "Q4_0", imatrix=np.ones(32)), errors.ShapeError,
        "the importance must hold 64 weights, one a column, found 32", None,
    ),
    (
        lambda m: fewbit.quantize(X, "Q4_0", imatrix=-np.ones(64)), errors.FormatError,
        "the importance of column 0 is -1, expected a finite number of 0 or more", None,
    ),
    (
        lambda m: fewbit.quantize(X.astype(ml_dtypes.bfloat16) * np.inf, "Q8_0"),
        errors.FormatError,
        "cannot store inf as Q8_0: row 0, column 0 is not finite",
        "the checkpoint is damaged or was trained to overflow; mend it before quantizing",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "message", "hint"), TABLE, ids=[row[2] for row in TABLE])
def test_calls(
    call: Callable[[Path], Any],
    kind: type[FewbitError],
    message: str,
    hint: str | None,
    folder: Path,
) -> None:
    with pytest.raises(kind) as caught:
        call(folder)
    assert type(caught.value) is kind
    assert (caught.value.message, caught.value.hint) == (message, hint)
    assert not list(Path().glob("*.gguf"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (junk_tokenizer, "`m/tokenizer.json` is not a valid tokenizer: "),
        (junk_config, "`m/config.json` is not JSON: "),
    ],
)
def test_messages_of_libraries_are_included(
    call: Callable[[Path], Any], message: str, folder: Path
) -> None:
    with pytest.raises(errors.FileFormatError) as caught:
        call(folder)
    assert caught.value.message.startswith(message)


def test_facts_are_attributes() -> None:
    error = errors.FormatError("no", hint="try", format="Q9", columns=3)
    assert (str(error), error.format, error.columns) == ("no\n\nhint: try", "Q9", 3)  # type: ignore[attr-defined]
    assert isinstance(error, ValueError)
