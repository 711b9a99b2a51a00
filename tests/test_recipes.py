"""Recipes by hand; tests/peers holds them to llama-quantize itself."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from fewbit import recipes
from fewbit.config import Config
from fewbit.errors import FewbitError, FormatError, InputError
from fewbit.formats import FORMATS
from fewbit.recipes import Options, canonical, choose, main_format


@dataclass(frozen=True)
class Shape:
    shape: tuple[int, ...]
    format: str = "BF16"


def config(layers: int = 16, heads: int = 8, kv_heads: int = 2) -> Config:
    return Config("llama", 512, layers, 256, 512, heads, kv_heads, 32, 1e-5, 512)


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
     (128, "Q3_K_S", "Q4_0"), (100, "Q4_K_S", "F16"), (100, "Q8_0", "F16")],
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


def test_importance_is_demanded_and_used() -> None:
    with pytest.raises(FormatError, match="Q2_K needs an importance matrix"):
        choose("Q2_K_S", tensors(), config())
    everything = list(tensors())
    assert chosen("Q4_0", "ffn_down", importance=everything)[:3] == ["Q4_1", "Q4_1", "Q4_0"]
    assert set(chosen("Q2_K_S", "ffn_up", importance=everything)) == {"Q2_K"}


@pytest.mark.parametrize("name", recipes.FILE_TYPES)
def test_names_in_any_case(name: str) -> None:
    assert canonical(name.lower()) == name
    assert main_format(name) in FORMATS
    assert name.startswith(recipes.MAIN.get(name, main_format(name))[:3])


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
