"""Write models as GGUF files, a slab in memory at a time; no incomplete file gets the name."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from fewbit.callbacks import Progress
from fewbit.errors import FormatError
from fewbit.files.gguf import ALIGNMENT, Field, fields_of
from fewbit.files.gguf_config import config_to_gguf, rope_divisors
from fewbit.files.gguf_types import GGUFValueType
from fewbit.files.importance import imatrix_metadata
from fewbit.files.replace import replacing
from fewbit.formats.table import Format, find_format
from fewbit.plan.shapes import tensor_bytes
from fewbit.recipes import choose as recipes
from fewbit.recipes.order import sort_key

if TYPE_CHECKING:
    from fewbit.convert.encode import TensorEncoder
    from fewbit.files.checkpoint import Checkpoint

QUANTIZATION_VERSION = 2
_DROPPED = ("split.", "general.file_type", "general.quantization_version", "general.alignment")


def gguf_formats(checkpoint: Checkpoint, formats: Mapping[str, str]) -> dict[str, str]:
    """`formats` as GGUF files have them: vectors of floats are F32.

    Raises:
        FormatError: GGUF has no such format.

    """
    found: dict[str, str] = {}
    for name, info in checkpoint.tensors.items():
        format_ = find_format(formats[name])
        if format_.gguf_id is None:
            raise FormatError(
                f"GGUF cannot hold {format_.name}, which `{name}` is stored as",
                hint="`fewbit perplexity` and `fewbit compare` measure it without a file",
                tensor=name,
                format=format_.name,
            )
        vector = len(info.shape) == 1 and format_.is_float
        found[name] = "F32" if vector else format_.name
    return found


def write_model(
    path: Path, encoder: TensorEncoder, recipe: str | None = None, progress: Progress | None = None
) -> None:
    """Write the tensors of `encoder` to the GGUF file `path`.

    Tensors come in the order of ``llama-quantize``; the metadata names the importance matrix that
    they were made with. The file has its whole size from the start, so a full disk shows at once.

    Raises:
        FormatError: a weight cannot be stored.
        OSError: the file cannot be written; nothing is left of it.

    """
    tensors = _file_tensors(encoder)
    with replacing(path) as file:
        start = _write_header(file, encoder, tensors, recipe)
        places = start + np.cumsum([0, *(_padded(tensor.bytes) for tensor in tensors)])
        _reserve(file, int(places[-1]))
        total, done = sum(tensor.bytes for tensor in tensors), 0
        for tensor, place in zip(tensors, places.tolist(), strict=False):
            for written in tensor.write(file, place):
                done += written
                if progress:
                    progress(done, total, tensor.name)


def header_bytes(encoder: TensorEncoder) -> int:
    """The bytes of a file of `encoder`'s tensors beside those of the tensors, padding included."""
    tensors = _file_tensors(encoder)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "header"
        file.touch()
        start = _write_header(file, encoder, tensors, None)
    return start + sum(_padded(tensor.bytes) - tensor.bytes for tensor in tensors)


def _stored(value: Any) -> Any:
    """Give text as the bytes of a file, with those that were not UTF-8 when it was read."""
    if isinstance(value, str):
        return value.encode(errors="surrogateescape")
    if isinstance(value, list) and value and isinstance(value[0], str):
        return [text.encode(errors="surrogateescape") for text in value]
    return value


def _write_header(
    file: Path, encoder: TensorEncoder, tensors: list[_FileTensor], recipe: str | None
) -> int:
    """All that comes before the data of the tensors; where that begins."""
    from gguf import GGMLQuantizationType  # imports slowly, and is needed only here
    from gguf import GGUFValueType as WriterType

    from fewbit.convert.gguf_writer import Writer

    checkpoint = encoder.checkpoint
    with closing(Writer(file, checkpoint.config.architecture)) as writer:
        for key, field in _metadata(encoder, recipe).items():
            if key != "general.architecture":  # the writer has put it first
                item = None if field.item is None else WriterType(field.item)
                writer.add_key_value(key, _stored(field.value), WriterType(field.type), item)
        for tensor in tensors:
            kind = cast(GGMLQuantizationType, tensor.format.gguf_id)  # gguf-py lags: no Q2_0
            writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.void), tensor.bytes, kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    return _padded(file.stat().st_size)


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _reserve(file: Path, size: int) -> None:
    """Make `file` as long as it will be; where the system can, its place on the disk is taken."""
    with file.open("rb+") as opened:
        opened.truncate(size)
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(opened.fileno(), 0, size)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # some file systems cannot
                    raise


