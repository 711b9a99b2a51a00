"""Save covariances of a model's inputs to a safetensors file, and read them back.

`docs/quality.md` has the layout. The file is written input by input, so only those of one layer are
in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from fewbit.callbacks import Progress
from fewbit.errors import FileFormatError, InputError
from fewbit.files.replace import replacing
from fewbit.files.safetensors import TensorInfo, read_safetensors
from fewbit.improve.calibration import Calibration
from fewbit.improve.covariance import Covariance, InputCovariance, Judges
from fewbit.improve.passes import WindowPasses
from fewbit.improve.segments import Segment, segments
from fewbit.plan.shapes import tensor_shapes
from fewbit.run.model import LoadedModel

KIND = "fewbit covariances 1"
_KINDS = ("fitted", "held_out")


@dataclass(frozen=True, eq=False)
class CovarianceFile:
    """The covariances in the file at `path`; `source` says which windows they are of.

    `fingerprint` is that of the model that they belong to.
    """

    path: Path
    source: str
    fingerprint: str
    digest: str
    tensors: Mapping[str, TensorInfo] = field(repr=False)
    shared: Mapping[str, str] = field(repr=False)
    warnings: tuple[str, ...] = ()

    def judges(self, model: LoadedModel) -> Iterator[tuple[Segment, dict[str, Judges]]]:
        """Each segment of `model` with the covariances of its inputs, by name of the weight.

        Raises:
            InputError: the file was made of another model.
            FileFormatError: the file lacks an input of the model, or it has another shape.

        """
        if model.fingerprint != self.fingerprint:
            raise InputError(
                f"`{self.path}` has the covariances of another model",
                hint="make it again with `fewbit calibrate`",
                path=str(self.path),
            )
        for part in segments(model.plan):
            yield (
                part,
                {
                    name: Judges(*(self._input(name, kind, part) for kind in _KINDS))
                    for group in part.groups
                    for name in group
                },
            )

    def _input(self, name: str, kind: str, part: Segment) -> InputCovariance:
        shape = tensor_shapes(part.plan)[name]
        matrices, columns = (shape[0] if len(shape) == 3 else 1), shape[-1]
        first = self.shared.get(name, name)
        sums = self._values(f"{first}.{kind}", "F32", (matrices, columns * (columns + 1) // 2))
        counts = self._values(f"{first}.{kind}.counts", "I64", (matrices,))

        def of(matrix: int) -> Covariance:
            return _unpacked(sums[matrix], columns) * float(counts[matrix])

        return InputCovariance((name,), columns, counts.astype(np.uint64), of)

    def _values(self, name: str, dtype: str, shape: tuple[int, ...]) -> NDArray[np.generic]:
        found = self.tensors.get(name)
        if found is None or (found.dtype, found.shape) != (dtype, shape):
            what = "is missing" if found is None else f"is {found.dtype} {list(found.shape)}"
            raise _damaged(self.path, f"`{name}` {what}, expected {dtype} {list(shape)}")
        kind = "<f4" if dtype == "F32" else "<i8"
        return found.data.view(kind).reshape(shape)


def read_covariances(path: str | PathLike[str]) -> CovarianceFile:
    """Open a file that `fewbit calibrate` wrote; its data are read when they are needed.

    Raises:
        FileFormatError: the file is truncated, or not of covariances.
        OSError: the file cannot be read.

    """
    path = Path(path)
    with path.open("rb") as opened:
        if opened.read(4) == b"GGUF":
            raise FileFormatError(
                f"`{path}` is a GGUF file: an importance matrix has no covariances",
                hint="make covariances with `fewbit calibrate`",
                path=str(path),
            )
    tensors = read_safetensors(path)
    with path.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        facts = json.loads(opened.read(size)).get("__metadata__", {})
    if facts.get("format") != KIND:
        raise _damaged(path, f"its format is {facts.get('format')!r}, expected {KIND!r}")
    try:
        shared = json.loads(facts["shared"])
        source, fingerprint, digest = (
            str(facts[key]) for key in ("source", "fingerprint", "digest")
        )
        warnings = tuple(json.loads(facts["warnings"]))
    except (KeyError, ValueError):
        raise _damaged(path, "its metadata are incomplete") from None
    return CovarianceFile(path, source, fingerprint, digest, tensors, shared, warnings)


def write_covariances(
    model: LoadedModel,
    path: str | PathLike[str],
    calibration: Calibration,
    threads: int = 0,
    progress: Progress | None = None,
) -> None:
    """Run the windows of `calibration` through `model` and write the covariances of all inputs.

    Raises:
        OSError: the file cannot be written; nothing is left of it.

    """
    parts = segments(model.plan)
    header, shared, size = _layout(parts)
    facts = {
        "format": KIND,
        "source": calibration.source,
        "fingerprint": model.fingerprint,
        "digest": calibration.digest,
        "shared": json.dumps(shared),
        "warnings": json.dumps(calibration.warnings),
    }
    text = json.dumps({"__metadata__": facts} | header).encode()
    text += b" " * (-len(text) % 8)
    with replacing(Path(path)) as temporary, temporary.open("rb+") as opened:
        opened.write(len(text).to_bytes(8, "little") + text)
        start = opened.tell()
        opened.truncate(start + size)
        passes = WindowPasses(model, calibration, threads, progress)
        for part, judges in passes.judges(parts):
            for group in part.groups:
                for kind in _KINDS:
                    _write(
                        opened, start, header, f"{group[0]}.{kind}", getattr(judges[group[0]], kind)
                    )


def _layout(
    parts: list[Segment],
) -> tuple[dict[str, dict[str, object]], dict[str, str], int]:
    """The tensors of the file, the input that each weight shares, the bytes of all tensors."""
    header: dict[str, dict[str, object]] = {}
    shared: dict[str, str] = {}
    at = 0
    for part in parts:
        shapes = tensor_shapes(part.plan)
        for group in part.groups:
            shape = shapes[group[0]]
            matrices, columns = (shape[0] if len(shape) == 3 else 1), shape[-1]
            shared |= dict.fromkeys(group, group[0])
            for kind in _KINDS:
                size = columns * (columns + 1) // 2
                for name, dtype, own, width in (
                    (f"{group[0]}.{kind}.counts", "I64", [matrices], 8 * matrices),
                    (f"{group[0]}.{kind}", "F32", [matrices, size], 4 * matrices * size),
                ):
                    header[name] = {
                        "dtype": dtype, "shape": own, "data_offsets": [at, at + width]
                    }  # fmt: skip
                    at += width
    return header, shared, at


def _write(
    file: BinaryIO,
    start: int,
    header: Mapping[str, dict[str, object]],
    name: str,
    covariance: InputCovariance,
) -> None:
    for key, data in (
        (f"{name}.counts", [covariance.counts.astype("<i8")]),
        (name, map(_packed, map(covariance.mean, range(len(covariance.counts))))),
    ):
        offsets = header[key]["data_offsets"]
        assert isinstance(offsets, list)
        file.seek(start + offsets[0])
        for values in data:
            file.write(values.tobytes())


def _packed(matrix: Covariance) -> NDArray[np.float32]:
    """The rows of the upper triangle one after another."""
    return np.concatenate([row[i:] for i, row in enumerate(matrix)]).astype("<f4")


def _unpacked(values: NDArray[np.generic], columns: int) -> Covariance:
    found = np.zeros((columns, columns))
    at = 0
    for row in range(columns):
        found[row, row:] = values[at : at + columns - row]
        found[row:, row] = found[row, row:]
        at += columns - row
    return found


def _damaged(path: Path, reason: str) -> FileFormatError:
    return FileFormatError(
        f"`{path}` is not a valid file of covariances: {reason}",
        hint="make it again with `fewbit calibrate`",
        path=str(path),
    )
