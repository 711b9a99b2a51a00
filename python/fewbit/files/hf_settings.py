"""Typed access to the values of a config.json: a type is checked when a value is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewbit.errors import FileFormatError, shown


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and -1e18 < value < 1e18


@dataclass(frozen=True)
class Settings:
    """Values of a config.json; the type of a value is checked when it is read."""

    values: Mapping[str, Any]
    path: Path

    def integer(self, key: str, default: int | None = None, least: int = 1) -> int:
        """Read an integer of `least` or more, also spelled 128.0; the default if it is missing."""
        value = self._get(key, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 1 << 31:
            raise self.wrong(key, value, f"an integer of {least} or more")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Read a number of 0 or more; the default if it is missing."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e18:
            raise self.wrong(key, value, "a number of 0 or more")
        return float(value)

    def positive(self, key: str, default: float | None = None) -> float:
        """Read a number above 0; the default if it is missing."""
        if (value := self.number(key, default)) <= 0:
            raise self.wrong(key, value, "a number above 0")
        return value

    def kinds(self, key: str, count: int) -> list[str] | None:
        """Read a list of one string per layer; None if it is missing."""
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != count:
            raise self.wrong(key, value, f"a list of {count} strings, one for each layer")
        return [str(kind) for kind in value]

    def numbers(self, key: str) -> tuple[float, ...]:
        """Read a list of numbers, which must exist."""
        value = self.values.get(key)
        if not isinstance(value, list) or not all(_is_number(v) for v in value):
            raise self.wrong(key, value, "a list of numbers")
        return tuple(float(v) for v in value)

    def layers(self, key: str) -> frozenset[int]:
        """Read a list of layer indices; empty if it is missing."""
        value = self.values.get(key) or []
        if not isinstance(value, list) or not all(isinstance(v, int) for v in value):
            raise self.wrong(key, value, "a list of layer indices")
        return frozenset(value)

    def flag(self, key: str, default: bool = False) -> bool:
        """Read true or false; the default if it is missing."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, value, "true or false")
        return value

    def section(self, key: str) -> Settings | None:
        """Read an object as settings of its own; None if it is missing."""
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self.wrong(key, value, "an object")
        return Settings(value, self.path)

    def _get(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        if value is None:
            value = default
        if value is None:
            raise self.wrong(key, None, "a value")
        return value

    def wrong(self, key: str, value: Any, expected: str) -> FileFormatError:
        """Make the error of a value that is missing or has the wrong type."""
        found = "nothing" if value is None else shown(value)
        return FileFormatError(
            f"`{self.path}`: `{key}` must be {expected}, found {found}",
            hint="take the config.json that belongs to the weights",
            path=str(self.path),
            key=key,
        )
