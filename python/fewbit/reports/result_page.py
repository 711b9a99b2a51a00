"""The HTML page of a report: one file without script that loads nothing from anywhere."""

from __future__ import annotations

import html
from collections.abc import Iterator

from fewbit import _core
from fewbit.reports import charts
from fewbit.reports.result_files import Results
from fewbit.reports.result_tables import tables

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_COLORS = ("#1f6feb", "#d1495b", "#2e8b57", "#c47f17", "#7b5ea7", "#8c564b", "#2a8f90", "#777")
_STYLE = (
    ":root{color-scheme:light dark;--ink:#1c2128;--soft:#59636e;--grid:#e2e5e9;--back:#fff;"
    "--blue:#1f6feb;--orange:#e09f3e;--gray:#9aa4af}"
    "@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9aa4af;--grid:#30363d;"
    "--back:#0d1117;--blue:#4c8dff;--orange:#c9882b;--gray:#6e7781}}"
    "body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--back);"
    "max-width:60em;margin:2em auto;padding:0 1em}h1{font-size:1.6em}h2{margin-top:2em}"
    "figure{margin:1em 0}figcaption{color:var(--soft);font-size:.9em}"
    "svg{width:100%;height:auto;display:block}.wide{overflow-x:auto}"
    "table{border-collapse:collapse;font-size:.85em;font-variant-numeric:tabular-nums}"
    "td,th{padding:.25em .6em;text-align:right;white-space:nowrap;"
    "border-bottom:1px solid var(--grid)}"
    "td:first-child,th:first-child{text-align:left;white-space:normal;min-width:7em;"
    "max-width:20em;overflow-wrap:anywhere}"
    "text{font:12px system-ui,sans-serif;fill:var(--ink)}.tick,.axis{fill:var(--soft)}"
    ".middle{text-anchor:middle}.end{text-anchor:end}.name{font-weight:600}"
    ".grid{stroke:var(--grid)}.whisker{stroke:var(--ink);stroke-width:1.2}"
    "polyline{fill:none;stroke-width:2}.front{stroke:var(--blue);stroke-dasharray:5 4}"
    ".on,.speed,.correct{fill:var(--blue)}.off,.no-answer{fill:var(--gray)}"
    ".incorrect{fill:var(--orange)}.line{stroke-width:2}"
    + "".join(f".line.c{i}{{stroke:{c}}}.fill.c{i}{{fill:{c}}}" for i, c in enumerate(_COLORS))
)
_FRONT = (
    "Lower left is better. The dashed line is the Pareto front: no other model has both fewer bits "
    "and less divergence. Bars are 95 % intervals; a model whose divergence is 0 has no point."
)
_PERCENTILES = "Half of all tokens diverge less than the median; the maximum is the worst token."
_POSITIONS = "Means over ranges of positions in the window of text."
_SCORES = "Bars on the correct answers are 95 % Wilson intervals."
_SPEED = "Whiskers are standard deviations of repetitions; the limit is the bound that is near."


def report_html(found: Results, title: str = "What quantization costs") -> str:
    """A page with charts and tables of all results; every name is escaped."""
    figures = "".join(
        f"<h2>{html.escape(head)}</h2><figure>{svg}<figcaption>{html.escape(words)}</figcaption>"
        "</figure>"
        for head, svg, words in _figures(found)
    )
    listed = "".join(
        f'<h2>{html.escape(head)}</h2><div class="wide">{table.to_html()}</div>'
        for head, table in tables(found)
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{html.escape(title)}</h1>{figures}{listed}"
        f"<p>Made by fewbit {_core.__version__}.</p></body></html>\n"
    )


def _figures(found: Results) -> Iterator[tuple[str, str, str]]:
    """Heading, chart and caption of each figure that has data."""
    for head, svg, words in (
        ("Loss against size", charts.sizes_chart(found.losses), _FRONT),
        ("Divergence of tokens", charts.percentiles_chart(found.losses), _PERCENTILES),
        ("Divergence by position", charts.positions_chart(found.losses), _POSITIONS),
        ("Answers", charts.scores_chart(found.scores), _SCORES),
    ):
        if svg is not None:
            yield head, svg, words
    for test, svg in charts.speed_charts(found.speeds):
        yield f"Speed, {test}", svg, _SPEED
