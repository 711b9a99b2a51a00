"""Read the JSON results of compare, divergence, perplexity, benchmark, bench, sweep for a report.

The files are data from elsewhere: types are checked, and names lose paths and control characters.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

from fewbit.errors import FileFormatError
from fewbit.measure.significance import t_quantile

_VERSION = 1
"""The version of every schema that is read."""
_LONGEST = 1 << 28
"""Bytes of the largest file that is read."""
_PATH = re.compile(r"(?:[/~.]|[A-Za-z]:[/\\]).*[/\\]|(?:[^/\\]*[/\\]){2,}|[^/\\]*[/\\](?=.*\.gguf)")


@dataclass(frozen=True)
class Range:
    """A value with its 95 % interval; nan where it is not known."""

    value: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Loss:
    """What one model loses against its base; sizes and speed are nan where they are not known.

    `percentiles` holds (percent, KLD in nats); `positions` (first, last token before, KLD in nats).
    """

    name: str
    acts: str
    kld: Range
    ratio: Range
    same_top: float
    windows: int
    ctx: int
    percentiles: tuple[tuple[float, float], ...]
    positions: tuple[tuple[int, int, float], ...]
    bits: float = math.nan
    bytes: float = math.nan
    tokens_per_second: float = math.nan

    @property
    def title(self) -> str:
        """The name, with the activations where a file has several results of one model."""
        return self.name if self.bits > 0 else f"{self.name}, acts {self.acts}"


@dataclass(frozen=True)
class TextScore:
    """The perplexity of a text."""

    name: str
    acts: str
    ppl: Range
    windows: int
    ctx: int


@dataclass(frozen=True)
class Score:
    """Counted answers to multiple-choice questions, with the Wilson interval of the correct."""

    name: str
    correct: int
    incorrect: int
    no_answer: int
    fraction: Range


@dataclass(frozen=True)
class Speed:
    """Tokens per second of one test; `of_read_rate` and `of_peak` are fractions of the bounds."""

    name: str
    test: str
    mean: float
    deviation: float
    limit: str
    of_read_rate: float
    of_peak: float


@dataclass(frozen=True)
class Pair:
    """Two models on the same questions: how many only one has right, and McNemar's exact p."""

    name: str
    second: str
    only_first: int
    only_second: int
    p: float


@dataclass
class Results:
    """All results of several files, in their order."""

    losses: list[Loss] = field(default_factory=list)
    texts: list[TextScore] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    speeds: list[Speed] = field(default_factory=list)


KINDS = ("losses", "texts", "scores", "pairs", "speeds")


def read_results(paths: Iterable[str | PathLike[str]]) -> Results:
    """Read files that ``--json`` or ``fewbit compare --out FILE.json`` have written.

    Raises:
        FileFormatError: a file is not JSON, or not a result that a report shows.
        OSError: a file cannot be read.

    """
    files: list[tuple[str, Results]] = []
    for path in map(Path, paths):
        files.append((clean(path.stem), Results()))
        try:
            _add(files[-1][1], _parsed(path), files[-1][0])
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            if isinstance(error, FileFormatError):
                raise
            raise FileFormatError(
                f"`{path}` is not a complete result: {type(error).__name__} {error}",
                hint="name a file that `fewbit compare --out FILE.json` or `--json` has written",
                path=str(path),
            ) from None
    return _joined(files)


def _joined(files: Sequence[tuple[str, Results]]) -> Results:
    """All results; a name that several files use is preceded by that of its file."""
    joined = Results()
    for kind in KINDS:
        named = "scores" if kind == "pairs" else kind
        uses = Counter(n for _, each in files for n in {r.name for r in getattr(each, named)})
        for stem, each in files:
            names = {n: f"{stem} {n}" for n, count in uses.items() if count > 1 and n != stem}
            for r in getattr(each, kind):
                found = {"name": names.get(r.name, r.name)}
                if isinstance(r, Pair):
                    found["second"] = names.get(r.second, r.second)
                getattr(joined, kind).append(replace(r, **found))
    return joined


def clean(name: object) -> str:
    """A name without the folders of a path, and with � for characters that do not print.

    >>> clean("/home/ada/models/tiny.gguf Q4_0"), clean("owner/tiny"), clean("a\\nb")
    ('tiny.gguf Q4_0', 'owner/tiny', 'a�b')
    """
    text = str(name)
    if match := _PATH.match(text):
        text = text[match.end() :] or text.rstrip("/\\").rpartition("/")[2]
    return "".join(c if c.isprintable() else "\ufffd" for c in text) or "?"


