"""Pictures of what quantization costs and gains: next tokens, size against divergence, speed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fewbit.api import Model
from fewbit.api_compare import compare
from fewbit.callbacks import Progress
from fewbit.errors import InputError
from fewbit.measure.roofline import rooflines
from fewbit.plots.figure import color, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def next_tokens(model: Model, prompt: str, formats: Sequence[str], count: int = 8) -> Figure:
    """The probabilities of the most likely next tokens after `prompt`, a bar for each format.

    The first bar is the model as it is; the legend has each format's KL divergence at this place.

    Raises:
        FormatError: a format is unknown.
        InputError: the prompt is empty or longer than the model's context.

    """
    ids = model.tokenizer.encode(prompt, special=False)
    if not ids:
        raise InputError("the prompt is empty", hint="for example `--prompt 'The old house'`")
    base = _chances(model, ids)
    some = np.argsort(-base, kind="stable")[:count]
    names = [model.tokenizer.decode([int(token)]) for token in some]
    figure, (panel,) = new_figure()
    width = 0.8 / (1 + len(formats))
    panel.bar(np.arange(count), base[some], width, color="#444444", label="original")
    for index, name in enumerate(formats):
        found = _chances(model.quantize(name), ids)
        divergence = float(np.sum(base * np.log(base / found)))
        panel.bar(
            np.arange(count) + (index + 1) * width, found[some], width, color=color(index),
            label=f"{name}: KLD {divergence:.4f}",
        )  # fmt: skip
    panel.set_xticks(np.arange(count) + width * len(formats) / 2, [repr(name) for name in names])
    panel.grid(visible=False, axis="x")
    panel.set(ylabel="probability")
    panel.set_title(f"Next token after {prompt!r}")
    panel.legend()
    return figure


def _chances(model: Model, ids: Sequence[int]) -> NDArray[np.float64]:
    logits = model.logits(list(ids), acts="f32")[-1].astype(np.float64)
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum())


def sizes(
    model: Model,
    text: str,
    formats: Sequence[str],
    chunks: int | None,
    progress: Progress | None = None,
) -> Figure:
    """Mean KL divergence of the model in each format against its bits per weight, with f32 acts.

    Raises:
        FormatError: a format is unknown.
        InputError: the text is too short for two windows.

    """
    _, *rows = compare(model, formats, text, chunks=chunks, progress=progress)
    figure, (panel,) = new_figure(height=5.0)
    for index, row in enumerate(rows):
        x, kld = row.sizes.bits_per_weight, row.weights.kld
        panel.errorbar(x, kld.value, kld.error, fmt="o", color=color(index), capsize=3)
        place = (x, kld.value)
        panel.annotate(row.format, place, (6, 4), textcoords="offset points", fontsize=9)
    panel.set_yscale("log")
    panel.set(xlabel="bits per weight of the model", ylabel="mean KL divergence")
    panel.set_title("Fewer bits lose more")
    return figure


def layers(
    model: Model,
    text: str,
    recipe: str,
    chunks: int | None,
    progress: Progress | None = None,
) -> Figure:
    """The KL divergence of each tensor quantized alone, as a map of layers and kinds of tensors.

    Raises:
        FormatError: the recipe is unknown.
        InputError: the text is too short for two windows, or the recipe changes no tensor.

    """
    found = model.sensitivity(recipe, text, chunks=chunks, progress=progress)
    named = [(*_place(row.name), row.alone.kld.value) for row in found.rows]
    across = list(dict.fromkeys(kind for _, kind, _ in named))
    down = list(dict.fromkeys(layer for layer, _, _ in named))
    values = np.full((len(down), len(across)), np.nan)
    for layer, kind, kld in named:
        values[down.index(layer), across.index(kind)] = kld
    height = 2.5 + 0.3 * len(down)
    figure, (panel,) = new_figure(width=2.5 + 0.8 * len(across), height=height)
    image = panel.imshow(values, cmap="viridis", aspect="auto", interpolation="nearest")
    panel.set_xticks(np.arange(len(across)), across, rotation=45, ha="right")
    panel.set_yticks(np.arange(len(down)), down)
    panel.grid(visible=False)
    panel.set(ylabel="layer")
    panel.set_title(f"KL divergence with one tensor in {recipe}")
    figure.colorbar(image, ax=panel, label="nats per token")
    return figure


def _place(name: str) -> tuple[str, str]:
    """The layer and the kind of a tensor: 3 and attn_q of blk.3.attn_q.weight."""
    words = name.removesuffix(".weight").split(".")
    return (words[1], ".".join(words[2:])) if words[0] == "blk" else ("", words[0])


def speed(formats: Sequence[str]) -> Figure:
    """Each format's two bounds on this machine: the memory's roof and the kernel's arithmetic.

    Raises:
        FormatError: a format is unknown.
        InputError: there is no format.

    """
    if not formats:
        raise InputError("no format named", hint="for example `Q8_0` and `Q4_0`")
    found = rooflines(formats)
    rate = found[0].memory * found[0].bits_per_weight / 8
    bits = np.geomspace(min(r.bits_per_weight for r in found) * 0.8,
                        max(r.bits_per_weight for r in found) * 1.25, 50)  # fmt: skip
    figure, (panel,) = new_figure(height=4.8)
    panel.plot(bits, 8 * rate / bits / 1e9, color="#444444",
               label=f"memory: {rate / 1e9:.1f} GB/s read")  # fmt: skip
    for index, r in enumerate(found):
        panel.plot([r.bits_per_weight], [r.arithmetic / 1e9], "o", color=color(index))
        panel.vlines(r.bits_per_weight, r.reached / 1e9, r.arithmetic / 1e9, color=color(index),
                     alpha=0.35)  # fmt: skip
        place = (r.bits_per_weight, r.arithmetic / 1e9)
        panel.annotate(r.format, place, (6, 6 if index % 2 else -10),
                       textcoords="offset points", fontsize=9)  # fmt: skip
    panel.set(ylim=(0, None), xlabel="bits per weight", ylabel="billion weights per second")
    panel.set_title("Points: arithmetic in the caches; below both lies what a large model reaches")
    panel.legend()
    return figure
