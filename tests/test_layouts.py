"""Block layouts: they cover every byte of a block, and decode it as core and reference do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import fewbit
from fewbit import _core
from fewbit.cli import main as cli
from fewbit.errors import FormatError, InputError
from fewbit.files.checkpoint import open_checkpoint
from fewbit.formats.blocks import read_block, scales_of, values_of
from fewbit.formats.layouts import LAYOUTS, layout_of
from fewbit.formats.table import FORMATS, find_format
from fewbit.recipes.choose import Options
from fewbit.reports import contents as inspect_file
from reference import formats as oracle
from reference import iq, iq1
from tests.compare import same_bits

AFFINE = ("sym1-g8", "sym3-g5", "sym4-g32", "asym4-g32", "asym8-g64", "asym3-g7")
NAMES = (*FORMATS, *AFFINE)
NUMERIC = [n for n in NAMES if find_format(n).family not in ("floats", "grid")]
PURE = Options(pure=True)
GRIDS = [n for n in FORMATS if find_format(n).family == "grid"]


def finite_blocks(name: str, count: int = 8) -> list[np.ndarray]:
    """Random blocks whose values are all finite."""
    random, format_, found = np.random.default_rng(7), find_format(name), []
    while len(found) < count:
        block = random.integers(0, 256, format_.bytes, np.uint8)
        if np.isfinite(_core.decode(block[None], name, format_.block)).all():
            found.append(block)
    return found


def test_every_format_has_a_layout() -> None:
    assert list(FORMATS) == [name for name in FORMATS if name in LAYOUTS]
    assert set(LAYOUTS) == set(FORMATS)


@pytest.mark.parametrize("name", NAMES)
def test_fields_cover_the_block(name: str) -> None:
    format_ = find_format(name)
    fields = layout_of(format_).fields
    edges = [0, *(place.stop for place in fields)]
    assert [place.start for place in fields] == edges[:-1]
    assert edges[-1] == format_.bytes
    for place in fields:
        assert sum(bits.width * bits.count for bits in place.bits) == place.word


@pytest.mark.parametrize("name", NUMERIC)
def test_fields_and_formula_decode_as_the_core_does(name: str) -> None:
    columns = find_format(name).block
    for block in finite_blocks(name):
        values = values_of(read_block(block, name), name)
        assert values is not None
        same_bits(values, _core.decode(block[None], name, columns)[0], name)
        same_bits(values, np.array(oracle.decode_row(block.tobytes(), name, columns), np.float32))


@pytest.mark.parametrize("name", GRIDS)
def test_indices_of_grids_are_the_oracles(name: str) -> None:
    unpack = {"IQ1_S": iq1.unpack_iq1_s, "IQ1_M": iq1.unpack_iq1_m}.get(name)
    for block in finite_blocks(name):
        numbers, data = read_block(block, name), block.tobytes()
        stored = unpack(data) if unpack else iq.LAYOUTS[name][1](data)
        assert numbers["indices"].tolist() == stored.indices
        assert numbers["scales"].tolist() == stored.scales
        if not unpack:
            seven = 255 if name in ("IQ2_S", "IQ3_S") else 127  # the others store no eighth sign
            assert numbers["signs"].tolist() == [signs & seven for signs in stored.signs]


@pytest.mark.parametrize("name", GRIDS)
def test_scales_of_grids_are_the_oracles(name: str) -> None:
    for block in finite_blocks(name):
        numbers = read_block(block, name)
        groups = oracle.groups_of(block.tobytes(), name, 256)
        scales, _ = scales_of(numbers, name)
        eighth = 8 if name.startswith("IQ1") else 1  # the oracle counts IQ1's levels in eighths
        same_bits(scales, np.array([g.scale * eighth for g in groups], np.float32), name)
        assert len(numbers["indices"]) * (4 if name.startswith("IQ3") else 8) == 256
        assert values_of(numbers, name) is None


@pytest.mark.parametrize("name", NAMES)
def test_every_format_is_explained(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    format_ = find_format(name)
    assert cli.run(["formats", name.lower()]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{name}: {format_.block} elements in {format_.bytes} bytes, ")
    assert layout_of(format_).formula in text
    assert cli.run(["formats", name, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bits_per_weight"] == format_.bits_per_weight
    assert found["fields"][-1]["stop"] == format_.bytes


def test_the_text_of_a_layout(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["formats", "Q5_0"]) == 0
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "Q5_0: 32 elements in 22 bytes, 5.5 bits per weight",
        "  value = d * (code - 16)",
        "  stored as d f16; all others as unsigned integers",
        "",
        "bytes  field  bits",
        "─" * len("6..21  codes  32 x 4 bits of codes, 16 elements apart"),
        "0..1   d      16 bits of d",
        "2..5   codes  32 x 1 bit of codes above its low 4",
        "6..21  codes  32 x 4 bits of codes, 16 elements apart",
    ]


def test_unknown_formats_are_refused() -> None:
    with pytest.raises(FormatError, match="unknown format `Q9`"):
        inspect_file.explain("Q9")


@pytest.mark.parametrize("name", ["Q4_K", "IQ3_S", "Q4_1", "NVFP4"])
def test_a_block_of_a_file_is_decoded(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "m.gguf"
    fewbit.load(fewbit.DEMO).quantize(name, options=PURE).save(file)
    command = ["inspect", str(file), "--tensor", "blk.1.ffn_down.weight", "--block"]
    block, index = find_format(name).block, 7
    assert cli.run([*command, str(index), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    tensor = open_checkpoint(file).read("blk.1.ffn_down.weight")
    stored = tensor.data.ravel()[index * find_format(name).bytes :][: find_format(name).bytes]
    assert "".join(place["hex"] for place in found["fields"]) == stored.tobytes().hex()
    values = np.array(oracle.decode_row(stored.tobytes(), name, block), np.float32)
    same_bits(np.array(found["values"], np.float32), values, name)
    row, column = divmod(index * block, 768)
    assert (found["row"], found["column"]) == (row, column)
    assert cli.run([*command, str(index)]) == 0
    place = f"block 7 of {768 * 256 // block:,}: row {row}, columns {column} to "
    assert place in capsys.readouterr().out


def test_the_last_group_of_a_row_may_be_short() -> None:
    x = np.linspace(-1, 1, 80, dtype=np.float32).reshape(2, 40)
    array = fewbit.quantize(x, "asym4-g32")
    found = inspect_file.block("w", "asym4-g32", array.data, 40, 3)
    assert (found.row, found.column, found.blocks, len(found.values)) == (1, 32, 4, 8)
    same_bits(np.array(found.values, np.float32), array.dequantize()[1, 32:])


@pytest.mark.parametrize("index", [-1, 4])
def test_a_block_out_of_range_is_refused(index: int) -> None:
    array = fewbit.quantize(np.zeros((2, 64), np.float32), "Q8_0")
    with pytest.raises(InputError) as caught:
        inspect_file.block("w", "Q8_0", array.data, 64, index)
    assert caught.value.message == f"`w` has no block {index}"
    assert caught.value.hint == "it has 4 of Q8_0: 0 to 3"
