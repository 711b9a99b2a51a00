"""The core's table of formats against the oracle's blocks and the `gguf` package's types."""

from __future__ import annotations

import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from fewbit import FORMATS, _core, find_format
from reference.blocks import BLOCKS
from reference.formats import FLOAT_ROWS, encode_row, groups_of, is_float, row_bytes

TABLE = {info.name: info for info in _core.formats()}
UNRELEASED = {"Q2_0": 42}
"""Types of llama.cpp that no release of the `gguf` package names."""


def test_the_table_has_the_oracles_formats() -> None:
    assert set(TABLE) == {"F32", *FLOAT_ROWS, *BLOCKS}
    assert len(_core.formats()) == len(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_blocks_are_ggufs(name: str) -> None:
    info = TABLE[name]
    if name in UNRELEASED and name not in GGMLQuantizationType.__members__:
        assert info.gguf_id == UNRELEASED[name]
        return
    known = GGMLQuantizationType[name]
    assert info.gguf_id == known
    assert (info.block, info.bytes) == GGML_QUANT_SIZES[known]


@pytest.mark.parametrize("name", TABLE)
def test_facts_are_the_oracles(name: str) -> None:
    info = TABLE[name]
    assert info.bytes == row_bytes(name, info.block)
    assert is_float(name) == (info.family == "floats")
    if is_float(name):
        assert (info.block, info.scale_group, info.activation_group) == (1, None, None)
        return
    assert info.block == BLOCKS[name].block
    assert info.needs_importance == BLOCKS[name].needs_importance
    x = [float(i % 7 - 3) for i in range(info.block)]
    groups = groups_of(encode_row(x, name, [1.0] * info.block), name, info.block)
    levels, _, minimum, shared = groups[0]
    assert info.scale_group == len(levels)
    assert info.has_minimum == (minimum is not None)
    assert info.activation_group == (32 if shared is None else 256)


@pytest.mark.parametrize("name", TABLE)
def test_python_holds_the_same(name: str) -> None:
    info, format_ = TABLE[name], FORMATS[name]
    for fact in vars(format_):
        assert getattr(format_, fact) == getattr(info, fact)


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("sym4-g32", (32, False, 32)),
        ("asym5-g16", (16, True, 32)),
        ("sym2-g64", (64, False, 32)),
        ("asym8-g40", (40, True, None)),
    ],
)
def test_affine_formats_follow_their_names(name: str, facts: tuple[int, bool, int | None]) -> None:
    found = find_format(name)
    assert (found.scale_group, found.has_minimum, found.activation_group) == facts
    assert (found.gguf_id, found.larger_than_file) == (None, False)
