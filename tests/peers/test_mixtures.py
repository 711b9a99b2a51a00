"""Mixtures against llama-quantize: the format of every tensor, by its dry run on shapes alone."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter

from fewbit.errors import FewbitError, FormatError
from fewbit.files.gguf import fields_of
from fewbit.formats.table import FORMATS
from fewbit.recipes.choose import Options, choose
from fewbit.recipes.mixtures import FILE_TYPES, TABLES
from fewbit.recipes.order import sort_key

llama_cpp = pytest.importorskip("llama_cpp", reason="needs the extra `peers`: llama-cpp-python")

LINE = re.compile(r"^\[ *\d+/ *\d+\] +(\S+) +- \[.*?\], type = +(\w+), size = .*?(?:\((\w+)\))?$")
NEEDS = "will require an imatrix"
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Tensor:
    shape: tuple[int, ...]
    format: str


@dataclass(frozen=True)
class Fake:
    """A model of names and shapes; `extra` is the metadata that its architecture asks for."""

    shapes: Shapes
    architecture: str = "llama"
    heads: int = 8
    kv_heads: int = 2
    experts: int = 0
    extra: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def layers(self) -> int:
        return 1 + max(sort_key(name)[0] for name in self.shapes)

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        return {
            name: Tensor(shape, "F32" if len(shape) == 1 else "BF16")
            for name, shape in self.shapes.items()
        }

    def write(self, path: Path) -> Path:
        """A GGUF file whose data is a hole."""
        writer = GGUFWriter(path, self.architecture)
        values = {
            "context_length": 64, "embedding_length": 256, "feed_forward_length": 256,
            "block_count": self.layers, "attention.head_count": self.heads,
            "attention.head_count_kv": self.kv_heads,
            "attention.layer_norm_rms_epsilon": 1e-5, "attention.layer_norm_epsilon": 1e-5,
        }  # fmt: skip
        if self.experts:
            values |= {"expert_count": self.experts, "expert_used_count": 2}
        for key, entry in fields_of(values | self.extra):
            writer.add_key_value(f"{self.architecture}.{key}", entry.value, entry.type, entry.item)
        size = 0
        for name, tensor in self.tensors.items():
            kind = GGMLQuantizationType[tensor.format]
            nbytes = int(np.prod(tensor.shape)) * (4 if tensor.format == "F32" else 2)
            writer.add_tensor_info(name, tensor.shape, np.dtype(np.float32), nbytes, kind)
            size += nbytes + -nbytes % 32
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
        with path.open("rb+") as file:
            file.truncate(path.stat().st_size + 32 + size)
        return path


def tables(columns: int = 256, tied: bool = False) -> Shapes:
    found: Shapes = {"token_embd.weight": (320, columns), "output_norm.weight": (columns,)}
    return found if tied else found | {"output.weight": (320, columns)}


def attention(layer: int, columns: int = 256) -> Shapes:
    names = ("attn_q", "attn_k", "attn_v", "attn_output")
    found: Shapes = {f"blk.{layer}.{name}.weight": (256, columns) for name in names}
    return found | {f"blk.{layer}.attn_norm.weight": (columns,), f"blk.{layer}.attn_q.bias": (256,)}


def ffn(layer: int, columns: int = 256, wide: int = 512) -> Shapes:
    found: Shapes = {f"blk.{layer}.ffn_{name}.weight": (wide, columns) for name in ("gate", "up")}
    return found | {f"blk.{layer}.ffn_down.weight": (columns, wide)}


def experts(layer: int, count: int, shared: bool = False) -> Shapes:
    found: Shapes = {
        f"blk.{layer}.ffn_{name}_exps.weight": (count, 256, 256) for name in ("gate", "up", "down")
    }
    found[f"blk.{layer}.ffn_gate_inp.weight"] = (count, 256)
    if shared:
        names = ("gate", "up", "down")
        found |= {f"blk.{layer}.ffn_{name}_shexp.weight": (256, 256) for name in names}
        found[f"blk.{layer}.ffn_gate_inp_shexp.weight"] = (1, 256)
    return found


def delta_net(layer: int) -> Shapes:
    shapes: Shapes = {
        "attn_qkv.weight": (512, 256), "attn_gate.weight": (256, 256), "ssm_a": (4,),
        "ssm_conv1d.weight": (512, 4), "ssm_dt.bias": (4,), "ssm_norm.weight": (64,),
        "ssm_out.weight": (256, 256), "ssm_alpha.weight": (4, 256), "ssm_beta.weight": (4, 256),
    }  # fmt: skip
    return {f"blk.{layer}.{name}": shape for name, shape in shapes.items()}


def dense(layers: int, columns: int = 256, wide: int = 512, tied: bool = False) -> Shapes:
    found = tables(columns, tied)
    for i in range(layers):
        found |= attention(i, columns) | ffn(i, columns, wide)
    return found


def mixture(layers: int, count: int) -> Shapes:
    found = tables()
    for i in range(layers):
        found |= attention(i) | experts(i, count)
    return found


def hybrid(layers: int, count: int = 0) -> Shapes:
    """Three layers of DeltaNet to one of attention; the last one predicts the token after next."""
    found = tables(tied=True)
    for i in range(layers):
        found |= attention(i) if i % 4 == 3 or i == layers - 1 else delta_net(i)
        found |= experts(i, count, shared=True) if count else ffn(i)
        found[f"blk.{i}.post_attention_norm.weight"] = (256,)
    found[f"blk.{layers - 1}.nextn.eh_proj.weight"] = (256, 512)
    return found


def curious() -> Shapes:
    """Names that some architecture keeps as they are, stores in Q8_0, or counts among others."""
    found = tables()
    names = (
        "attn_q_a", "attn_q_b", "attn_kv_b", "attn_k_b", "attn_v_b", "attn_kv_a_mqa",
        "nextn.eh_proj", "hc_attn_fn", "indexer.attn_k", "indexer.k_proj", "indexer.proj",
        "ssm_f_a", "ssm_beta", "ssm_conv1d", "shortconv.conv", "time_mix_w1", "laurel_l",
        "attn_rel_b", "cross_attn_v", "ffn_gate_up_exps",
    )  # fmt: skip
    for i in range(5):
        found |= {f"blk.{i}.{name}.weight": (2, 4, 256) for name in names}
        found |= attention(i) | ffn(i) | experts(i, 8)
    for name in ("position_embd", "token_types", "per_layer_model_proj", "v.patch_embd", "mm.0"):
        found[f"{name}.weight"] = (16, 256)
    return found


def latent(layers: int) -> Shapes:
    """DeepSeek's attention, its first layer dense, old experts and some names of other kinds."""
    found = tables() | {"per_layer_token_embd.weight": (320, 512), "altup_proj.weight": (256, 256)}
    for i in range(layers):
        shapes = {"attn_kv_a_mqa": (96, 256), "attn_kv_b": (512, 64), "attn_q": (256, 256)}
        found |= {f"blk.{i}.{name}.weight": shape for name, shape in shapes.items()}
        found[f"blk.{i}.attn_output.weight"] = (256, 256)
        found |= ffn(i) if i == 0 else experts(i, 4, shared=True)
    for n in range(4):
        found[f"blk.2.ffn_down.{n}.weight"] = (256, 256)
    return found


