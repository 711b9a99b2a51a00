"""Examples of the terms of quantization, decoded and measured on the built-in model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray

from fewbit.api import Model, load
from fewbit.demo import DEMO, demo_text
from fewbit.formats.tensors import quantize
from fewbit.measure.roofline import rooflines
from fewbit.recipes.choose import choose
from fewbit.reports.contents import block as block_of
from fewbit.reports.rounding import RoundedList, round_numbers
from fewbit.tables import Table

Example = list[str | Table]
TENSOR = "blk.0.ffn_down.weight"
SHOWN = 8
"""Numbers of a block that an example shows."""
PROMPT = "The old house"
SPEEDS = ("Q8_0", "Q4_0", "Q4_K", "Q3_K", "Q2_K", "IQ2_XXS", "IQ1_S")


@cache
def _demo() -> Model:
    return load(DEMO, "cpu")


def weights(count: int) -> list[float]:
    """The first `count` weights of a matrix of the demo."""
    return [float(v) for v in _demo().tensor(TENSOR)[0, :count]]


def decoded(format_: str, count: int) -> Example:
    """The first of `count` weights of the demo that are stored in `format_` together."""
    (found,) = round_numbers(weights(count), [format_]).lists
    table = found.table(SHOWN)
    head = f"{TENSOR}, row 0, columns 0 to {SHOWN - 1}{_scale(found)}:"
    total = f"average error of the {count} weights: {100 * found.mean_relative:.1f} %"
    return [head, "", table, "", total]


def _scale(found: RoundedList) -> str:
    if not found.blocks:
        return ""
    first = found.blocks[0]
    if first.scale is None:
        return ""
    zero = "" if first.zero is None else f", zero point {first.zero:.4g}"
    return f", scale {first.scale:.4g}{zero}"


def _block() -> Example:
    return decoded("Q4_0", 32)


def _super_block() -> Example:
    stored = quantize(_demo().tensor(TENSOR)[:1], "Q4_K")
    found = block_of(TENSOR, "Q4_K", stored.data, stored.shape[1], 0)
    table = Table(("number", "stored"), text=2, folds=2)
    for name in ("d", "dmin", "scales", "minima"):
        table.add_row(name, " ".join(f"{v:.4g}" for v in found.numbers[name]))
    table.add_row("= scales", " ".join(f"{v:.3g}" for v in found.scales))
    return [f"{TENSOR} in Q4_K, its first super-block:", "", table]


def _scale_example() -> Example:
    return decoded("sym4", SHOWN)


def _zero_point() -> Example:
    return decoded("asym4", SHOWN)


def _outlier() -> Example:
    found = []
    for name, tensor in _demo().checkpoint.tensors.items():
        if len(tensor.shape) < 2:
            continue
        x = _demo().tensor(name).astype(np.float64)
        far = np.abs(x - x.mean()) / x.std()
        row, column = np.unravel_index(int(far.argmax()), far.shape)
        found.append((float(far.max()), name, int(row), int(column), float(x[row, column])))
    table = Table(("tensor", "row", "column", "weight", "distance"))
    for sigmas, name, at, place, value in sorted(found, reverse=True)[:4]:
        table.add_row(name, str(at), str(place), f"{value:.4g}", f"{sigmas:.1f} σ")
    return ["the farthest weights of the demo:", "", table]


def _perplexity() -> Example:
    text = f"{PROMPT} was very quiet"
    ids = _demo().tokenizer.encode(text, special=False)
    chances = _chances(_demo(), ids)
    table = Table(("token", "p", "-ln p"))
    total = 0.0
    for id_, row in zip(ids[1:], chances, strict=False):
        p = float(row[id_])
        total -= math.log(p)
        table.add_row(repr(_demo().tokenizer.decode([id_])), f"{p:.4f}", f"{-math.log(p):.3f}")
    mean = total / (len(ids) - 1)
    return [
        f"the demo reads {text!r}:", "", table, "",
        f"mean {mean:.3f}, perplexity exp({mean:.3f}) = {math.exp(mean):.2f}",
    ]  # fmt: skip


def _divergence() -> Example:
    ids = _demo().tokenizer.encode(PROMPT, special=False)
    p = _chances(_demo(), ids)[-1]
    q = _chances(_demo().quantize("Q2_K"), ids)[-1]
    parts = p * np.log(p / q)
    table = Table(("next token", "p", "q", "p ln(p/q)"))
    for id_ in np.argsort(-p)[:5].tolist():
        name = repr(_demo().tokenizer.decode([id_]))
        table.add_row(name, f"{p[id_]:.4f}", f"{q[id_]:.4f}", f"{parts[id_]:+.4f}")
    table.add_row(f"all {p.size:,}", "1", "1", f"{parts.sum():+.4f}")
    return [f"after {PROMPT!r}, p of the demo and q of the demo in Q2_K:", "", table]


def _chances(model: Model, ids: list[int]) -> NDArray[np.float64]:
    logits = model.logits(ids, acts="f32").astype(np.float64)
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def _imatrix() -> Example:
    importance = _demo().imatrix(demo_text(), chunks=4)
    found = np.ravel(importance[TENSOR])
    order = np.argsort(-found)
    table = Table(("column", "mean square", "of the mean"))
    for column in (*order[:3].tolist(), *order[-3:].tolist()):
        ratio = f"{found[column] / found.mean():.3g}"
        table.add_row(str(column), f"{found[column]:.4g}", ratio)
    return [f"{TENSOR}, the columns that count most and least:", "", table]


def _acts() -> Example:
    row = _demo().tensor("token_embd.weight")[_demo().tokenizer.encode("house", special=False)[0]]
    (found,) = round_numbers([float(v) for v in row[:32]], ["sym8"]).lists
    return [
        f"the first 32 activations of a token, rounded to int8{_scale(found)}:",
        "",
        found.table(SHOWN),
    ]


def _mixture() -> Example:
    return mixture("Q4_K_M")


def mixture(recipe: str) -> Example:
    """How many tensors of the demo get each format in `recipe`, and which."""
    checkpoint = _demo().checkpoint
    names = checkpoint.tensors
    formats = choose(recipe, names, checkpoint.config, importance=names.keys())
    table = Table(("format", "tensors", "kinds"), text=3, folds=3)
    for format_, count in Counter(formats.values()).most_common():
        kinds = dict.fromkeys(
            name.removesuffix(".weight").split(".")[-1]
            for name, chosen in formats.items()
            if chosen == format_
        )
        table.add_row(format_, str(count), " ".join(kinds))
    return [f"the demo's tensors in {recipe}:", "", table]


def _roofline() -> Example:
    found = rooflines(SPEEDS)
    table = Table(("format", "bits per\nweight", "arithmetic", "memory", "limit"))
    for r in found:
        table.add_row(
            r.format, f"{r.bits_per_weight:.4g}", f"{r.arithmetic / 1e9:.1f}",
            f"{r.memory / 1e9:.1f}", r.limit,
        )  # fmt: skip
    return [
        "measured now on this machine, billion weights per second, all cores, int8 activations:",
        "", table, "",
        "arithmetic: a matrix in the processor's caches; memory: the read rate / bytes per weight",
    ]  # fmt: skip


EXAMPLES: Mapping[str, Callable[[], Example]] = {
    "block": _block, "super-block": _super_block, "scale": _scale_example,
    "zero point": _zero_point, "outlier": _outlier, "perplexity": _perplexity, "KLD": _divergence,
    "imatrix": _imatrix, "acts": _acts, "mixture": _mixture, "roofline": _roofline,
}  # fmt: skip
"""The example of each term."""
