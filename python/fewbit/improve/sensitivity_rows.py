"""What quantizing single tensors or layers loses: rows as a table, and as a JSON file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewbit.errors import FileFormatError, InputError
from fewbit.files.json_file import read_json
from fewbit.files.replace import replacing
from fewbit.measure.results import Divergence, Estimate, error_text
from fewbit.tables import Page, Shown, Table

SCHEMA = "fewbit.sensitivity/1"
BAR = 12
"""Columns of the longest bar."""


@dataclass(frozen=True)
class Loss:
    """How predictions move: KL divergence (nats per token), ln of the PPL ratio, same top token."""

    kld: Estimate
    ln_ratio: Estimate
    same_top: Estimate

    @classmethod
    def of(cls, found: Divergence) -> Loss:
        """The loss that a divergence shows."""
        return cls(found.kld, found.ln_ratio, found.same_top)

    @classmethod
    def read(cls, saved: Mapping[str, Any]) -> Loss:
        """What `to_dict` made."""
        return cls(*(_read_estimate(saved[name]) for name in ("kld", "ln_ratio", "same_top")))

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; null is a number that is not finite."""
        return {
            name: {
                "value": _finite(each.value), "error": _finite(each.error), "windows": each.windows
            }
            for name, each in vars(self).items()
        }  # fmt: skip


@dataclass(frozen=True)
class SensitivityRow:
    """A tensor or a layer, its bytes before and after, and the losses.

    `formats` are what its `tensors` become. `alone` is the loss when it is quantized and nothing
    else, `all_but_one` when everything else is, None if that was not measured.
    """

    name: str
    by: str
    tensors: tuple[str, ...]
    formats: tuple[str, ...]
    bytes: int
    quantized_bytes: int
    alone: Loss
    all_but_one: Loss | None = None

    @property
    def bytes_saved(self) -> int:
        """The bytes that quantizing it saves."""
        return self.bytes - self.quantized_bytes

    @property
    def kld_per_byte(self) -> float:
        """KL divergence for each byte saved, nats per token; nan if no byte is saved."""
        return self.alone.kld.value / self.bytes_saved if self.bytes_saved > 0 else math.nan

    @classmethod
    def read(cls, saved: Mapping[str, Any]) -> SensitivityRow:
        """What `to_dict` made."""
        other = saved["all_but_one"]
        return cls(
            saved["name"], saved["by"], tuple(saved["tensors"]), tuple(saved["formats"]),
            saved["bytes"], saved["quantized_bytes"], Loss.read(saved["alone"]),
            None if other is None else Loss.read(other),
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "name": self.name, "by": self.by, "tensors": list(self.tensors),
            "formats": list(self.formats), "bytes": self.bytes,
            "quantized_bytes": self.quantized_bytes, "bytes_saved": self.bytes_saved,
            "kld_per_byte": _finite(self.kld_per_byte), "alone": self.alone.to_dict(),
            "all_but_one": self.all_but_one and self.all_but_one.to_dict(),
        }  # fmt: skip


@dataclass(frozen=True)
class Sensitivity(Shown):
    """What quantizing single tensors or layers of `model` to `recipe` loses on a text.

    `total` is the loss when all are quantized; `rows` are in the order of the network. `key` names
    everything that changes a number. `chunks` windows of `ctx` tokens were measured.
    """

    model: str
    recipe: str
    key: str
    ctx: int
    chunks: int
    total: Loss
    rows: tuple[SensitivityRow, ...]

    def page(self) -> Page:
        """A line for each tensor or layer, with a bar of its KL divergence."""
        most = max((row.alone.kld.value for row in self.rows), default=0.0)
        others = ("KLD of\nall others", "it\nadds") if self._has_others else ()
        table = Table(("", "to", "", "KLD", "±", "same top", "kB saved", "KLD\nper MB", *others),
                      text=3)  # fmt: skip
        for row in self.rows:
            table.add_row(*self._cells(row, most))
        total = self.total.kld
        added = sum(row.alone.kld.value for row in self.rows)
        page: Page = [
            table, "",
            f"all to {self.recipe}: KLD {total.value:.6f} ± {error_text(total.error, 6)}; "
            f"the rows' KLD add up to {added:.6f}",
            f"{self.chunks} windows of {self.ctx} tokens, f32 activations; KLD in nats per token, "
            "MB of bytes saved",
        ]  # fmt: skip
        if self.chunks == 1:
            page.append("errors (±) are counted over windows: they need at least two")
        return page

    @property
    def _has_others(self) -> bool:
        return any(row.all_but_one is not None for row in self.rows)

    def _cells(self, row: SensitivityRow, most: float) -> list[str]:
        kld = row.alone.kld
        bar = "█" * round(BAR * kld.value / most) if 0 < kld.value < math.inf else ""
        cells = [
            row.name, "/".join(dict.fromkeys(row.formats)), bar, f"{kld.value:.6f}",
            error_text(kld.error, 6), f"{100 * row.alone.same_top.value:.2f} %",
            f"{row.bytes_saved / 1e3:,.1f}",
            "" if math.isnan(row.kld_per_byte) else f"{1e6 * row.kld_per_byte:.6f}",
        ]  # fmt: skip
        if self._has_others:
            rest = row.all_but_one
            adds = None if rest is None else self.total.kld.value - rest.kld.value
            cells += ["" if rest is None else f"{rest.kld.value:.6f}",
                      "" if adds is None else f"{adds:.6f}"]  # fmt: skip
        return cells

    def to_dict(self) -> dict[str, Any]:
        """As `--json` and the results file have it, `schema` first."""
        return {
            "schema": SCHEMA, "model": self.model, "recipe": self.recipe, "key": self.key,
            "ctx": self.ctx, "chunks": self.chunks, "total": self.total.to_dict(),
            "rows": [row.to_dict() for row in self.rows],
        }  # fmt: skip

    def save(self, path: Path) -> None:
        """Write it to a JSON file; a failure leaves what was there."""
        text = json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"
        with replacing(path) as temporary:
            temporary.write_text(text, "utf-8")


def read_sensitivity(path: Path, key: str) -> Sensitivity | None:
    """What `Sensitivity.save` wrote; None if there is no such file.

    Raises:
        FileFormatError: the file is damaged.
        InputError: it belongs to another model, recipe or text.

    """
    if not path.exists():
        return None
    saved = read_json(path)
    if saved.get("schema") != SCHEMA or saved.get("key") != key:
        raise InputError(
            f"`{path}` holds something else, or the results of another model, format or text",
            hint="name another file, or delete it",
            path=str(path),
        )
    try:
        return Sensitivity(
            saved["model"], saved["recipe"], key, saved["ctx"], saved["chunks"],
            Loss.read(saved["total"]), tuple(SensitivityRow.read(row) for row in saved["rows"]),
        )  # fmt: skip
    except (KeyError, TypeError, AttributeError):
        raise FileFormatError(f"`{path}` is damaged", hint="delete it", path=str(path)) from None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _read_estimate(saved: Mapping[str, Any]) -> Estimate:
    value, error = (math.nan if saved[name] is None else saved[name] for name in ("value", "error"))
    return Estimate(float(value), float(error), saved["windows"])