SSM: dict[str, Any] = {
    "rope.dimension_sections": [11, 11, 10, 0], "ssm.conv_kernel": 4, "ssm.inner_size": 256,
    "ssm.state_size": 64, "ssm.time_step_rank": 4, "ssm.group_count": 4,
    "full_attention_interval": 4, "nextn_predict_layers": 1, "expert_feed_forward_length": 256,
    "expert_shared_feed_forward_length": 256,
}  # fmt: skip
LATENT: dict[str, Any] = {
    "leading_dense_block_count": 1, "attention.q_lora_rank": 64, "attention.kv_lora_rank": 64,
    "attention.key_length_mla": 64, "attention.value_length_mla": 64,
    "expert_feed_forward_length": 256, "expert_shared_count": 1, "rope.dimension_count": 32,
}  # fmt: skip
LINEAR: dict[str, Any] = LATENT | {
    "ssm.conv_kernel": 4, "kda.head_dim": 64, "kda.safe_gate": True, "kda.gate_lower_bound": -5.0,
    "expert_gating_func": 1, "swiglu_clamp_shexp": 1.0, "attention.indexer.head_count": 4,
    "attention.indexer.key_length": 64, "attention.indexer.top_k": 8,
    "attention.indexer.kpool": 4, "hyper_connection.count": 4,
    "hyper_connection.sinkhorn_iterations": 4, "hyper_connection.epsilon": 1e-5,
}  # fmt: skip
FAKES = {
    "gqa2": Fake(dense(4), kv_heads=4),
    "gqa4-tied": Fake(dense(8, tied=True)),
    "gqa8": Fake(dense(4), kv_heads=1),
    "no-attention-first": Fake(
        dense(4), kv_heads=0, extra={"attention.head_count_kv": [0, 2, 2, 2]}
    ),
    "deep": Fake(dense(21), kv_heads=4),
    "96-wide": Fake(dense(4, 96, 288)),
    "288-wide-tied": Fake(dense(4, 288, 100, tied=True)),
    "128-wide-tied": Fake(dense(2, 128, 128, tied=True)),
    "llama-70B": Fake(dense(80), kv_heads=4),
    "llama-65B": Fake(dense(80), kv_heads=8),
    "qwen2-72B": Fake(dense(80), "qwen2", kv_heads=8),
    "jais2-70B": Fake(dense(68), "jais2", kv_heads=8),
    "8-experts": Fake(mixture(9, 8), kv_heads=4, experts=8),
    "16-experts": Fake(mixture(20, 16), kv_heads=4, experts=16),
    "falcon": Fake(dense(20), "falcon", kv_heads=1),
    "qwen35": Fake(hybrid(17), "qwen35", extra=SSM),
    "qwen35moe": Fake(hybrid(9, 4), "qwen35moe", kv_heads=8, experts=4, extra=SSM),
    "deepseek2": Fake(latent(9), "deepseek2", kv_heads=8, experts=4, extra=LATENT),
    "bailingmoe3": Fake(curious(), "bailingmoe3", experts=8, extra=LINEAR),
    "glm5-next": Fake(curious(), "glm5-next", experts=16, extra=LINEAR),
    "curious-llama": Fake(curious(), experts=2),
}


