"""How often 95 % intervals hold on a real text, and how many tokens tell two formats apart.

    python benches/intervals.py [--model demo] [--text FILE] [--ctx 128] [--save-run FILE]

A model without float weights is decoded to BF16 first, beside its file.

All windows of the text are the truth. Coverage: windows are drawn from them, again and again, and
an interval should hold the mean of all in 95 % of the draws; intervals that count tokens as
independent stand beside those that count windows. Tokens needed: windows are taken in random
orders, until a paired test finds a difference (p <= 0.05), and until separate 95 % intervals of the
two KL divergences are disjoint; both must stay so in the rest of the text.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fewbit
from benches import saved_runs
from fewbit.measure.candidates import Candidate
from fewbit.measure.clusters import mean_of_windows, single_tokens
from fewbit.measure.comparing import run_together, started
from fewbit.measure.evaluate import Variant, windows
from fewbit.measure.significance import t_quantile, t_two_sided
from fewbit.measure.token_values import TokenValues

FORMATS = ("Q4_K_M", "IQ4_XS")
DRAWS, ORDERS, FEWEST = 2000, 400, 2

Windows = NDArray[np.float64]
"""Values of a text, [windows, scored tokens]."""


def coverage(values: Windows, count: int, *, by_tokens: bool, seed: int = 0) -> float:
    """How often the interval of `count` drawn windows holds the mean of all."""
    rng, truth = np.random.default_rng(seed), values.mean()
    size = values.shape[1]
    sizes = single_tokens(count * size) if by_tokens else np.full(count, size)
    held = 0
    for _ in range(DRAWS):
        drawn = values[rng.integers(0, len(values), count)]
        low, high = mean_of_windows(drawn.ravel(), sizes).interval
        held += low <= truth <= high
    return held / DRAWS


def tokens_needed(
    first: Windows, second: Windows, of_orders: float, seed: int = 0
) -> tuple[float, float]:
    """Tokens until the paired test, and separate intervals, tell the two apart in most orders.

    `of_orders` is the fraction of orders in which they must; infinite if the text is too short.
    """
    rng, size = np.random.default_rng(seed), first.shape[1]
    a, b = first.mean(axis=1), second.mean(axis=1)
    paired, separate = [], []
    for _ in range(ORDERS):
        order = rng.permutation(len(a))
        paired.append(size * _stays(lambda n, o=order: _is_paired(a[o[:n]] - b[o[:n]]), len(a)))
        separate.append(size * _stays(lambda n, o=order: _disjoint(a[o[:n]], b[o[:n]]), len(a)))
    place = min(int(of_orders * ORDERS), ORDERS - 1)
    return sorted(paired)[place], sorted(separate)[place]


def _stays(holds: Callable[[int], bool], most: int) -> float:
    """The fewest windows from which on it holds; infinite if it does not hold for all."""
    found = float("inf")
    for count in range(most, FEWEST - 1, -1):
        if not holds(count):
            break
        found = count
    return found


def _is_paired(differences: Windows) -> bool:
    count = len(differences)
    error = differences.std(ddof=1) / count**0.5
    return t_two_sided(differences.mean() / error, count - 1) <= 0.05


def _disjoint(a: Windows, b: Windows) -> bool:
    reach = t_quantile(0.975, len(a) - 1) / len(a) ** 0.5
    return abs(a.mean() - b.mean()) > reach * (a.std(ddof=1) + b.std(ddof=1))


class Int8(Candidate):
    """A model that is measured with int8 activations alone."""

    @property
    def variants(self) -> tuple[Variant, ...]:
        return (Variant(self.model, "int8"),)


def measured(
    model: str, text: str | None, ctx: int, chunks: int | None = None
) -> dict[str, TokenValues]:
    """The values of each format's scored tokens, int8 activations."""
    base = fewbit.load(model, "cpu")
    if all(not fewbit.find_format(base.formats[op.weights[0]]).is_float
           for op in base.plan.ops if op.kind == "linear"):  # fmt: skip
        base.quantize("BF16", requantize=True).save(f"{model}.bf16.gguf")
        base = fewbit.load(f"{model}.bf16.gguf", "cpu")
    content = fewbit.demo_text() if text is None else text
    cut = windows(base, content, ctx, chunks)
    found = [Int8(name, base.quantize(name)) for name in FORMATS]
    job = started(Variant(base, "f32"), cut, found, content, _progress)
    run_together(job)
    return job.compared


def _progress(done: int, total: int, text: str) -> None:
    if done % 10 == 0:
        print(f"{text} {done} of {total}", file=sys.stderr, flush=True)


def results(name: str, values: dict[str, TokenValues]) -> list[dict[str, Any]]:
    """All results of a model and a text, for a saved run."""
    shaped = {
        format_: {
            key: found.tokens(key).astype(np.float64).reshape(len(found), found.scored)
            for key in ("kld", "nll", "same_top")
        }
        for format_, found in values.items()
    }
    rows = []
    for key, of in (("kld", "mean KLD"), ("nll", "ln PPL"), ("same_top", "same top")):
        for count in (12, 24, 48):
            for by_tokens, phase in ((False, "by windows"), (True, "by tokens")):
                held = coverage(shaped[FORMATS[0]][key], count, by_tokens=by_tokens)
                rows.append(
                    saved_runs.result(
                        name, FORMATS[0], "fraction", f"{of}, {count} windows, {phase}",
                        {"fewbit": [held]},
                    )
                )  # fmt: skip
    both = " and ".join(FORMATS)
    for key, of in (("kld", "KLD"), ("nll", "ln PPL")):
        for of_orders in (0.5, 0.95):
            first, second = (shaped[format_][key] for format_ in FORMATS)
            needed = tokens_needed(first, second, of_orders)
            for count, how in zip(needed, ("paired test", "separate intervals"), strict=True):
                phase = f"{of}, {how}, {100 * of_orders:g} % of orders"
                if np.isfinite(count):
                    row = saved_runs.result(name, both, "tokens", phase, {"fewbit": [count]})
                    rows.append(row)
                else:
                    print(f"{both:20} {phase:40} more than {first.size} tokens")
    return rows


def main() -> None:
    """Print the results, and append them to a saved run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--text", type=Path)
    parser.add_argument("--ctx", type=int, default=128)
    parser.add_argument("--chunks", type=int)
    parser.add_argument("--save-run")
    options = parser.parse_args()
    text = None if options.text is None else options.text.read_text("utf-8")
    values = measured(options.model, text, options.ctx, options.chunks)
    count = len(next(iter(values.values())))
    source = "its text" if options.text is None else options.text.name
    found = results(
        f"{Path(options.model).stem}, {source}, {count} windows of {options.ctx}", values
    )
    for row in found:
        print(f"{row['format']:20} {row['phase']:40} {row['fewbit']} {row['metric']}")
    path = saved_runs.target(options.save_run)
    if path is not None:
        saved_runs.append(path, 0, found)


if __name__ == "__main__":
    main()
