"""The result of `fewbit quantize`: sizes before and after, and tensors that left their recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fewbit.convert.encode import TensorEncoder
from fewbit.convert.gguf import file_tensors, gguf_formats
from fewbit.convert.quantization import Quantization, as_stored
from fewbit.convert.split import Split, piece_paths
from fewbit.files.gguf import readable
from fewbit.files.tensor_file import Source
from fewbit.plan.shapes import tensor_bytes
from fewbit.plan.sizes import Sizes
from fewbit.tables import Page, Table

_NAMED = 3
"""Tensors that left their recipe and are named in the summary; JSON has all of them."""


@dataclass(frozen=True)
class Quantized:
    """A model in one format: `file_bytes` in file `path` after `seconds`, None if not written.

    `pieces` are the files of a model that is split. `source` and `sizes` are the sizes of the
    tensors before and after. `deviations` has, for each tensor that does not have the format of
    the recipe, the recipe's format and its own.
    """

    path: Path
    recipe: str
    source: Sizes
    sizes: Sizes
    deviations: Mapping[str, tuple[str, str]]
    pieces: tuple[Path, ...] = ()
    file_bytes: int | None = None
    seconds: float | None = None

    def line(self) -> str:
        """The file, its bytes, its weights and the bits of each."""
        size = self.sizes
        written = f"{self.file_bytes:,}" if self.file_bytes is not None else f"about {size.bytes:,}"
        bits = f"{size.bits_per_weight:.2f} bits per weight"
        named = f"{self.path}"
        if self.pieces:
            named = f"{self.pieces[0]} and {len(self.pieces) - 1} more"
        return f"{named}: {written} bytes, {size.weights:,} weights, {bits}"

    def notes(self) -> list[str]:
        """The sizes before and after, the time, and tensors that left the recipe."""
        before, after = self.source, self.sizes
        lines = [
            f"tensors: {before.bytes:,} to {after.bytes:,} bytes "
            f"({after.bytes / max(before.bytes, 1):.1%}), {before.bits_per_weight:.2f} to "
            f"{after.bits_per_weight:.2f} bits per weight"
            + ("" if self.seconds is None else f", in {self.seconds:.2f} s")
        ]
        if self.deviations:
            named = [
                f"{name} is {own}, not {planned}"
                for name, (planned, own) in list(self.deviations.items())[:_NAMED]
            ]
            more = len(self.deviations) - len(named)
            count = f"{len(self.deviations)} tensor{'s' if len(self.deviations) > 1 else ''}"
            lines.append(
                f"not as {self.recipe} has it, {count}: {'; '.join(named)}"
                + (f"; {more} more (`--json` lists all)" if more else "")
            )
        return lines

    def json(self) -> dict[str, object]:
        """The result as JSON has it; `bytes` is null if nothing was written."""
        return {
            "path": str(self.pieces[0] if self.pieces else self.path),
            **({"pieces": [str(piece) for piece in self.pieces]} if self.pieces else {}),
            "format": self.recipe, "bytes": self.file_bytes,
            "sizes": self.sizes, "source": self.source, "seconds": self.seconds,
            "deviations": {
                name: {"recipe": planned, "format": own}
                for name, (planned, own) in self.deviations.items()
            },
        }  # fmt: skip


def planned(source: Source, encoded: Quantization, recipe: str, path: Path) -> Quantized:
    """The result of quantizing `source` to `recipe`, before `encoded` is written to `path`.

    Raises:
        FormatError: GGUF cannot hold a format.

    """
    gguf_formats(source, encoded.formats)
    before = Quantization(source, as_stored(source)).sizes
    return Quantized(path, recipe, before, encoded.sizes, encoded.deviations())


def pieces_of(encoded: Quantization, path: Path, split: Split | None) -> list[Path]:
    """The files that `encoded` would be written to.

    Raises:
        InputError: there would be too many pieces.

    """
    if split is None:
        return [path]
    formats = gguf_formats(encoded.source, encoded.formats)
    tensors = file_tensors(TensorEncoder(encoded.source, formats, {}))
    return piece_paths(path, len(split.groups(tensors)))


def listing(source: Source, encoded: Quantization) -> Page:
    """One line per tensor: its shape, its format and bytes before and after."""
    table = Table(("tensor", "before", "after", "shape", "bytes before", "bytes after"), text=3)
    for name, tensor in source.tensors.items():
        formats = (tensor.format, encoded.formats[name])
        table.add_row(
            readable(name), *formats, " × ".join(f"{n:,}" for n in tensor.shape),
            *(f"{tensor_bytes(tensor.shape, format_):,}" for format_ in formats),
        )  # fmt: skip
    return [table]
