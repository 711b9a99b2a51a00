"""Recipes against formats worked out by hand; tests/peers compares them with llama-quantize."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from fewbit.errors import FewbitError, FormatError, InputError
from fewbit.formats.table import FORMATS
from fewbit.plan.config import Config
from fewbit.recipes import choose as recipes
from fewbit.recipes.choose import Options, canonical, choose, main_format
from fewbit.recipes.mixtures import FILE_TYPES


@dataclass(frozen=True)
class Shape:
    shape: tuple[int, ...]
    format: str = "BF16"


def config(layers: int = 16, heads: int = 8, kv_heads: int = 2, experts: int = 0) -> Config:
    return Config("llama", 512, layers, 256, 512, heads, kv_heads, 32, 1e-5, 512, experts=experts)


def tensors(layers: int = 16, tied: bool = False, columns: int = 256) -> dict[str, Shape]:
    found = {"token_embd.weight": Shape((512, columns)), "output_norm.weight": Shape((columns,))}
    if not tied:
        found["output.weight"] = Shape((512, columns))
    for i in range(layers):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
            found[f"blk.{i}.{name}.weight"] = Shape((256, columns))
        found[f"blk.{i}.attn_norm.weight"] = Shape((columns,))
        found[f"blk.{i}.attn_q.bias"] = Shape((256,))
    return found


def chosen(recipe: str, kind: str, **options: object) -> list[str]:
    found = choose(recipe, tensors(), config(), **options)  # type: ignore[arg-type]
    return [format_ for name, format_ in found.items() if f".{kind}.weight" in name]


def test_the_medium_mixture_spends_more_on_every_third_layer() -> None:
    more = {0, 1, 4, 7, 10, 13, 14, 15}  # the first and last eighth, every third between
    expected = ["Q6_K" if i in more else "Q4_K" for i in range(16)]
    assert chosen("Q4_K_M", "ffn_down") == expected
    assert chosen("Q4_K_M", "attn_v") == expected
    assert set(chosen("Q4_K_M", "attn_q")) == {"Q4_K"}


def test_small_mixtures() -> None:
    assert chosen("Q3_K_M", "attn_v") == ["Q5_K"] * 2 + ["Q4_K"] * 14
    assert chosen("Q3_K_M", "ffn_down") == ["Q5_K"] + ["Q4_K"] * 15
    assert chosen("Q2_K", "attn_v") == ["Q4_K"] * 16  # four queries share a value
    few = choose("Q2_K", tensors(), config(heads=4, kv_heads=2))
    assert few["blk.3.attn_v.weight"] == "Q3_K"


@pytest.mark.parametrize(
    ("recipe", "tied", "table"),
    [("Q4_0", True, "Q6_K"), ("Q4_0", False, "Q4_0"), ("Q8_0", True, "Q8_0"), ("F16", True, "F16")],
)
def test_an_embedding_that_is_the_output_too_gets_more(recipe: str, tied: bool, table: str) -> None:
    found = choose(recipe, tensors(tied=tied), config())
    assert found["token_embd.weight"] == table


def test_vectors_stay_floats() -> None:
    found = choose("Q2_K", tensors(), config())
    assert {
        found[n] for n in ("output_norm.weight", "blk.0.attn_norm.weight", "blk.0.attn_q.bias")
    } == {"F32"}


@pytest.mark.parametrize(
    ("columns", "recipe", "expected"),
    [(128, "Q4_K_S", "Q5_0"), (128, "Q5_K_S", "Q5_1"), (128, "Q6_K", "Q8_0"),
     (128, "Q3_K_S", "Q4_0"), (100, "Q4_K_S", "F16"), (100, "Q8_0", "F16"), (96, "Q2_0", "Q4_0"),
     (128, "IQ4_XS", "IQ4_NL"), (128, "TQ2_0", "Q4_0"), (100, "IQ4_NL", "F16")],
)  # fmt: skip
def test_rows_that_blocks_do_not_divide_fall_back(columns: int, recipe: str, expected: str) -> None:
    found = choose(recipe, tensors(columns=columns), config())
    assert found["blk.5.ffn_up.weight"] == expected


def test_options_depart_from_the_recipe() -> None:
    options = Options({r"blk\.1\.": "Q8_0"}, embedding="F16", output="Q5_1")
    found = choose("Q4_K_M", tensors(), config(), options=options)
    assert found["blk.1.attn_q.weight"] == "Q8_0"
    assert found["blk.1.attn_norm.weight"] == "F32"
    assert found["blk.10.attn_q.weight"] == "Q4_K"
    assert (found["token_embd.weight"], found["output.weight"]) == ("F16", "Q5_1")
    pure = choose("Q4_K_M", tensors(), config(), options=Options(pure=True))
    assert {pure["output.weight"], *(pure[n] for n in pure if "ffn_down" in n)} == {"Q4_K"}


def test_affine_formats_are_for_the_blocks_matrices() -> None:
    found = choose("asym3-g64", tensors(), config())
    linear = {name for name, format_ in found.items() if format_ == "asym3-g64"}
    assert linear == {n for n in found if re.search(r"blk.*(attn_[qkvo]|ffn_[gud]).*weight", n)}
    assert found["token_embd.weight"] == "BF16"


def test_a_format_without_a_smaller_one_is_refused() -> None:
    for recipe in ("Q1_0", "NVFP4"):
        with pytest.raises(FormatError, match="rows of 96 elements are not a multiple of") as error:
            choose(recipe, tensors(columns=96), config())
        assert "token_embd.weight" in str(error.value)
    options = Options(embedding="Q6_K")
    with pytest.raises(FormatError, match=r"cannot store `token_embd\.weight` as Q6_K"):
        choose("Q4_0", tensors(columns=96), config(), options=options)


@pytest.mark.parametrize(
    ("recipe", "name"),
    [("Q2_K_S", "blk.0.attn_k.weight"), ("IQ2_M", "blk.0.attn_k.weight"),
     ("IQ3_XXS", "blk.0.attn_k.weight"), ("IQ1_S", "blk.0.attn_k.weight"),
     ("IQ3_XS", "blk.0.attn_k.weight"), ("Q4_0", "blk.7.ffn_up.weight")],
)  # fmt: skip
def test_formats_that_need_importance(recipe: str, name: str) -> None:
    options = Options({r"blk\.7\.ffn_up": "IQ3_XXS"})
    message = f"cannot store `{name}` as .* in {recipe} without an importance matrix"
    with pytest.raises(FormatError, match=message) as e:
        choose(recipe, tensors(), config(), options=options)
    assert "llama-imatrix -m MODEL -f TEXT" in str(e.value)
    choose(recipe, tensors(), config(), options=options, importance=list(tensors()))


def test_a_tensor_that_is_copied_needs_no_importance() -> None:
    name = "blk.0.ffn_up.weight"
    stored = tensors() | {name: Shape((256, 256), "IQ2_XXS")}
    rest = [other for other in stored if other != name]
    assert choose("IQ2_XXS", stored, config(), importance=rest)[name] == "IQ2_XXS"
    with pytest.raises(FormatError, match=name):
        choose("IQ2_XXS", tensors(), config(), importance=rest)


def test_importance_is_used() -> None:
    everything = list(tensors())
    assert chosen("Q4_0", "ffn_down", importance=everything)[:3] == ["Q4_1", "Q4_1", "Q4_0"]
    assert set(chosen("Q2_K_S", "ffn_up", importance=everything)) == {"Q2_K"}
    assert chosen("IQ4_XS", "ffn_down")[:3] == ["Q5_K", "Q5_K", "IQ4_XS"]
    assert chosen("IQ4_XS", "ffn_down", importance=everything)[:2] == ["IQ4_XS", "IQ4_XS"]


def test_experts() -> None:
    """Expert tensors are quantized, the router is not, and attention gets more bits."""
    found = tensors(4) | {
        "blk.0.ffn_up_exps.weight": Shape((8, 256, 256)),
        "blk.0.ffn_gate_inp.weight": Shape((8, 256)),
        "blk.0.ffn_gate_inp_shexp.weight": Shape((1, 256)),
    }
    chosen = choose("MXFP4_MOE", found, config(4, experts=8))
    assert chosen["blk.0.ffn_up_exps.weight"] == "MXFP4"
    assert chosen["blk.0.ffn_up.weight"] == chosen["output.weight"] == "Q8_0"
    assert (
        chosen["blk.0.ffn_gate_inp.weight"] == chosen["blk.0.ffn_gate_inp_shexp.weight"] == "BF16"
    )
    small = choose("Q3_K_S", found, config(4, experts=8))
    names = ("attn_q", "attn_k", "attn_v", "attn_output")
    formats = [small[f"blk.1.{name}.weight"] for name in names]
    assert formats == ["Q3_K", "Q8_0", "Q8_0", "Q5_K"]
    with pytest.raises(FewbitError, match="is not in one of 4 layers"):
        choose("Q4_0", found | {"blk.4.ffn_up.weight": Shape((256, 256))}, config(4, experts=8))


def test_layers_of_two_kinds_share_a_counter() -> None:
    """Q3_K_M gives the first two V matrices more bits; fused q, k, v count as V."""
    found = tensors(4)
    for i in (0, 2, 3):
        for name in ("attn_q", "attn_k", "attn_v"):
            del found[f"blk.{i}.{name}.weight"]
        found[f"blk.{i}.attn_qkv.weight"] = Shape((512, 256))
    formats = choose("Q3_K_M", dict(reversed(found.items())), config(4))
    kinds = [formats[f"blk.{i}.attn_{'v' if i == 1 else 'qkv'}.weight"] for i in range(4)]
    assert kinds == ["Q5_K", "Q5_K", "Q4_K", "Q4_K"]
    assert list(formats) == list(reversed(found))


@pytest.mark.parametrize("name", FILE_TYPES)
def test_names_in_any_case(name: str) -> None:
    assert canonical(name.lower()) == name
    assert main_format(name) in FORMATS
    assert recipes.file_type(name.lower()) == FILE_TYPES[name]


def test_formats_that_are_no_file_type() -> None:
    assert set(choose("nvfp4", tensors(), config()).values()) == {"NVFP4", "Q6_K", "F32"}
    assert (recipes.file_type("NVFP4"), recipes.file_type("sym4-g32")) == (39, None)
    assert [canonical(name) for name in ("q3_k", "q4_k", "q5_k")] == ["Q3_K_M", "Q4_K_M", "Q5_K_M"]


def test_unknown_names_are_refused() -> None:
    for call in (
        lambda: canonical("Q9_9"),
        lambda: choose("Q4_0", tensors(), config(), options=Options({"a": "Q9_9"})),
        lambda: choose("Q4_0", tensors(), config(), options=Options(embedding="Q9_9")),
    ):
        with pytest.raises(FewbitError, match="`Q9_9`"):
            call()
    with pytest.raises(InputError, match="not a regular expression"):
        choose("Q4_0", tensors(), config(), options=Options({"(": "Q8_0"}))
