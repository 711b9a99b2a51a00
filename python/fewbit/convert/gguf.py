"""Write models as GGUF files, a slab in memory at a time; no incomplete file gets the name."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fewbit.callbacks import Progress
from fewbit.convert.gguf_header import header, placed
from fewbit.convert.split import Split, piece_paths, split_fields
from fewbit.errors import FormatError
from fewbit.files.checkpoint import Checkpoint
from fewbit.files.gguf import Field, fields_of, readable
from fewbit.files.gguf_config import config_to_gguf
from fewbit.files.gguf_types import GGUFValueType
from fewbit.files.importance import imatrix_metadata
from fewbit.files.replace import replacing_all
from fewbit.formats.table import Format, find_format
from fewbit.plan.shapes import tensor_bytes
from fewbit.recipes import choose as recipes
from fewbit.recipes.order import sort_key

if TYPE_CHECKING:
    from fewbit.convert.encode import TensorEncoder
    from fewbit.files.tensor_file import Source

QUANTIZATION_VERSION = 2
_DROPPED = ("split.", "general.file_type", "general.quantization_version", "general.alignment")


def gguf_formats(checkpoint: Source, formats: Mapping[str, str]) -> dict[str, str]:
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
    path: Path,
    encoder: TensorEncoder,
    recipe: str | None = None,
    progress: Progress | None = None,
    split: Split | None = None,
) -> list[Path]:
    """Write the tensors of `encoder` to the GGUF file `path`, or to pieces of the sizes of `split`.

    Tensors come in the order of ``llama-quantize``; the metadata names the importance matrix that
    they were made with. Files have their whole size from the start, so a full disk shows at once.
    Returns the paths of the files.

    Raises:
        FormatError: a weight cannot be stored.
        OSError: a file cannot be written; nothing is left of any.

    """
    tensors, metadata = file_tensors(encoder), _metadata(encoder, recipe)
    groups = [tensors] if split is None else split.groups(tensors)
    paths = [path] if split is None else piece_paths(path, len(groups))
    total, done = sum(tensor.bytes for tensor in tensors), 0
    with replacing_all(paths) as files:
        starts = []
        for number, (file, group) in enumerate(zip(files, groups, strict=True)):
            own = metadata if number == 0 else {}
            if split is not None:
                own = own | split_fields(number, len(groups), len(tensors))
            starts.append(_write_header(file, own, group))
        for file, group, places in zip(files, groups, starts, strict=True):
            for tensor, place in zip(group, places, strict=True):
                for written in tensor.write(file, place):
                    done += written
                    if progress:
                        progress(done, total, readable(tensor.name))
    return paths


def _write_header(
    file: Path, metadata: Mapping[str, Field], tensors: Sequence[FileTensor]
) -> list[int]:
    """Write all that comes before the data of the tensors; returns where each of them begins."""
    places = placed((tensor.name, tensor.shape, tensor.format) for tensor in tensors)
    written = header(metadata, places)
    file.write_bytes(written)
    _reserve(file, len(written) + (places[-1].end if places else 0))
    return [len(written) + place.offset for place in places]


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
class FileTensor:
    """A tensor on its way into a file: `write` puts it there and yields bytes."""

    name: str
    shape: tuple[int, ...]
    format: Format
    write: Callable[[Path, int], Iterator[int]]

    @property
    def bytes(self) -> int:
        """Bytes of the tensor, without padding."""
        return tensor_bytes(self.shape, self.format.name)


def file_tensors(encoder: TensorEncoder) -> list[FileTensor]:
    """Every tensor of the file in order, the divisors of rotary frequencies among them."""
    tensors = [
        FileTensor(
            name, info.shape, find_format(encoder.formats[name]), partial(encoder.write, name)
        )
        for name, info in encoder.checkpoint.tensors.items()
    ]
    for name, divisors in encoder.checkpoint.divisors.items():
        values = np.array(divisors, np.float32)
        tensors.append(
            FileTensor(name, values.shape, find_format("F32"), partial(_write_array, values))
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
    if not isinstance(checkpoint, Checkpoint) or checkpoint.metadata is not None:
        own = checkpoint.metadata or {}
        copied = {key: field for key, field in own.items() if not key.startswith(_DROPPED)}
        before = own.get("general.file_type")
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
    if (checkpoint.path / "tokenizer.json").exists():
        values |= metadata_from_folder(checkpoint.path, config.vocab)
    else:  # the tensors are worth a file without one
        warnings.warn(
            f"`{checkpoint.path}` has no tokenizer.json: the file gets no tokenizer and reads and "
            "writes no text, only tokens",
            stacklevel=2,
        )
        values["tokenizer.ggml.model"] = "no_vocab"
    return dict(fields_of(values))


def _most(checkpoint: Source, formats: Mapping[str, str]) -> str:
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