_LINES: list[str] = []


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _note(level: int, text: bytes, data: Any) -> None:
    _LINES.append(text.decode(errors="replace"))


@pytest.fixture(autouse=True)
def listening() -> Iterator[None]:
    llama_cpp.llama_log_set(_note, ctypes.c_void_p(0))
    _LINES.clear()
    yield
    _LINES.clear()


def params(recipe: str, known: bool, pure: bool) -> Any:
    found = llama_cpp.llama_model_quantize_default_params()
    found.ftype, found.nthread, found.pure = FILE_TYPES[recipe], 1, pure
    if known:  # a dry run asks whether there is one, not whose
        found.imatrix = (llama_cpp.llama_model_imatrix_data * 1)()
    return found


def apply(found: Any, options: Options) -> Any:
    """The same wishes in llama.cpp's words; what it points to hangs on to it."""
    for name, format_ in (
        ("token_embedding_type", options.embedding),
        ("output_tensor_type", options.output),
    ):
        if format_:
            setattr(found, name, FORMATS[format_].gguf_id)
    entries = (llama_cpp.llama_model_tensor_override * (len(options.overrides) + 1))()
    for entry, (pattern, format_) in zip(entries, options.overrides.items(), strict=False):
        entry.pattern, entry.type = pattern.encode(), FORMATS[format_].gguf_id
    found.tt_overrides = entries
    return found


