"""Charts of a report as SVG, written by hand: no library, no script, every text escaped."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from fewbit.reports.result_files import Loss, Score, Speed, pareto

WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 76, 24, 18, 52
BAR = 34
"""Pixels from one bar to the next."""
NAMES = 210
"""Pixels left of bars."""
LETTER = 6.6
"""Pixels of a letter of a label, about."""
SHOWN_PERCENTS = (50.0, 90.0, 95.0, 99.0, 99.9, 100.0)
SHADES = 8
Scale: TypeAlias = Callable[[float], float]
Box: TypeAlias = tuple[float, float, float, float]


@dataclass
class Chart:
    """Pieces of one SVG of `height` pixels."""

    title: str
    height: float = HEIGHT
    pieces: list[str] = field(default_factory=list)

    def line(self, x: float, y: float, x2: float, y2: float, kind: str) -> None:
        """A straight line of the class `kind`."""
        self.pieces.append(
            f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'
        )

    def text(self, x: float, y: float, words: str, kind: str = "", most: int = 40) -> None:
        """A text, cut to `most` letters; the whole of it shows under the pointer."""
        turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if "turned" in kind else ""
        tip = f"<title>{html.escape(words)}</title>" if len(words) > most else ""
        self.pieces.append(
            f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}"{turn}>{tip}'
            f"{html.escape(_cut(words, most))}</text>"
        )

    def bar(self, x: float, y: float, width: float, height: float, kind: str, tip: str) -> None:
        """A rectangle with words under the pointer."""
        self.pieces.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}" '
            f'class="{kind}"><title>{html.escape(tip)}</title></rect>'
        )

    def dot(self, x: float, y: float, kind: str, tip: str, radius: float = 5) -> None:
        """A point with words under the pointer."""
        self.pieces.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" class="{kind}">'
            f"<title>{html.escape(tip)}</title></circle>"
        )

    def path(self, points: Iterable[tuple[float, float]], kind: str) -> None:
        """A line through points."""
        places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.pieces.append(f'<polyline points="{places}" class="{kind}"/>')

    def whiskers(self, x: float, low: float, high: float) -> None:
        """A vertical interval."""
        self.line(x, low, x, high, "whisker")
        for y in (low, high):
            self.line(x - 4, y, x + 4, y, "whisker")

    def reach(self, y: float, low: float, high: float) -> None:
        """A horizontal interval."""
        self.line(low, y, high, y, "whisker")
        for x in (low, high):
            self.line(x, y - 4, x, y + 4, "whisker")

    def svg(self) -> str:
        """The SVG; a reader of the screen says its title."""
        title = html.escape(self.title)
        return (
            f'<svg viewBox="0 0 {WIDTH} {self.height:.0f}" role="img" aria-label="{title}">'
            f"{''.join(self.pieces)}</svg>"
        )


def sizes_chart(losses: Sequence[Loss]) -> str | None:
    """KLD against bits per weight, with intervals and the Pareto front; None without points."""
    shown = [e for e in losses if e.kld.value > 0 and e.bits > 0]
    if not shown:
        return None
    chart = Chart("Mean KL divergence against bits per weight")
    bits = [e.bits for e in shown]
    room = 0.08 * (max(bits) - min(bits)) or 1.0
    x = _linear(min(bits) - room, max(bits) + room, LEFT, WIDTH - RIGHT)
    lows = [e.kld.low if e.kld.low > e.kld.value / 10 else e.kld.value / 2 for e in shown]
    highs = [e.kld.high if e.kld.high > e.kld.value else e.kld.value for e in shown]
    y = _log_axis(chart, min(lows), max(highs), "mean KLD, nats per token")
    _x_axis(chart, x, _ticks(min(bits) - room, max(bits) + room), "bits per weight")
    front = pareto(shown)
    chart.path([(x(e.bits), y(e.kld.value)) for e in front], "front")
    taken: list[Box] = [
        (x(e.bits) - 5, y(e.kld.value) - 5, x(e.bits) + 5, y(e.kld.value) + 5) for e in shown
    ]
    for e, low, high in zip(shown, lows, highs, strict=True):
        if not math.isnan(e.kld.low):
            chart.whiskers(x(e.bits), y(low), y(high))
        tip = f"{e.name}: {e.bits:.2f} bits per weight, KLD {e.kld.value:.6f}"
        chart.dot(x(e.bits), y(e.kld.value), "on" if e in front else "off", tip)
    for e in shown:
        _label(chart, e.name, x(e.bits), y(e.kld.value), taken)
    return chart.svg()


def percentiles_chart(losses: Sequence[Loss]) -> str | None:
    """The KLD that a percentage of tokens stays below, a line for each model."""
    lines = []
    for e in losses:
        found = {p: v for p, v in e.percentiles if v > 0}
        points = [(i, found[p]) for i, p in enumerate(SHOWN_PERCENTS) if p in found]
        if len(points) > 1:
            lines.append((e.title, points))
    if not lines:
        return None
    chart = Chart("Percentiles of the KL divergence of a token")
    x = _linear(-0.2, len(SHOWN_PERCENTS) - 0.8, LEFT, WIDTH - 190)
    values = [v for _, points in lines for _, v in points]
    y = _log_axis(chart, min(values), max(values), "KLD, nats", WIDTH - 190)
    for i, percent in enumerate(SHOWN_PERCENTS):
        words = {50.0: "median", 100.0: "maximum"}.get(percent, f"{percent:g} %")
        chart.text(x(i), HEIGHT - BOTTOM + 20, words, "tick middle")
    _lines(chart, lines, x, y)
    return chart.svg()


def positions_chart(losses: Sequence[Loss]) -> str | None:
    """The mean KLD by the number of tokens before in the window, a line for each model."""
    lines = []
    for e in losses:
        points = [((a + b) / 2, v) for a, b, v in e.positions if not math.isnan(v)]
        if len(points) > 1 and max(v for _, v in points) > 0:
            lines.append((e.title, points))
    if not lines:
        return None
    chart = Chart("Mean KL divergence by the position in the window")
    most = max(v for _, points in lines for _, v in points)
    ends = [p for _, points in lines for p, _ in points]
    x = _linear(min(ends), max(ends), LEFT, WIDTH - 190)
    y = _linear(0, 1.08 * most, HEIGHT - BOTTOM, TOP)
    for tick in _ticks(0, most):
        chart.line(LEFT, y(tick), WIDTH - 190, y(tick), "grid")
        chart.text(LEFT - 8, y(tick) + 4, f"{tick:g}", "tick end")
    chart.text(18, (HEIGHT - BOTTOM) / 2, "mean KLD, nats", "axis middle turned")
    _x_axis(chart, x, _ticks(min(ends), max(ends)), "tokens before", WIDTH - 190)
    _lines(chart, lines, x, y)
    return chart.svg()


def scores_chart(scores: Sequence[Score]) -> str | None:
    """Correct, incorrect and no answers of each model, with the Wilson interval of the correct."""
    known = [s for s in scores if s.correct + s.incorrect + s.no_answer]
    if not known:
        return None
    chart = Chart("Answers to multiple-choice questions", 70 + BAR * len(known))
    x = _linear(0, 1, NAMES, WIDTH - 90)
    for i, kind in enumerate(("correct", "incorrect", "no answer")):
        chart.bar(NAMES + 130 * i, 4, 12, 12, kind.replace(" ", "-"), kind)
        chart.text(NAMES + 130 * i + 18, 15, kind, "tick")
    for row, s in enumerate(known):
        top, at = 28 + BAR * row, 0.0
        total = s.correct + s.incorrect + s.no_answer
        for kind, count in _counts(s):
            tip = f"{s.name}: {count:,} of {total:,} {kind.replace('-', ' ')}"
            chart.bar(x(at), top, x(count / total) - x(0), 22, kind, tip)
            at += count / total
        if not math.isnan(s.fraction.low):
            chart.reach(top + 11, x(s.fraction.low), x(s.fraction.high))
        chart.text(x(1) + 10, top + 16, f"{s.correct:,} of {total:,}", "tick")
        chart.text(NAMES - 10, top + 16, s.name, "tick end", most=27)
    _percents(chart, x, 28 + BAR * len(known))
    return chart.svg()


def speed_charts(speeds: Sequence[Speed]) -> Iterator[tuple[str, str]]:
    """For each test its name and a bar for each model: tokens per second, and what limits it."""
    for test in dict.fromkeys(s.test for s in speeds):
        shown = [s for s in speeds if s.test == test and s.mean > 0]
        if not shown:
            continue
        chart = Chart(f"Tokens per second, {test}", 12 + BAR * len(shown))
        most = max(s.mean + (s.deviation if s.deviation > 0 else 0) for s in shown)
        x = _linear(0, most, NAMES, WIDTH - 210)
        for row, s in enumerate(shown):
            top = 6 + BAR * row
            words = f"{s.mean:,.1f}, limit: {s.limit}"
            chart.bar(NAMES, top, x(s.mean) - NAMES, 22, "speed", f"{s.name}: {words}")
            end = x(s.mean)
            if s.deviation > 0:
                chart.reach(top + 11, x(max(s.mean - s.deviation, 0)), x(s.mean + s.deviation))
                end = x(s.mean + s.deviation)
            chart.text(end + 10, top + 16, words, "tick")
            chart.text(NAMES - 10, top + 16, s.name, "tick end", most=27)
        yield test, chart.svg()


def _counts(s: Score) -> tuple[tuple[str, int], ...]:
    return ("correct", s.correct), ("incorrect", s.incorrect), ("no-answer", s.no_answer)


def _lines(
    chart: Chart, lines: Sequence[tuple[str, Sequence[tuple[float, float]]]], x: Scale, y: Scale
) -> None:
    """Lines with dots, and a legend in their order at the end."""
    order = sorted(range(len(lines)), key=lambda i: -lines[i][1][-1][1])
    for i, (name, points) in enumerate(lines):
        chart.path([(x(p), y(v)) for p, v in points], f"line c{i % SHADES}")
        for p, v in points:
            chart.dot(x(p), y(v), f"fill c{i % SHADES}", f"{name}: {v:.6f}", 3)
    for row, i in enumerate(order):
        top = TOP + 10 + row * min(20, (HEIGHT - BOTTOM - TOP) / len(lines))
        chart.line(WIDTH - 176, top, WIDTH - 156, top, f"line c{i % SHADES}")
        chart.text(WIDTH - 150, top + 4, lines[i][0], "tick", most=22)


def _label(chart: Chart, name: str, x: float, y: float, taken: list[Box]) -> None:
    """Write a name beside its point where it covers no other, as far as there is room."""
    wide = LETTER * len(_cut(name))
    places = [
        (left, top) for top in (-8.0, 16.0, -22.0, 30.0, -36.0, 44.0)
        for left in (x + 8, x - 8 - wide)
        if left > LEFT and left + wide < WIDTH - 4
    ] or [(min(max(x - wide / 2, 4), WIDTH - wide), -10.0)]  # fmt: skip
    boxes = [(left, y + top - 11, left + wide, y + top + 3) for left, top in places]
    free = (i for i, box in enumerate(boxes) if not any(_overlap(box, b) for b in taken))
    best = next(free, 0)
    taken.append(boxes[best])
    chart.text(places[best][0], y + places[best][1], name, "name")


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _percents(chart: Chart, x: Scale, bottom: float) -> None:
    for percent in range(0, 101, 20):
        chart.line(x(percent / 100), bottom - 4, x(percent / 100), bottom + 4, "grid")
        chart.text(x(percent / 100), bottom + 20, f"{percent} %", "tick middle")


def _x_axis(
    chart: Chart, x: Scale, ticks: Sequence[float], words: str, right: float = WIDTH - RIGHT
) -> None:
    chart.line(LEFT, HEIGHT - BOTTOM, right, HEIGHT - BOTTOM, "whisker")
    for tick in ticks:
        chart.line(x(tick), TOP, x(tick), HEIGHT - BOTTOM, "grid")
        chart.text(x(tick), HEIGHT - BOTTOM + 20, f"{tick:g}", "tick middle")
    chart.text((LEFT + right) / 2, HEIGHT - 8, words, "axis middle")


def _log_axis(
    chart: Chart, low: float, high: float, words: str, right: float = WIDTH - RIGHT
) -> Scale:
    """A logarithmic y axis with its grid; the scale of it."""
    bottom, top = math.log10(low) - 0.08, math.log10(high) + 0.08
    place = _linear(bottom, top, HEIGHT - BOTTOM, TOP)
    step = max(1, round((top - bottom) / 6))
    marks = [float(p) for p in range(math.ceil(bottom), math.floor(top) + 1) if p % step == 0]
    if len(marks) < 3:
        tens = range(math.floor(bottom), math.ceil(top))
        marks = [p + math.log10(m) for p in tens for m in (1, 2, 5)]
    for mark in marks:
        if bottom <= mark <= top:
            chart.line(LEFT, place(mark), right, place(mark), "grid")
            chart.text(LEFT - 8, place(mark) + 4, f"{10**mark:.3g}", "tick end")
    chart.text(18, (HEIGHT - BOTTOM) / 2, words, "axis middle turned")
    return lambda value: place(math.log10(value))


def _linear(low: float, high: float, first: float, last: float) -> Scale:
    """A scale from values to pixels."""
    width = high - low or 1.0
    return lambda value: first + (value - low) / width * (last - first)


def _ticks(low: float, high: float) -> list[float]:
    """About six round numbers between two values."""
    if not high > low:
        return [low]
    raw = (high - low) / 6
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _cut(words: str, most: int = 40) -> str:
    return words if len(words) <= most else words[: most - 1] + "…"
