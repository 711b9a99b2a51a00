"""Choose and read the weight files of a Hugging Face folder, and see whether they are quantized."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from fewbit.errors import FileFormatError, UnsupportedError
from fewbit.files.json_file import read_json
from fewbit.files.safetensors import TensorInfo, read_safetensors

MODEL = "model.safetensors"
INDEX = "model.safetensors.index.json"
PATTERN = "model*.safetensors"
"""Files of weights: `consolidated.safetensors`, adapters and the like are no part of the model."""
_BESIDE = re.compile(
    r"\.(qweight|qzeros|scales|g_idx|absmax|nested_absmax|quant_map|nested_quant_map|quant_state"
    r"|SCB|weight_format|weight_scale|weight_scale_inv|weight_scale_2|weight_packed"
    r"|weight_zero_point|input_scale|activation_scale)(\.|$)"
)
"""What stands beside weights that GPTQ, AWQ, bitsandbytes, FP8, compressed-tensors or MLX wrote."""
_META = re.compile(
    r"(^|\.)layers\.\d+\.(attention\.w[qkvo]|feed_forward\.w[123])\.|^tok_embeddings\."
)
"""Names of Meta's and Mistral's own files, whose rows of q and k are in another order."""
_FLOATS = ("F64", "F32", "F16", "BF16")


def file_of_tensors(folder: Path) -> dict[str, str]:
    """Read the index of `folder`: its tensors, and the file of each relative to the folder.

    As in transformers, a `model.safetensors` goes before an index, which may be left over from
    another state of the folder. Empty without an index.

    Raises:
        FileFormatError: the index names no files, or one outside the folder.

    """
    index = folder / INDEX
    if (folder / MODEL).exists() or not index.exists():
        return {}
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(n, str) for n in names.values()):
        raise FileFormatError(f"`{index}`: `weight_map` must name a file for each tensor")
    for name in names.values():
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts or not inside.name:
            raise FileFormatError(
                f"`{index}`: `{name}` is not a file of the folder",
                hint="download the folder again",
                path=str(index),
            )
    return names


def read_weights(folder: Path, named: Path | None = None) -> dict[str, TensorInfo]:
    """Read the headers of the model's weight files.

    They are `model.safetensors`, or else those in the index, or else all ``model*.safetensors``. A
    file that the user `named` and that is none of them is read alone.

    Raises:
        FileFormatError: a file is missing or damaged, or two files have a tensor of one name.
        UnsupportedError: the tensors have the names of Meta's or Mistral's own files.

    """
    owners = file_of_tensors(folder)
    files = _files(folder, owners)
    if named is not None and named not in files:
        owners, files = {}, [named]
    if not files or (missing := [file for file in files if not file.exists()]):
        what = f"`{missing[0].name}` is missing" if files else f"no {_what(folder)}"
        raise FileFormatError(
            f"the weights in `{folder}` are incomplete: {what}",
            hint="download the folder again; fewbit reads weights from safetensors files only",
            path=str(folder),
        )
    return _merged(folder, files, owners)


def _merged(folder: Path, files: list[Path], owners: Mapping[str, str]) -> dict[str, TensorInfo]:
    infos: dict[str, TensorInfo] = {}
    source: dict[str, Path] = {}
    for file in files:
        for name, info in read_safetensors(file).items():
            if name in owners and folder / owners[name] != file:
                continue
            if name in infos:
                raise FileFormatError(
                    f"tensor `{name}` is in `{source[name].name}` and in `{file.name}`",
                    hint="the folder holds files of several models: keep those of one",
                    tensor=name,
                )
            infos[name], source[name] = info, file
    if foreign := next(filter(_META.search, infos), None):
        raise UnsupportedError(
            f"tensor `{foreign}` in `{source[foreign].name}` has a name of Meta's own files, which "
            "fewbit does not read",
            hint="take the checkpoint in Hugging Face's form: model*.safetensors",
            tensor=foreign,
        )
    return infos


def _files(folder: Path, owners: Mapping[str, str]) -> list[Path]:
    if (folder / MODEL).exists():
        return [folder / MODEL]
    if owners:
        return [folder / name for name in sorted(set(owners.values()))]
    return sorted(folder.glob(PATTERN))


def _what(folder: Path) -> str:
    others = sorted(file.name for file in folder.glob("*.safetensors"))
    return f"{PATTERN}, only `{others[0]}`" if others else "safetensors files"


def refuse_quantized(
    settings: Mapping[str, Any], infos: Mapping[str, TensorInfo], path: Path
) -> None:
    """Refuse weights that another program quantized; GPT-OSS's MXFP4 is none of them.

    The tensors say whether they are quantized: a `quantization_config` that is left over in the
    config.json of plain floats is passed over. BitNet's floats are rounded when they run.

    Raises:
        UnsupportedError: the weights are quantized.

    """
    found = settings.get("quantization_config") or settings.get("quantization") or {}
    method = found.get("quant_method") if isinstance(found, Mapping) else None
    beside = next((name for name in infos if _BESIDE.search(name)), None)
    packed = next(
        (n for n, i in infos.items() if n.endswith(".weight") and i.dtype not in _FLOATS), None
    )
    if beside or (found and packed) or method == "bitnet":
        what = f"by `{method}`" if method else f"(it has `{beside or packed}`)"
        raise UnsupportedError(
            f"`{path}`: the weights are quantized {what}, which fewbit does not read",
            hint="take the original checkpoint",
        )
