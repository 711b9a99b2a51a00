"""The cells of a sweep: what each measures, and a key of everything that changes its result."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fewbit.api import Model, load
from fewbit.errors import InputError
from fewbit.measure.candidates import MARGIN, Candidate
from fewbit.measure.evaluate import windows
from fewbit.measure.identity import digest, identity
from fewbit.recipes.choose import canonical
from fewbit.run.limits import Activations, KvType, activations_named, kv_type_named
from fewbit.sweep.spec import Spec

ORIGINAL = "original"
"""The format that leaves a model as it is."""


@dataclass(frozen=True)
class Base:
    """A model as it is on a text, f32 activations and KV cache: what its formats diverge from."""

    key: str
    model: str
    text: str
    content: str
    ctx: int
    chunks: int | None
    bytes: int
    """Bytes of its logits of all scored tokens."""


@dataclass(frozen=True)
class Cell:
    """A base's model in a format, measured against the base."""

    key: str
    base: Base
    format: str
    acts: Activations
    kv: KvType
    imatrix: str | None

    @property
    def names(self) -> dict[str, object]:
        """What its line of results says of it."""
        return {
            "key": self.key, "model": self.base.model, "format": self.format,
            "text": self.base.text, "acts": self.acts, "kv": self.kv, "imatrix": self.imatrix,
            "ctx": self.base.ctx,
        }  # fmt: skip


@dataclass(frozen=True)
class Cells:
    """All cells of a sweep, those of a base one after the other."""

    cells: tuple[Cell, ...]
    memory: int
    """Bytes of memory that the largest cell takes, about."""

    @property
    def bases(self) -> tuple[Base, ...]:
        """The bases, in the order of their cells."""
        return tuple({cell.base.key: cell.base for cell in self.cells}.values())


def cells_of(spec: Spec, texts: Mapping[str, str]) -> Cells:
    """The cells of `spec`; `texts` has the contents of its texts by their names.

    Raises:
        FormatError: a format is unknown.
        InputError: nothing is to be measured, a text is too short, or a model, kind of activations
            or of cache is unknown.
        OSError: an importance matrix cannot be read.

    """
    for key in ("models", "formats", "texts", "acts", "kv"):
        if not getattr(spec, key):
            raise InputError(f"a sweep without {key}", hint="`fewbit sweep --help` shows how")
    formats = dict.fromkeys(n if n == ORIGINAL else canonical(n) for n in spec.formats)
    found: dict[str, Cell] = {}
    memory = 0
    for name, imatrix in dict.fromkeys(spec.models):
        model = load(name, "cpu")
        matrix = "" if imatrix is None else hashlib.sha256(Path(imatrix).read_bytes()).hexdigest()
        for text in dict.fromkeys(spec.texts):
            base = _base(spec, name, model, text, texts[text])
            memory = max(memory, _memory(model, base, spec.ctx))
            for format_ in formats:
                weighted = matrix if format_ != ORIGINAL else ""
                for acts in map(activations_named, spec.acts):
                    for kv in map(kv_type_named, spec.kv):
                        key = digest([base.key, format_, weighted, acts, kv])
                        used = imatrix if weighted else None
                        found[key] = Cell(key, base, format_, acts, kv, used)
        model.close()
    return Cells(tuple(found.values()), memory)


def _base(spec: Spec, name: str, model: Model, text: str, content: str) -> Base:
    cut = windows(model, content, spec.ctx, spec.chunks)
    digest_of_text = hashlib.sha256(content.encode()).hexdigest()
    key = digest([identity(model), digest_of_text, cut.ctx, cut.count])
    size = cut.scored.size * model.config.vocab * 4
    return Base(key, name, text, content, spec.ctx, spec.chunks, size)


def _memory(model: Model, base: Base, ctx: int) -> int:
    """The weights as they are, a window's logits of the base and of the format, and Python."""
    window = (ctx // 2) * model.config.vocab * 4
    return int(MARGIN * Candidate(ORIGINAL, model).sizes.bytes) + 2 * window + 200_000_000
