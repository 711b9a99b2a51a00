"""fewbit against llama.cpp (llama-cpp-python): quantized bytes, tokens, perplexity."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

import fewbit
from fewbit import _core
from fewbit.files.checkpoint import LazyTensor
from fewbit.files.gguf import read_gguf
from fewbit.measure import evaluate
from fewbit.measure import statistics as measures
from fewbit.recipes.mixtures import FILE_TYPES
from tests.compare import within_bound
from tests.golden.loading import MODELS, NOISE
from tests.peers.peer import NEEDS, Peer, llama_quantize, same_tensors

pytest.importorskip("llama_cpp", reason=NEEDS)

QUANTIZED = [name for name in FILE_TYPES if name != "F32"]
MODELS_HERE = {
    "llama": MODELS / "llama",  # 256 wide, untied
    "qwen2": MODELS / "qwen2",  # 128 wide, tied: K formats fall back
    "demo": fewbit.DEMO,
}


def random_importance(source: Path) -> dict[str, NDArray[np.float32]]:
    """What an importance matrix has: one weight for each column of the blocks' matrices."""
    rng = np.random.default_rng(1)
    return {
        name: rng.gamma(1, 1, entry.shape[-1]).astype(np.float32)
        for name, entry in read_gguf(source).tensors.items()
        if name.startswith("blk.") and len(entry.shape) == 2
    }


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    for name, path in MODELS_HERE.items():
        fewbit.load(path).save(folder / f"{name}.gguf")
    return {name: folder / f"{name}.gguf" for name in MODELS_HERE}


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "imatrix"])
@pytest.mark.parametrize("recipe", QUANTIZED)
@pytest.mark.parametrize("name", MODELS_HERE)
def test_files_are_llama_quantize_s(
    name: str, recipe: str, weighted: bool, sources: dict[str, Path], tmp_path: Path
) -> None:
    """Tensor for tensor; what it refuses, we refuse."""
    importance = random_importance(sources[name]) if weighted else None
    target, model = tmp_path / "theirs.gguf", fewbit.load(MODELS_HERE[name])
    if not llama_quantize(sources[name], target, FILE_TYPES[recipe], importance=importance):
        with pytest.raises(fewbit.FewbitError):
            model.quantize(recipe, imatrix=importance)
        return
    model.quantize(recipe, imatrix=importance).save(tmp_path / "ours.gguf")
    same_tensors(tmp_path / "ours.gguf", target)
    found = read_gguf(tmp_path / "ours.gguf").metadata["general.file_type"]
    assert found == read_gguf(target).metadata["general.file_type"]


def deep_llama(folder: Path, kv_heads: int) -> Path:
    """20 layers of 256: enough for the rules that go by a layer's place."""
    rng = np.random.default_rng(0)
    config = json.loads((MODELS / "llama" / "config.json").read_text())
    config |= {"num_hidden_layers": 20, "num_key_value_heads": kv_heads}
    (folder / "config.json").write_text(json.dumps(config))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).write_bytes((MODELS / "llama" / file).read_bytes())
    shapes = {"self_attn.k_proj": (32 * kv_heads, 256), "self_attn.v_proj": (32 * kv_heads, 256)}
    shapes |= dict.fromkeys(("self_attn.q_proj", "self_attn.o_proj"), (256, 256))
    shapes |= dict.fromkeys(("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"), (256, 256))
    tensors = {
        f"model.layers.{i}.{name}.weight": rng.normal(0, 0.02, shape).astype(np.float32)
        for i in range(20)
        for name, shape in shapes.items()
    }
    norms = [
        f"layers.{i}.{n}"
        for i in range(20)
        for n in ("input_layernorm", "post_attention_layernorm")
    ]
    tensors |= {f"model.{name}.weight": np.ones(256, np.float32) for name in (*norms, "norm")}
    for name in ("model.embed_tokens", "lm_head"):
        tensors[f"{name}.weight"] = rng.normal(0, 0.02, (320, 256)).astype(np.float32)
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.timeout(600)  # 34 recipes by two encoders, twice
@pytest.mark.parametrize("kv_heads", [2, 4])
def test_mixtures_of_a_deep_model(kv_heads: int, tmp_path: Path) -> None:
    model = fewbit.load(deep_llama(tmp_path, kv_heads))
    model.save(tmp_path / "source.gguf")
    for recipe in QUANTIZED:
        for importance in (None, random_importance(tmp_path / "source.gguf")):
            target = tmp_path / "theirs.gguf"
            file_type = FILE_TYPES[recipe]
            if llama_quantize(tmp_path / "source.gguf", target, file_type, importance=importance):
                model.quantize(recipe, imatrix=importance).save(tmp_path / "ours.gguf")
                same_tensors(tmp_path / "ours.gguf", target)


