"""Refusals of `fewbit verify`: another source, values that cannot be stored, wrong options."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import fewbit
from tests.golden.loading import MODELS
from tests.saved_llama import LLAMA, TENSOR


def refused(*arguments: Any, **options: Any) -> tuple[str, str, str | None]:
    with pytest.raises(fewbit.FewbitError) as caught:
        fewbit.verify(*arguments, **options)
    return type(caught.value).__name__, caught.value.message, caught.value.hint


def test_another_source_is_refused(saved: Callable[[str], Path]) -> None:
    path, hint = saved("Q8_0"), "name the model that the file was quantized from"
    other = MODELS / "mistral-swa"
    assert refused(path, other) == (
        "ShapeError",
        f"`{path}` is not made from `{other}`: "
        "`output.weight` is 320 x 256 in the file and 384 x 64 in the source",
        hint,
    )


def of_layers(count: int, folder: Path) -> Path:
    """The golden llama with so many layers, the third a copy of the second."""
    shutil.copytree(LLAMA, folder)
    tensors = load_file(LLAMA / "model.safetensors")
    for name in [name for name in tensors if ".layers.1." in name]:
        tensors[name.replace(".layers.1.", ".layers.2.")] = tensors[name].copy()
    beyond = [f".layers.{layer}." for layer in range(count, 3)]
    left = {n: t for n, t in tensors.items() if not any(layer in n for layer in beyond)}
    save_file(left, folder / "model.safetensors")
    config = json.loads((LLAMA / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": count}))
    return folder


@pytest.mark.parametrize(("layers", "lacks"), [(1, "source"), (3, "file")])
def test_a_tensor_that_is_missing(
    layers: int, lacks: str, saved: Callable[[str], Path], tmp_path: Path
) -> None:
    path, folder = saved("Q8_0"), of_layers(layers, tmp_path / "m")
    kind, message, hint = refused(path, folder)
    assert kind == "InputError"
    block = min(layers, 2)
    start = f"`{path}` is not made from `{folder}`: the {lacks} has no tensor `blk.{block}."
    assert message.startswith(start)
    assert hint == "name the model that the file was quantized from"
    assert fewbit.verify(path, folder, tensor=r"blk\.0\.").ok, "those that are named are there"


def test_a_source_that_cannot_be_stored(
    saved: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is counted in the tensor, not among those that are encoded at once."""
    shutil.copytree(LLAMA, tmp_path / "m")
    tensors = load_file(LLAMA / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"][191, 5] = np.nan
    save_file(tensors, tmp_path / "m" / "model.safetensors")
    kind, message, _ = refused(saved("Q8_0"), tmp_path / "m", rows=5)
    assert (kind, message) == (
        "FormatError",
        f"tensor `{TENSOR}`: row 191 of the source is not finite, Q8_0 cannot store it",
    )


def test_formats_that_need_importance(saved: Callable[[str], Path]) -> None:
    kind, message, hint = refused(saved("IQ2_XS"), LLAMA)
    assert kind == "FormatError"
    assert message.endswith("IQ2_XS needs an importance matrix")
    assert hint is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tensor": "nose"}, "no tensor matches `nose`"),
        ({"tensor": "["}, "`[` is not a regular expression: unterminated character set"),
        ({"rows": 0}, "cannot check 0 rows of each tensor"),
    ],
)
def test_options(options: dict[str, Any], message: str, saved: Callable[[str], Path]) -> None:
    assert refused(saved("Q8_0"), **options)[1].startswith(message)


def test_a_truncated_file_is_refused(saved: Callable[[str], Path], tmp_path: Path) -> None:
    path = tmp_path / "short.gguf"
    path.write_bytes(saved("Q8_0").read_bytes()[:-400])
    assert refused(path)[0] == "FileFormatError"
