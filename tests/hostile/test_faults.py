"""Odd values in models' files that have once led to something else than an error of fewbit."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fewbit
from fewbit.files.gguf import fields_of
from fewbit.files.gguf_types import GGUFValueType
from fewbit.files.safetensors import read_safetensors
from fewbit.plan.plan import attribute_texts
from fewbit.recipes.order import sort_key
from fewbit.tokenizer.pieces import merges_of
from tests.golden.loading import MODELS
from tests.hostile.gguf_file import ARRAY, TEXT, Gguf, parse

Change = Callable[[dict[str, Any]], object]


def folder_with(tmp_path: Path, model: str, **changes: Change) -> Path:
    """A copy of a golden model whose JSON files, by their names, are changed."""
    folder = tmp_path / "m"
    shutil.copytree(MODELS / model, folder)
    for name, change in changes.items():
        file = folder / f"{name}.json"
        document = json.loads(file.read_text("utf-8"))
        change(document)
        file.write_text(json.dumps(document), "utf-8")
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("faults") / "llama.gguf"
    fewbit.load(MODELS / "llama", "cpu", threads=1).save(path)
    return path.read_bytes()


def gguf_with(tmp_path: Path, data: bytes, *fields: tuple[str, int, Any]) -> Path:
    """A file with these fields put in or exchanged."""
    file: Gguf = parse(data)
    for key, type_, value in fields:
        file.fields = [found for found in file.fields if found[0] != key.encode()]
        file.fields.append([key.encode(), type_, value])
    path = tmp_path / "m.gguf"
    path.write_bytes(file.to_bytes())
    return path


FLOAT, U32, U64 = 6, 4, 10


def test_a_rope_base_of_zero(llama: bytes, tmp_path: Path) -> None:
    path = gguf_with(tmp_path, llama, ("llama.rope.freq_base", FLOAT, 0.0))
    with pytest.raises(fewbit.FileFormatError, match="no finite frequencies: base"):
        fewbit.load(path, "cpu")


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "yarn", "factor": 4.0, "beta_fast": 0},
        {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1},
        {"rope_type": "linear", "factor": 1e-320},
    ],
)
def test_scalings_without_finite_frequencies(scaling: dict[str, Any], tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "llama", config=lambda c: c.update(rope_scaling=scaling))
    with pytest.raises(fewbit.FileFormatError, match=r"no finite frequencies|number of 0 or more"):
        fewbit.load(folder, "cpu")


def test_longrope_within_one_token(tmp_path: Path) -> None:
    folder = folder_with(
        tmp_path, "phi3-longrope", config=lambda c: c.update(original_max_position_embeddings=1)
    )
    with pytest.raises(fewbit.FileFormatError, match="must be an integer of 2 or more, found 1"):
        fewbit.load(folder, "cpu")


@pytest.mark.parametrize("value", [[float("nan")] * 16, [10**400] * 16, [None], "x"])
def test_factors_that_are_no_numbers(value: Any, tmp_path: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        section = config.get("rope_scaling") or config["rope_parameters"]
        section["short_factor"] = value

    folder = folder_with(tmp_path, "phi3-longrope", config=change)
    with pytest.raises(fewbit.FileFormatError, match="`short_factor` must be a list of numbers"):
        fewbit.load(folder, "cpu")


def test_a_query_scale_of_zero(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "gemma3-alt", config=lambda c: c.update(query_pre_attn_scalar=0))
    with pytest.raises(fewbit.FileFormatError, match="must be a number above 0"):
        fewbit.load(folder, "cpu")


@pytest.mark.parametrize("layers", [1e9, 2**31 - 1, 1e300])
def test_layers_are_counted_before_anything_runs_to_them(layers: float, tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "llama", config=lambda c: c.update(num_hidden_layers=layers))
    with pytest.raises(fewbit.FileFormatError, match="layers"):
        fewbit.load(folder, "cpu")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("linear_num_value_heads", 2**31 - 1),
        ("linear_num_value_heads", 3),
        ("linear_num_key_heads", 2**31 - 1),
        ("linear_value_head_dim", 2**31 - 1),
    ],
)
def test_heads_of_the_delta_rule_that_are_not_those_of_the_tensors(
    key: str, value: int, tmp_path: Path
) -> None:
    def change(config: dict[str, Any]) -> None:
        (config.get("text_config") or config)[key] = value

    folder = folder_with(tmp_path, "qwen3_5-hub", config=change)
    with pytest.raises(fewbit.FileFormatError, match=r"by the configuration|do not divide"):
        fewbit.load(folder, "cpu")


def with_header(tmp_path: Path, model: str, change: Change) -> Path:
    """A copy of a golden model with another header of its safetensors file."""
    folder = folder_with(tmp_path, model)
    file = folder / "model.safetensors"
    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])
    return folder


@pytest.mark.parametrize(
    "model", ["llama", "gpt2", "gpt_oss-mxfp4", "qwen3_5-hub", "phi3-longrope"]
)
@pytest.mark.parametrize("axes", [1, 2, 5])
def test_tensors_with_other_axes(axes: int, model: str, tmp_path: Path) -> None:
    def change(header: dict[str, Any]) -> None:
        for name, facts in header.items():
            if name != "__metadata__":
                facts["shape"] = [*[1] * (axes - 1), int(np.prod(facts["shape"]))]

    with pytest.raises(fewbit.FewbitError):
        fewbit.load(with_header(tmp_path, model, change), "cpu", threads=1).logits([0])


def test_a_scalar_in_place_of_a_matrix(tmp_path: Path) -> None:
    def change(header: dict[str, Any]) -> None:
        for facts in header.values():
            if len(facts.get("shape", [])) == 2:
                size = 4 if facts["dtype"] == "F32" else 2
                facts["shape"], start = [], facts["data_offsets"][0]
                facts["data_offsets"] = [start, start + size]

    with pytest.raises(fewbit.FewbitError):
        fewbit.load(with_header(tmp_path, "qwen3_5-hub", change), "cpu")


def test_a_digit_that_is_no_decimal_digit_in_a_name() -> None:
    assert sort_key("blk.².x")[0] == sort_key("blk." + "9" * 5000 + ".x")[0] == -1
    assert sort_key("blk.12.x")[0] == 12


def test_an_expert_number_of_5000_digits(tmp_path: Path) -> None:
    def change(header: dict[str, Any]) -> None:
        name = f"model.layers.0.mlp.experts.{'9' * 5000}.up_proj.weight"
        header[name] = header.pop("model.layers.0.mlp.up_proj.weight")

    with pytest.raises(fewbit.FewbitError, match="unexpected tensor"):
        fewbit.load(with_header(tmp_path, "llama", change), "cpu")


def test_a_header_that_the_library_and_python_read_differently(tmp_path: Path) -> None:
    facts = '{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
    text = ('{"a":' + facts + ',"a":' + facts + "}").encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with suppress(fewbit.FileFormatError):
        assert read_safetensors(path)["a"].data.size == 8


@pytest.mark.parametrize("id_", [-1, 2**32, 2**64, 10**30, True, 1.5, "x"])
def test_special_ids_that_are_no_ids(id_: Any, tmp_path: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["bos_token_id"] = config["eos_token_id"] = id_

    def unnamed(settings: dict[str, Any]) -> None:
        settings["bos_token"] = settings["eos_token"] = None

    folder = folder_with(
        tmp_path, "llama", config=change, generation_config=change, tokenizer_config=unnamed
    )
    model = fewbit.load(folder, "cpu", threads=1)
    assert (model.tokenizer.bos, model.tokenizer.eos) == (None, None)
    assert all(0 <= id_ < 1 << 32 for id_ in model.tokenizer.stop_ids)
    model.save(tmp_path / "m.gguf")


def test_end_ids_beyond_the_vocabulary_are_not_saved(tmp_path: Path) -> None:
    ids = [5, 2**31, 2**32 - 1, 6, 7, 8]
    folder = folder_with(tmp_path, "llama", generation_config=lambda c: c.update(eos_token_id=ids))
    fewbit.load(folder, "cpu", threads=1).save(tmp_path / "m.gguf")
    found = fewbit.load(tmp_path / "m.gguf", "cpu", threads=1)
    assert found.tokenizer.stop_ids >= {5, 6, 7, 8}
    assert max(found.tokenizer.stop_ids) < found.config.vocab


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (("tokenizer.fewbit.end_token_ids", U32, 5), set()),
        (("tokenizer.fewbit.end_token_ids", TEXT, b"abc"), set()),
        (("tokenizer.fewbit.end_token_ids", ARRAY, (U64, [2**40, 3])), {3}),
    ],
)
def test_end_ids_in_gguf(
    field: tuple[str, int, Any], expected: set[int], llama: bytes, tmp_path: Path
) -> None:
    plain = fewbit.load(gguf_with(tmp_path, llama), "cpu").tokenizer.stop_ids
    found = fewbit.load(gguf_with(tmp_path, llama, field), "cpu").tokenizer.stop_ids
    assert found == plain | expected


def test_half_of_a_surrogate_pair(tmp_path: Path) -> None:
    folder = folder_with(
        tmp_path,
        "llama",
        tokenizer_config=lambda c: c.update(eos_token="\ud800", chat_template="a\ud800b"),
    )
    model = fewbit.load(folder, "cpu", threads=1)
    with pytest.raises(fewbit.InputError, match="is not valid UTF-8"):
        model.tokenizer.encode("\ud800")
    model.save(tmp_path / "m.gguf")
    assert fewbit.load(tmp_path / "m.gguf", "cpu").tokenizer.chat_template == "a?b"


def split(pattern: str) -> Change:
    step = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return lambda document: document.update(pre_tokenizer=step)


def replace(times: int) -> Change:
    step = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    return lambda d: d.update(normalizer={"type": "Sequence", "normalizers": [step] * times})


def test_a_pattern_that_backtracks_without_end(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "llama", tokenizer=split("(a+)+$"))
    tokenizer = fewbit.load(folder, "cpu").tokenizer
    with pytest.raises(fewbit.InputError, match="cannot encode the text"):
        tokenizer.encode("a" * 100 + "b")
    assert tokenizer.encode("b")


def test_steps_that_double_a_text_again_and_again(tmp_path: Path) -> None:
    with pytest.raises(fewbit.FileFormatError, match=r"a text 1,099,511,627,776 times longer"):
        fewbit.load(folder_with(tmp_path, "llama", tokenizer=replace(40)), "cpu").tokenizer  # noqa: B018
    shutil.rmtree(tmp_path / "m")
    few = fewbit.load(folder_with(tmp_path, "llama", tokenizer=replace(3)), "cpu").tokenizer
    assert len(few.encode("a" * 10)) > 10


def fixed_length(document: dict[str, Any]) -> None:
    document["pre_tokenizer"] = {"type": "FixedLength", "length": 0}


def bad_prefix(document: dict[str, Any]) -> None:
    document["model"]["continuing_subword_prefix"] = "éé"


def bad_map(document: dict[str, Any]) -> None:
    document["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}


@pytest.mark.parametrize("change", [fixed_length, bad_prefix, bad_map])
def test_panics_of_the_library(change: Change, tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "llama", tokenizer=change)
    with pytest.raises(fewbit.FewbitError, match=r"valid tokenizer|cannot encode"):
        fewbit.load(folder, "cpu").tokenizer.encode("Hello, world")


def test_ids_that_no_vocabulary_has() -> None:
    tokenizer = fewbit.load("demo", "cpu").tokenizer
    for id_ in (-1, 2**32, 2**64):
        assert tokenizer.token(id_) is None
        with pytest.raises(fewbit.InputError, match="token ids must be from 0"):
            tokenizer.decode([id_])


@pytest.mark.parametrize("merge", [b"nospace", b"", b" ", b"a b c"])
def test_merges_that_are_no_pairs(merge: bytes, llama: bytes, tmp_path: Path) -> None:
    path = gguf_with(tmp_path, llama, ("tokenizer.ggml.merges", ARRAY, (TEXT, [merge])))
    with pytest.raises(fewbit.FileFormatError, match="pairs of tokens that join to a token"):
        fewbit.load(path, "cpu").tokenizer  # noqa: B018


@pytest.mark.timeout(20)
def test_a_token_of_a_million_letters_takes_no_time() -> None:
    tokens = ["a", "b", "ab", "a" * 1_000_000]
    assert merges_of(tokens, [0.0] * 4, [1] * 4) == [("a", "b")]


def test_numbers_that_do_not_fit_their_usual_type() -> None:
    values = {"a": 2**40, "b": -(2**40), "c": [1, 2**40], "d": [1, -1], "e": 1, "f": -1}
    T = GGUFValueType  # noqa: N806
    types = {key: (field.type, field.item) for key, field in fields_of(values)}
    assert types == {
        "a": (T.UINT64, None), "b": (T.INT64, None), "c": (T.ARRAY, T.INT64),
        "d": (T.ARRAY, T.INT32), "e": (T.UINT32, None), "f": (T.INT32, None),
    }  # fmt: skip


def test_an_importance_matrix_of_2_to_the_40_windows(tmp_path: Path) -> None:
    data = parse((MODELS / "llama" / "imatrix.gguf").read_bytes())
    for field in data.fields:
        if field[0] == b"imatrix.chunk_count":
            field[1:] = [U64, 2**40]
    path = tmp_path / "imatrix.gguf"
    path.write_bytes(data.to_bytes())
    model = fewbit.load(MODELS / "llama", "cpu", threads=1)
    model.quantize("Q4_0", imatrix=fewbit.read_imatrix(path)).save(tmp_path / "m.gguf")
    fewbit.load(tmp_path / "m.gguf", "cpu")


def test_an_empty_list_of_numbers_is_shown() -> None:
    assert attribute_texts({"freqs": (), "factor": 1.0}) == ["freqs=()", "factor=1.0"]


def test_a_huge_value_does_not_fill_the_message(llama: bytes, tmp_path: Path) -> None:
    values = (U32, list(range(100_000)))
    path = gguf_with(tmp_path, llama, ("llama.attention.head_count", ARRAY, values))
    with pytest.raises(fewbit.FileFormatError, match=r"found \[0, 1, 2") as caught:
        fewbit.load(path, "cpu")
    assert len(caught.value.message) < 1000


def test_a_dat_matrix_that_counts_too_many_tensors(tmp_path: Path) -> None:
    path = tmp_path / "imatrix.dat"
    path.write_bytes(struct.pack("<i", 2**31 - 1))
    with pytest.raises(fewbit.FileFormatError, match="reach beyond the end"):
        fewbit.read_imatrix(path)