def theirs(path: Path, found: Any) -> dict[str, str] | None:
    """The format of each tensor in llama.cpp's dry run, None where it refuses."""
    _LINES.clear()
    found.dry_run = True
    if llama_cpp.llama_model_quantize(str(path).encode(), b"", ctypes.byref(found)):
        return None
    lines = "".join(_LINES).splitlines()
    if any(NEEDS in line for line in lines):
        return None
    matches = [match for line in lines if (match := LINE.match(line))]
    return {match[1]: (match[3] or match[2]).upper() for match in matches}


def ours(recipe: str, fake: Fake, known: bool, options: Options) -> dict[str, str] | None:
    importance = fake.shapes if known else ()
    try:
        return choose(recipe, fake.tensors, fake, importance=importance, options=options)
    except FewbitError:
        return None


@pytest.fixture(scope="session")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("fakes")
    return {name: fake.write(folder / f"{name}.gguf") for name, fake in FAKES.items()}


@pytest.mark.parametrize("name", FAKES)
def test_every_mixture_of_every_shape(name: str, paths: dict[str, Path]) -> None:
    fake = FAKES[name]
    for recipe in FILE_TYPES:
        for known, pure in ((False, False), (True, False), (False, True), (True, True)):
            expected = theirs(paths[name], params(recipe, known, pure))
            found = ours(recipe, fake, known, Options(pure=pure))
            assert found == expected, (recipe, known, pure)


@pytest.mark.parametrize("name", FAKES)
def test_what_is_asked_for_besides(name: str, paths: dict[str, Path]) -> None:
    """Formats for tensors by name: they are not counted, and the mixture goes on without them."""
    rng, fake = Random(name), FAKES[name]
    known_patterns = (
        r"attn_v",
        r"blk\.[0-2]\.",
        r"ffn_(up|down)",
        r"per_layer",
        r"weight$",
        r"^token",
    )
    # fewbit refuses a pattern that matches no tensor, which llama-quantize passes over
    patterns = [p for p in known_patterns if any(re.search(p, name) for name in fake.shapes)]
    widths = {fake.shapes.get(table, (256,))[-1] for table in (*TABLES, "output.weight")}
    fitting = [n for n, f in FORMATS.items() if not any(width % f.block for width in widths)]
    for _ in range(40):
        recipe, known = rng.choice(list(FILE_TYPES)), rng.random() < 0.7
        some = rng.sample(patterns, rng.randint(0, min(3, len(patterns))))
        options = Options(
            {pattern: rng.choice(list(FORMATS)) for pattern in some},
            embedding=rng.choice([None, None, *fitting]),
            output=rng.choice([None, *fitting]),
        )
        wanted = apply(params(recipe, known, pure=False), options)
        assert ours(recipe, fake, known, options) == theirs(paths[name], wanted), (recipe, options)


@pytest.mark.parametrize(
    ("recipe", "missing", "refused"),
    [("IQ2_XS", "blk.2.ffn_up.weight", True), ("IQ2_XS", "blk.2.attn_v.weight", False),
     ("IQ2_XS", "token_embd.weight", False), ("Q2_K_S", "blk.3.ffn_down.weight", True),
     ("Q2_K", "blk.3.ffn_down.weight", False)],
)  # fmt: skip
def test_an_importance_matrix_with_a_gap(
    recipe: str, missing: str, refused: bool, paths: dict[str, Path], tmp_path: Path
) -> None:
    """Only a run that reads the data says whether llama.cpp misses the entry."""
    fake, wanted = FAKES["gqa2"], params(recipe, known=True, pure=False)
    known = {name: np.ones(shape[-1], np.float32) for name, shape in fake.shapes.items()}
    del known[missing]
    entries = (llama_cpp.llama_model_imatrix_data * (len(known) + 1))()
    for entry, (name, weights) in zip(entries, known.items(), strict=False):
        entry.name, entry.size = name.encode(), weights.size
        entry.data = weights.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    wanted.imatrix = entries
    code = llama_cpp.llama_model_quantize(
        str(paths["gqa2"]).encode(), str(tmp_path / "out.gguf").encode(), ctypes.byref(wanted)
    )
    assert (code != 0) == refused
    with pytest.raises(FormatError, match=missing) if refused else nullcontext():
        choose(recipe, fake.tensors, fake, importance=known)
