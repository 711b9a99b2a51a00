"""`fewbit float` and `fewbit round`: the article's numbers, and wrong use."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fewbit
from fewbit.errors import FewbitError, InputError
from reference import affine
from tests.cli.running import Fewbit

SIX = ("-0.89", "0.16", "0.08", "-0.13", "0.16", "-0.54")
X = [float(x) for x in SIX]
lists = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40)


def test_float_shows_bits_beside_each_other(fewbit: Fewbit) -> None:
    ended = fewbit("float", "-1.5", "--as", "f32,bf16,float8,float4,e3m2,u4")
    assert (ended.code, ended.err) == (0, "")
    rows = [line.split() for line in ended.out.splitlines()[2:8]]
    assert rows[1] == [
        "bfloat16",
        "1",
        "01111111",
        "1000000",
        "-1.5",
        "0",
        "-1.5078125",
        "-1.4921875",
    ]
    assert rows[3] == ["float4", "1", "01", "1", "-1.5", "0", "-2", "-1"]
    assert rows[5] == ["u4", "0000", "0", "1.5", "none", "1"]


def test_float_counts(fewbit: Fewbit) -> None:
    ended = fewbit("float", "--as", "f32", "--between", "-0.5,0.5", "--json")
    assert ended.json["numbers"] == []
    assert ended.json["formats"][0]["between"] == 2_113_929_216


def test_several_numbers(fewbit: Fewbit) -> None:
    ended = fewbit("float", "0.1,-2", "1e30", "--as", "float4")
    assert [line.split()[:2] for line in ended.out.splitlines()[2:5]] == [
        ["0.1", "float4"], ["-2", "float4"], ["1e+30", "float4"],
    ]  # fmt: skip
    assert "inf" in ended.out


def test_round_prints_the_tables_of_the_article(fewbit: Fewbit) -> None:
    ended = fewbit("round", *SIX)
    assert (ended.code, ended.err) == (0, "")
    assert "average error 18.0 %" in ended.out
    assert "average error 8.5 %" in ended.out
    assert "block 0: scale 0.07, zero point 5" in ended.out
    sym, asym = fewbit("round", *SIX, "--json").json["lists"]
    assert sym["blocks"][0]["codes"] == [-7, 1, 1, -1, 1, -4]
    assert asym["blocks"][0]["codes"] == [-8, 7, 6, 3, 7, -3]


def test_the_outlier_of_the_article() -> None:
    """Codes -8 and zero point -7 mean -0.726: the sign is negative."""
    (found,) = fewbit.round_numbers([*X, 10.0], ["asym4"]).lists
    assert found.values[0] == pytest.approx(-0.726)
    assert found.values[5] == pytest.approx(-0.726)
    assert f"{found.mean_relative:.1%}" == "64.9%"
    (apart,) = fewbit.round_numbers([*X, 10.0], ["asym4"], outliers=1).lists
    assert apart.values[6] == 10
    assert apart.kept == (6,)
    assert apart.values[:6] == fewbit.round_numbers(X, ["asym4"]).lists[0].values
    assert apart.bits_per_weight == pytest.approx(4 + 40 / 7 + 64 / 7)
    (blocks,) = fewbit.round_numbers([*X, 10.0], ["asym4"], block=6).lists
    assert blocks.values == (*apart.values[:6], 10.0)


def test_the_small_network() -> None:
    formats = ["bf16", "float8", "float4", "sym4", "asym4"]
    found = fewbit.round_numbers(X, formats, network=(1, 3, 1), inputs=[2.5]).network
    assert found[0].outputs[0] == pytest.approx(2.5 * (0.89 * 0.13 + 0.16**2 - 0.08 * 0.54))
    assert [f"{n.relative:.1%}" for n in found[1:]] == ["0.1%", "8.4%", "100.0%", "34.1%", "9.9%"]
    assert found[3].outputs[0] == 0


def test_one_line_per_format(fewbit: Fewbit) -> None:
    ended = fewbit("round", *SIX, "--as", "float4,asym4", "--network", "1,3,1", "--brief")
    rows = [line.split() for line in ended.out.splitlines()[2:]]
    assert rows[0] == ["as", "given", "0.0981", "0.0", "%"]
    assert rows[2] == ["asym4", "10.67", "8.5", "%", "0.1078", "9.9", "%"]
    lines = fewbit("round", *SIX, "--as", "float4,asym4", "--brief").out.splitlines()
    assert lines[3].split() == ["asym4", "10.67", "8.5", "%"]


@given(lists, st.integers(2, 8), st.integers(1, 9))
def test_blocks_are_those_of_the_oracle(x: list[float], bits: int, block: int) -> None:
    sym, asym = fewbit.round_numbers(x, [f"sym{bits}", f"asym{bits}"], block).lists
    for start in range(0, len(x), block):
        piece = x[start : start + block]
        if max(piece) > min(piece) and (max(piece) - min(piece)) > 1e-300:
            codes, scale, zero = affine.asymmetric(piece, bits)
            at = asym.blocks[start // block]
            assert (at.scale, at.zero) == (scale, zero)
            n = 2 ** (bits - 1)
            assert at.codes == tuple(min(max(c, -n), n - 1) for c in codes)
        if max(map(abs, piece)) > 1e-300:
            codes, scale = affine.symmetric(piece, bits)
            assert sym.blocks[start // block].codes == tuple(codes)
            assert sym.blocks[start // block].scale == scale
        elif not any(piece):
            assert sym.values[start : start + block] == tuple(0.0 for _ in piece)


@given(st.floats(-1e6, 1e6), st.integers(1, 5), st.integers(1, 8))
def test_equal_numbers_are_exact(x: float, count: int, bits: int) -> None:
    (found,) = fewbit.round_numbers([x] * count, [f"asym{bits}"]).lists
    assert found.values == (x,) * count


@pytest.mark.parametrize("name", ["Q4_0", "Q6_K", "IQ2_S", "F16", "asym4-g4", "sym1-g8", "MXFP4"])
def test_stored_formats_are_those_of_quantize(name: str) -> None:
    x = np.linspace(-2, 3, 40)
    (found,) = fewbit.round_numbers(x.tolist(), [name], outliers=0).lists
    wide = np.zeros((1, 256 if "-g" not in name else 40), np.float32)
    wide[0, :40] = x
    np.testing.assert_array_equal(
        np.float32(found.values), fewbit.quantize(wide, name).dequantize()[0, :40]
    )
    if found.blocks and name != "MXFP4" and found.blocks[0].codes:
        codes = np.array([c for b in found.blocks for c in b.codes or ()])
        scales = np.repeat([b.scale for b in found.blocks], found.block or 1)[:40]
        zeros = np.repeat([b.zero or 0 for b in found.blocks], found.block or 1)[:40]
        np.testing.assert_allclose(found.values, scales * (codes - zeros), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("float", "x"), "`x` is not a number"),
        (("float", "1", "--as", "float7"), "unknown number format `float7`"),
        (("float", "nan", "--as", "f32"), "NaN has no neighbours"),
        (("float", "1", "--between", "2,1"), "begins below its end"),
        (("float", "1", "--between", "1"), "is not two numbers"),
        (("float", "1", "--as", ","), "names no format"),
        (("round", "--as", "sym4"), "no numbers to round"),
        (("round", "inf"), "numbers to round are finite"),
        (("round", "1", "--as", "sym1"), "sym1 has no code above 0"),
        (("round", "1", "--as", "Q4_5"), "unknown format `Q4_5`"),
        (("round", "1000", "--as", "float4"), "float4 ends at 3"),
        (("round", "1", "--outliers", "2"), "2 outliers of 1 numbers"),
        (("round", "1", "2", "--network", "1,3,1"), "has 6 parameters and 1 inputs"),
        (("round", "1", "2", "--network", "1,-2"), "a network of layers"),
        (("round", "1", "--network", "1.5,1"), "whole numbers"),
    ],
)
def test_wrong_use(fewbit: Fewbit, arguments: tuple[str, ...], message: str) -> None:
    ended = fewbit(*arguments)
    assert ended.code == 1
    assert ended.out == ""
    assert message in ended.err
    assert "hint:" in ended.err


def test_an_option_that_does_not_exist(fewbit: Fewbit) -> None:
    ended = fewbit("round", "1", "--blok", "2")
    assert ended.code == 2
    assert "did you mean `--block`" in ended.err


def test_wrong_use_in_python() -> None:
    with pytest.raises(InputError, match="no format named"):
        fewbit.represent([1.0], [])
    with pytest.raises(InputError, match="not numbers"):
        fewbit.represent(["a"], ["f32"])  # type: ignore[list-item]
    with pytest.raises(FewbitError):
        fewbit.round_numbers([math.nan], ["sym4"])
    with pytest.raises(InputError, match="not numbers"):
        fewbit.round_numbers(["a"], ["sym4"])  # type: ignore[list-item]
    with pytest.raises(InputError, match="at least one number"):
        fewbit.round_numbers([1.0], ["sym4"], block=0)