def _parsed(path: Path) -> Any:
    if path.stat().st_size > _LONGEST:
        raise FileFormatError(
            f"`{path}` is longer than {_LONGEST:,} bytes", hint="results are small", path=str(path)
        )
    try:
        if path.suffix == ".jsonl":  # of a sweep, where the last line of a key counts
            lines = [json.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
            return list({line["key"]: line for line in lines}.values())
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FileFormatError(
            f"`{path}` is not JSON: {error}", hint="`--json` writes such files", path=str(path)
        ) from None


def _add(found: Results, value: Any, stem: str) -> None:
    """Sort the results of one file; those without a name of their own are called `stem`."""
    items = value if isinstance(value, list) else [value]
    if not items:
        raise FileFormatError(f"`{stem}` holds no result", hint="measure something first")
    for item in items:
        schema = item.get("schema", f"fewbit.any/{_VERSION}")
        if schema.rpartition("/")[2] != str(_VERSION):
            raise FileFormatError(
                f"`{stem}` has the schema `{clean(schema)}`, this fewbit reads version {_VERSION}",
                hint="upgrade fewbit",
            )
        if "attempts" in item:
            found.losses += [_cell(item)] if item["ok"] else []
        elif "rates" in item:
            found.speeds += _speeds(item)
        elif "weights" in item and "fast" in item:
            found.losses.append(_row(item))
        elif "kld" in item:
            found.losses.append(_loss(item, stem))
        elif "nll" in item:
            found.texts.append(_text(item, stem))
        elif "fractions" in item or "answers" in item:
            found.scores += map(_score, item.get("answers", [item]))
            found.pairs += map(_pair, item.get("paired", ()))
        else:
            raise FileFormatError(
                f"`{stem}` holds a result that a report does not show",
                hint="compare, divergence, perplexity, benchmark, bench and sweep write others",
            )


def _number(value: Any) -> float:
    """A number; nan for null, for what is not finite and for what is missing."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"a number is expected, found {value!r:.40}")
    return float(value) if math.isfinite(value) else math.nan


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 53:
        raise TypeError(f"a count is expected, found {value!r:.40}")
    return value


def _range(value: Mapping[str, Any]) -> Range:
    low, high = value.get("interval") or (None, None)
    return Range(_number(value["value"]), _number(low), _number(high))


def _row(item: Mapping[str, Any]) -> Loss:
    sizes = item["sizes"]
    return _loss(
        item["fast"], clean(item["format"]), bits=_number(sizes["bits_per_weight"]),
        bytes=_number(sizes["bytes"]), tokens_per_second=_number(item["tokens_per_second"]),
    )  # fmt: skip


def _loss(item: Mapping[str, Any], name: str, **known: float) -> Loss:
    percentiles = sorted((float(p), _number(v)) for p, v in item["kld_percentiles"].items())
    positions = tuple(
        (_count(p["start"]) + 1, _count(p["stop"]), _number(p["kld"]))
        for p in item.get("positions", ())
    )
    return Loss(
        name, clean(item["acts"]), _range(item["kld"]), _range(item["ratio"]),
        _number(item["same_top"]["value"]), _count(item["sample"]["chunks"]),
        _count(item["sample"]["ctx"]), tuple(percentiles), positions, **known,
    )  # fmt: skip


def _cell(item: Mapping[str, Any]) -> Loss:
    """A cell of a sweep; its intervals are Student's, by windows."""
    chunks = _count(item["chunks"])
    width = t_quantile(0.975, chunks - 1)

    def around(value: float, error: float) -> Range:
        return Range(value, value - width * error, value + width * error)

    kld, log = (
        around(_number(item[name]), _number(item[f"{name}_error"])) for name in ("kld", "ln_ratio")
    )
    ratio = Range(*(math.exp(edge) for edge in (log.value, log.low, log.high)))
    names = (clean(item[key]) for key in ("model", "format", "text", "kv"))
    return Loss(
        " ".join(names), clean(item["acts"]), kld, ratio, _number(item["same_top"]),
        chunks, _count(item["ctx"]),
        ((99.0, _number(item["kld_99"])), (100.0, _number(item["kld_max"]))), (),
        bits=_number(item["bits_per_weight"]), bytes=_number(item["bytes"]),
    )  # fmt: skip


def _text(item: Mapping[str, Any], name: str) -> TextScore:
    sample = item["sample"]
    chunks, ctx = _count(sample["chunks"]), _count(sample["ctx"])
    return TextScore(name, clean(item["acts"]), _range(item["ppl"]), chunks, ctx)


def _score(item: Mapping[str, Any]) -> Score:
    right = item["fractions"]["correct"]
    fraction = Range(*(_number(right[key]) for key in ("value", "low", "high")))
    return Score(
        clean(item["name"]), _count(item["correct"]), _count(item["incorrect"]),
        _count(item["no_answer"]), fraction,
    )  # fmt: skip


def _pair(item: Mapping[str, Any]) -> Pair:
    only = _count(item["only_first"]), _count(item["only_second"])
    return Pair(clean(item["first"]), clean(item["second"]), *only, _number(item["p"]))


def _speeds(item: Mapping[str, Any]) -> Sequence[Speed]:
    threads = _count(item["threads"])
    name = f"{clean(item['model'])} {clean(item['format'])}"
    name += f", {threads} threads" if threads else ""
    return [
        Speed(
            name, clean(rate["name"]), _number(rate["mean"]), _number(rate["deviation"]),
            clean(rate["limit"]), _number(rate["of_read_rate"]), _number(rate["of_peak"]),
        )
        for rate in item["rates"]
    ]  # fmt: skip


def pareto(losses: Sequence[Loss]) -> list[Loss]:
    """The models than which no other has both fewer bits and less divergence, by bits."""
    front: list[Loss] = []
    known = [e for e in losses if e.kld.value > 0 and e.bits > 0]
    for each in sorted(known, key=lambda e: (e.bits, e.kld.value)):
        if not front or each.kld.value < front[-1].kld.value:
            front.append(each)
    return front
