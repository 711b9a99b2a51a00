"""List the models that a comparison measures: files as they are, and formats encoded on the fly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fewbit.errors import InputError
from fewbit.files.importance import Imatrix
from fewbit.formats.table import find_format
from fewbit.measure.evaluate import Variant
from fewbit.measure.limits import main_format
from fewbit.measure.vocabularies import check_vocabulary
from fewbit.plan.sizes import Sizes, sizes_of
from fewbit.run.limits import Activations
from fewbit.run.model import Importance, LoadedModel

MARGIN = 1.25
"""Memory of a loaded model over its bytes: packed weights are padded, caches come besides."""

MEMORY = Path("/proc/meminfo")


@dataclass(frozen=True)
class Candidate:
    """A model under the name of its row."""

    name: str
    model: LoadedModel

    @property
    def sizes(self) -> Sizes:
        """Its weights and bytes."""
        return sizes_of(self.model.plan, self.model.formats)

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Itself with f32 and, where this changes anything, with int8 activations."""
        kinds: tuple[Activations, ...] = ("f32", "int8") if self.rounds_activations else ("f32",)
        return tuple(Variant(self.model, kind) for kind in kinds)

    @property
    def rounds_activations(self) -> bool:
        """Whether int8 changes anything: among float weights only BF16 rounds its activations."""
        formats = self.model.formats.values()
        return any(name == "BF16" or not find_format(name).is_float for name in formats)


def candidates(
    base: LoadedModel,
    formats: Sequence[str],
    models: Mapping[str, LoadedModel],
    imatrices: Sequence[Importance | None] = (None,),
) -> list[Candidate]:
    """The base, further models, then the base in each format with each importance matrix.

    Raises:
        FormatError: a format is unknown, or needs an importance matrix.
        InputError: a model has another vocabulary than the base.

    """
    names = [name for name, model in models.items() if model is base]
    found = [Candidate(names[0] if names else base_name(base), base)]
    for name, model in models.items():
        check_vocabulary(model, base)
        if model is not base:
            found.append(Candidate(name, model))
    for format_ in formats:
        for imatrix in imatrices:
            model = base.quantize(format_) if imatrix is None else base.quantize(format_, imatrix)
            found.append(Candidate(format_ + _label(imatrix, imatrices), model))
    return list(_named_once(found))


def base_name(model: LoadedModel) -> str:
    """The format of most of a model's linear weights."""
    return main_format(model.plan, model.formats)


def fit_together(found: Iterable[Candidate]) -> bool:
    """Whether all models fit into the memory that is free now; True where this is not known."""
    needed = MARGIN * sum(candidate.sizes.bytes for candidate in found)
    free = free_memory()
    return free is None or needed <= free


def free_memory() -> int | None:
    """Bytes of memory that programs can still get, as Linux says; None elsewhere."""
    try:
        lines = MEMORY.read_text("ascii").splitlines()
    except OSError:
        return None
    free = [line for line in lines if line.startswith("MemAvailable:")]
    return 1024 * int(free[0].split()[1]) if free else None


def _label(imatrix: Importance | None, imatrices: Sequence[Importance | None]) -> str:
    """What an importance matrix adds to a row's name."""
    if imatrix is None:
        return ""
    weighted = [each for each in imatrices if each is not None]
    stem = Path(imatrix.file).stem if isinstance(imatrix, Imatrix) else ""
    return f" {stem}" if stem and len(weighted) > 1 else " imatrix"


def _named_once(found: Sequence[Candidate]) -> Iterable[Candidate]:
    seen: set[str] = set()
    for candidate in found:
        if candidate.name in seen:
            raise InputError(
                f"two rows would be called `{candidate.name}`",
                hint="name each model or format once",
            )
        seen.add(candidate.name)
        yield candidate
