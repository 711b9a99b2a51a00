"""Models of each architecture, written as GGUF: llama.cpp loads and scores each as fewbit does."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

import fewbit
from fewbit.recipes.mixtures import FILE_TYPES
from tests.compare import same_bits, within_bound
from tests.golden.loading import GGUFS, NOISE, asset
from tests.peers.peer import NEEDS, Peer, llama_quantize, same_tensors
from tests.random_models import MAKERS

pytest.importorskip("llama_cpp", reason=NEEDS)

PLAIN = ["gpt_oss", "phi3", "phi3-longrope", "qwen3_moe", "qwen3_next", "qwen3_5", "qwen3_5-hub"]
RANDOM = ["mixtral", "qwen3_5_moe"]
TABLED = ["gemma3", "gpt2"]
"""llama.cpp looks their GELU up in a table of f16 values."""
TABLE_NOISE = 5e-3
"""What that table moves logits by: 3e-3 to 4e-3 against transformers (golden/README.md)."""
HIGH = (
    *("_norm.weight", "ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight", "ssm_conv1d.weight"),
    *("ssm_a", ".bias", "attn_sinks.weight", "position_embd.weight"),
)
"""Ends of the names of tensors that stay in f32: norms, routers, small states, sinks."""


def folder_of(name: str, tmp: Path) -> Path:
    """A golden model's folder, or one of random weights for what has none; these fit K formats."""
    return MAKERS[name](tmp / name, width=256, ffn=256) if name in MAKERS else asset(name).parent


def opened(name: str, recipe: str | None, path: Path) -> fewbit.Model:
    """A model in the GGUF file `path` that fewbit has written from its folder."""
    model = fewbit.load(folder_of(name, path.parent))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "GGUF cannot describe a YaRN range")
        (model.quantize(recipe) if recipe else model).save(path)
    return fewbit.load(path)


def ids_of(name: str) -> list[int]:
    if name in MAKERS:
        return list(range(3, 300, 13))
    found: list[int] = np.load(asset(name, "ids.npy")).tolist()
    return found


@pytest.mark.parametrize("name", PLAIN + RANDOM + TABLED)
def test_logits(name: str, tmp_path: Path) -> None:
    model = opened(name, None, tmp_path / "m.gguf")
    found = Peer(tmp_path / "m.gguf").logits(ids_of(name))
    bound = TABLE_NOISE if name in TABLED else NOISE
    within_bound(found, model.logits(ids_of(name), acts="f32"), bound, "llama.cpp's logits")


TEXTS = ("Hello world, it's 12345!", "  two spaces\n\ttab", "naïve Ω 你好 🙂", "don't\r\n\n x")


@pytest.mark.parametrize("name", PLAIN + TABLED)
def test_tokens(name: str, tmp_path: Path) -> None:
    """What the metadata says of the tokenizer means the same to both."""
    tokenizer = opened(name, None, tmp_path / "m.gguf").tokenizer
    peer = Peer(tmp_path / "m.gguf").llama
    for text in TEXTS:
        found = peer.tokenize(text.encode(), add_bos=True, special=False)
        assert found == tokenizer.encode(text), text
    assert peer.token_eos() == tokenizer.eos


def middle(x: np.ndarray) -> float:
    """The median over tokens of the root mean square over the vocabulary: where rounding sends a
    token to another expert it is off by any amount, so a mean says nothing.
    """
    return float(np.median(np.sqrt(np.mean(np.square(x, dtype=np.float64), axis=1))))


def near(name: str, model: fewbit.Model, path: Path) -> None:
    """llama.cpp rounds activations as well, in groups as fine or coarser: it is off from what the
    weights mean by no more than twice what fewbit's own rounding is. That is less than half of
    what logits differ among themselves, which is what a wrong order of heads would be off by.
    """
    exact, ours = (model.logits(ids_of(name), acts=acts) for acts in ("f32", "int8"))
    theirs = Peer(path).logits(ids_of(name))
    within_bound(middle(theirs - exact), 0, 2 * middle(ours - exact), f"{name}: off from f32")
    assert 4 * middle(ours - exact) < exact.std()


@pytest.mark.parametrize("recipe", ["Q8_0", "Q4_K_M"])
@pytest.mark.parametrize("name", PLAIN + RANDOM + TABLED)
def test_quantized(name: str, recipe: str, tmp_path: Path) -> None:
    """The bytes that llama-quantize makes of its converter's file, and the logits near."""
    path, theirs = tmp_path / "ours.gguf", tmp_path / "theirs.gguf"
    model = opened(name, recipe, path)
    if name in GGUFS or name in RANDOM:
        source = asset(name, "model-f32.gguf") if name in GGUFS else tmp_path / "f32.gguf"
        if name in RANDOM:
            opened(name, None, source)
        assert llama_quantize(source, theirs, FILE_TYPES[recipe])
        same_tensors(path, theirs, made_by_exp=("ssm_a",))
    high = {n: f for n, f in model.formats.items() if n.endswith(HIGH)}
    assert high
    assert set(high.values()) == {"F32"}, high
    if recipe == "Q8_0" or name in RANDOM:
        near(name, model, path)


@pytest.mark.parametrize("name", [n for n in GGUFS if n in PLAIN + TABLED])
def test_a_folder_s_tensors_are_the_converter_s(name: str) -> None:
    """Before anything is encoded they have the names, the order of rows and columns (value heads
    of qwen35 dealt out in turns) and the scales of llama.cpp's own converter.
    """
    ours = fewbit.load(asset(name).parent).checkpoint
    theirs = fewbit.load(asset(name, "model-f32.gguf")).checkpoint
    assert set(ours.tensors) == set(theirs.tensors)
    for tensor, info in theirs.tensors.items():
        found, expected = ours.read(tensor), info.read()
        assert (found.format, found.shape) == (info.format, tuple(info.shape)), tensor
        if tensor.endswith("ssm_a"):  # -exp(A_log), by another library's exp
            values = expected.view("<f4")
            within_bound(found.data.view("<f4"), values, 2e-7 * np.abs(values), tensor)
        else:
            same_bits(found.data.reshape(-1), expected.reshape(-1), tensor)


def test_experts_stay_mxfp4_in_both(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    model = opened("gpt_oss-mxfp4", "MXFP4_MOE", path)
    experts = {n: f for n, f in model.formats.items() if n.endswith("_exps.weight")}
    assert set(experts.values()) == {"MXFP4"}
    source = fewbit.load(asset("gpt_oss-mxfp4").parent).checkpoint
    for name in experts:
        same_bits(model.checkpoint.read(name).data, source.read(name).data, name)
    near("gpt_oss-mxfp4", model, path)