@pytest.mark.parametrize("name", MODELS_HERE)
def test_pure_files(name: str, sources: dict[str, Path], tmp_path: Path) -> None:
    llama_quantize(sources[name], tmp_path / "theirs.gguf", FILE_TYPES["Q4_K_M"], pure=True)
    model = fewbit.load(MODELS_HERE[name])
    model.quantize("Q4_K_M", options=fewbit.Options(pure=True)).save(tmp_path / "ours.gguf")
    same_tensors(tmp_path / "ours.gguf", tmp_path / "theirs.gguf")


@pytest.mark.parametrize("recipe", ["Q4_K_M", "Q4_0"])
def test_experts_have_importance_of_their_own(recipe: str, tmp_path: Path) -> None:
    """A tensor of three matrices beside the model's own: both quantizers take it along."""
    model, rng = fewbit.load(MODELS / "llama"), np.random.default_rng(0)
    name, shape = "blk.0.ffn_up_exps.weight", (3, 16, 256)
    stack = rng.normal(0, 0.02, shape).astype(np.float32).view(np.uint8)
    info = LazyTensor(name, "F32", shape, lambda: stack.reshape(48, -1))
    checkpoint = replace(model.checkpoint, tensors=model.checkpoint.tensors | {name: info})
    fewbit.Model(checkpoint).save(tmp_path / "source.gguf")
    importance = {name: (rng.random(3 * 256) ** 4).astype(np.float32)}
    source, theirs = tmp_path / "source.gguf", tmp_path / "theirs.gguf"
    assert llama_quantize(source, theirs, FILE_TYPES[recipe], importance=importance)
    fewbit.load(source).quantize(recipe, importance).save(tmp_path / "ours.gguf")
    same_tensors(tmp_path / "ours.gguf", theirs)


@pytest.mark.parametrize("recipe", ["IQ2_XS", "Q2_K_S", "Q4_K_M"])
def test_a_collected_importance_matrix_weighs_alike_in_both(
    recipe: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    model, text = fewbit.load(sources["llama"]), (MODELS / "llama" / "calibration.txt").read_text()
    model.imatrix(text, ctx=128, output=True).save(tmp_path / "imatrix.gguf")
    importance = fewbit.read_imatrix(tmp_path / "imatrix.gguf")
    target, file_type = tmp_path / "theirs.gguf", FILE_TYPES[recipe]
    assert llama_quantize(sources["llama"], target, file_type, importance=dict(importance))
    model.quantize(recipe, importance).save(tmp_path / "ours.gguf")
    same_tensors(tmp_path / "ours.gguf", target)


@pytest.mark.parametrize("name", ["llama", "llama-spm", "mistral", "qwen2", "qwen3"])
def test_logits_and_tokens(name: str, tmp_path: Path) -> None:
    model = fewbit.load(MODELS / name)
    model.save(tmp_path / "m.gguf")
    peer = Peer(tmp_path / "m.gguf")
    ids = np.load(MODELS / name / "ids.npy").tolist()
    expected = model.logits(ids, acts="f32")
    within_bound(peer.logits(ids), expected, NOISE, "llama.cpp's logits")
    if name == "mistral":  # only the first word gets a space: llama.cpp has no word for that
        return
    for text in ("Hello world, it's 12345!", "  two spaces\n\ttab", "naïve Ω 你好 🙂", ""):
        expected = model.tokenizer.encode(text)
        assert peer.llama.tokenize(text.encode(), add_bos=True, special=False) == expected


@pytest.mark.parametrize("recipe", ["F32", "Q8_0", "Q4_K_M"])
def test_perplexity(recipe: str, tmp_path: Path) -> None:
    """To the printed digits in f32; else the two ways of rounding activations lie between."""
    model = fewbit.load(fewbit.DEMO).quantize(recipe)
    model.save(tmp_path / "m.gguf")
    peer, text = Peer(tmp_path / "m.gguf"), fewbit.demo_text()
    parts = evaluate.windows(model, text, 512, 4)
    nll = [
        _core.nll(peer.logits(inputs.tolist())[parts.first : -1], targets[parts.first + 1 :])
        for inputs, targets in zip(parts.inputs, parts.targets, strict=True)
    ]
    theirs = measures.mean(np.concatenate(nll)).exp().value
    ours = model.perplexity(text, chunks=4, acts="int8").ppl.value
    within_bound(theirs, ours, 0.00005 if recipe == "F32" else 0.002 * ours, "perplexity")