@dataclass(frozen=True)
class _FileTensor:
    """A tensor on its way into a file: `write` puts it there and yields bytes."""

    name: str
    shape: tuple[int, ...]
    format: Format
    write: Callable[[Path, int], Iterator[int]]

    @property
    def bytes(self) -> int:
        return tensor_bytes(self.shape, self.format.name)


def _file_tensors(encoder: TensorEncoder) -> list[_FileTensor]:
    """Every tensor of the file in order, the divisors of rotary frequencies among them."""
    tensors = [
        _FileTensor(
            name, info.shape, find_format(encoder.formats[name]), partial(encoder.write, name)
        )
        for name, info in encoder.checkpoint.tensors.items()
    ]
    for name, divisors in rope_divisors(encoder.checkpoint.config).items():
        values = np.array(divisors, np.float32)
        tensors.append(
            _FileTensor(name, values.shape, find_format("F32"), partial(_write_array, values))
        )
    return sorted(tensors, key=lambda tensor: sort_key(tensor.name))


def _write_array(values: NDArray[Any], file: Path, offset: int) -> Iterator[int]:
    with file.open("rb+") as opened:
        opened.seek(offset)
        opened.write(values.tobytes())
    yield values.nbytes


def _metadata(encoder: TensorEncoder, recipe: str | None) -> dict[str, Field]:
    """A GGUF file's own keys, or those that a converter makes; what changed comes last."""
    checkpoint, formats = encoder.checkpoint, encoder.formats
    if checkpoint.metadata is not None:
        copied = {
            key: field for key, field in checkpoint.metadata.items() if not key.startswith(_DROPPED)
        }
        before = checkpoint.metadata.get("general.file_type")
    else:
        copied, before = _converted(checkpoint, formats), None
    copied["general.quantization_version"] = Field(QUANTIZATION_VERSION, GGUFValueType.UINT32)
    file_type = recipes.file_type(recipe or _most(checkpoint, formats))
    if file_type is not None and (recipe is not None or before is None):
        before = Field(file_type, GGUFValueType.UINT32)
    if before is not None:
        copied["general.file_type"] = before
    made_with = dict(fields_of(imatrix_metadata(encoder.importance)))
    return {key: field for key, field in copied.items() if key not in made_with} | made_with


def _converted(checkpoint: Checkpoint, formats: Mapping[str, str]) -> dict[str, Field]:
    from fewbit.tokenizer.gguf_metadata import metadata_from_folder

    config = checkpoint.config
    weights = sum(int(np.prod(info.shape)) for info in checkpoint.tensors.values())
    values: dict[str, Any] = {
        "general.architecture": config.architecture,
        "general.type": "model",
        "general.name": config.name,
        "general.size_label": size_label(weights),
    }
    values |= config_to_gguf(config)
    values |= metadata_from_folder(checkpoint.path, config.vocab)
    return dict(fields_of(values))


def _most(checkpoint: Checkpoint, formats: Mapping[str, str]) -> str:
    """The format of most weights."""
    counts: dict[str, int] = {}
    for name, info in checkpoint.tensors.items():
        counts[formats[name]] = counts.get(formats[name], 0) + int(np.prod(info.shape))
    return max(counts, key=lambda name: counts[name])


def size_label(weights: int) -> str:
    """The number of weights as GGUF's `general.size_label` has it.

    >>> size_label(4_196_608), size_label(1_235_814_400), size_label(158_000)
    ('4.2M', '1.2B', '158K')
    """
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if weights >= size:
            scaled = weights / size
            return f"{scaled:.1f}{unit}" if scaled < 9.95 else f"{scaled:.0f}{unit}"
    return str(weights)
