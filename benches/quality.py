"""Measure what codes lose: KL divergence of plain, importance-weighted and improved codes.

Each model is its own base, dequantized from its file. Text is cut in two: codes are calibrated on
one half and measured on windows of the other. All kinds of codes run on the same windows, so ratios
are paired. Formats and bytes of a row are the same for all kinds.

    python benches/quality.py demo --save-run benches/runs/DATE-quality.json
    python benches/quality.py MODEL.gguf --name "SmolLM2 135M" --text wiki.test.raw --formats Q4_0
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import fewbit
from benches.saved_runs import append, result, rounded
from fewbit import _core
from fewbit.improve.calibration import Calibration
from fewbit.improve.covariance import importance_of
from fewbit.measure.evaluate import windows
from fewbit.recipes.choose import Options

KINDS = ("plain", "imatrix", "good", "best")


@dataclass
class Measured:
    """Mean KL divergences of windows, nats per token, and seconds of quantizing."""

    values: NDArray[np.float64]
    seconds: float


class Base:
    """A model and the logits of its windows' second halves, computed once for all kinds."""

    def __init__(self, model: fewbit.Model, tokens: NDArray[np.uint32]) -> None:
        self.tokens = tokens
        self._logits = list(self._rows(model))

    def measure(self, model: fewbit.Model) -> NDArray[np.float64]:
        """The mean divergence of each window."""
        found = []
        for base, rows, window in zip(self._logits, self._rows(model), self.tokens, strict=True):
            targets = np.ascontiguousarray(window[-len(rows) :])
            found.append(_core.divergence(base, rows, targets)["kld"].mean())
        return np.array(found)

    def _rows(self, model: fewbit.Model) -> Iterator[NDArray[np.float32]]:
        ctx = self.tokens.shape[1]
        cache = model.cache(1, ctx)
        outputs = np.arange(ctx // 2, ctx - 1, dtype=np.uint32)
        for window in self.tokens:
            cache.reset()
            yield model.forward(cache, window[:-1], outputs=outputs, acts="f32")


def encoded(model: fewbit.Model, format_: str, kind: str, inputs: Inputs) -> fewbit.Model:
    """`model` in a format, with one kind of codes; the embedding's format is the same in all."""
    affine = fewbit.find_format(format_).family == "affine"
    table = "Q6_K" if model.config.width % 256 == 0 else "Q8_0"
    options = None if affine else Options(embedding=table, output=table, pure=True)
    if kind in ("plain", "imatrix"):
        given = inputs.importance if kind == "imatrix" else None
        return model.quantize(format_, given, options=options, requantize=True)
    if kind == "good":
        return model.quantize(
            format_, options=options, requantize=True, effort="good", calibration=inputs.covariances
        )
    return model.quantize(
        format_, options=options, requantize=True, effort="best", calibration=inputs.windows
    )


@dataclass
class Inputs:
    """What codes are made from: windows, the covariances of their inputs, and mean squares."""

    windows: Calibration
    covariances: fewbit.CovarianceFile
    importance: dict[str, NDArray[np.float32]]


def inputs_of(model: fewbit.Model, calibration: Calibration, folder: Path) -> Inputs:
    """Run the windows once; the importance of the blocks' columns is that of the same windows."""
    file = folder / "covariances.safetensors"
    model.save_covariances(file, calibration)
    covariances = fewbit.read_covariances(file)
    importance = {
        name: np.concatenate([importance_of(fitted.mean(i)) for i in range(len(fitted.counts))])
        for _, judges in covariances.judges(model)
        for name, fitted in ((name, each.fitted) for name, each in judges.items())
        if name.startswith("blk.")
    }
    return Inputs(calibration, covariances, importance)


def run(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """The results of one model, printed as they come."""
    model = fewbit.load(arguments.model, "cpu", threads=arguments.threads)
    first, second = halves(arguments.text)
    if arguments.swap:
        first, second = second, first
    if arguments.own:
        calibration, calibrated = model.calibrate(windows=arguments.windows), "its own text"
    else:
        text = first if arguments.calibration is None else halves(arguments.calibration)[0]
        calibration = model.calibrate(text, windows=arguments.windows)
        calibrated = arguments.calibrated or "the other half"
    found = windows(model, second, 512).inputs
    tokens = found[np.linspace(0, len(found) - 1, arguments.measured).round().astype(int)]
    name = arguments.name or Path(arguments.model).stem
    results: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        inputs = inputs_of(model, calibration, Path(folder))
        base = Base(model, tokens)
        for format_ in arguments.formats.split(","):
            measured = {}
            for kind in arguments.kinds.split(","):
                start = time.perf_counter()
                with encoded(model, format_, kind, inputs) as other:
                    _ = other.weights
                    seconds = time.perf_counter() - start
                    measured[kind] = Measured(base.measure(other), seconds)
                show(format_, kind, measured)
            results += as_results(name, format_, calibrated, measured)
            if arguments.save_run is not None:
                append(arguments.save_run, arguments.threads or os.cpu_count() or 1, results)
    return results


def halves(path: Path | None) -> tuple[str, str]:
    """A text in two, cut at the end of a line; the demo's own if no file is named."""
    text = fewbit.demo_text() if path is None else path.read_text("utf-8")
    middle = text.index("\n", len(text) // 2) + 1
    return text[:middle], text[middle:]


def ratio(measured: dict[str, Measured], kind: str) -> tuple[float, float]:
    """The divergence of a kind over that of `imatrix`, and the error of it over paired windows."""
    ours, theirs = measured[kind].values, measured["imatrix"].values
    value = float(ours.sum() / theirs.sum())
    deviations = (ours - value * theirs) / theirs.mean()
    return value, float(deviations.std(ddof=1) / np.sqrt(len(ours)))


def show(format_: str, kind: str, measured: dict[str, Measured]) -> None:
    """One line on stderr."""
    value = measured[kind]
    line = f"{format_} {kind}: KLD {value.values.mean():.5f}, {value.seconds:.1f} s"
    if kind in ("good", "best") and "imatrix" in measured:
        line += "; {:.3f} ± {:.3f} of imatrix".format(*ratio(measured, kind))
    print(line, file=sys.stderr, flush=True)


def as_results(
    name: str, format_: str, calibrated: str, measured: dict[str, Measured]
) -> list[dict[str, object]]:
    """Results as saved runs have them: a phase for each effort, beside plain and imatrix codes."""
    found: list[dict[str, object]] = []
    others = {
        kind: [float(measured[kind].values.mean())]
        for kind in ("plain", "imatrix")
        if kind in measured
    }
    for kind in ("good", "best"):
        if kind not in measured:
            continue
        phase, value = f"{kind}, calibrated on {calibrated}", measured[kind]
        loss = {"fewbit": [float(value.values.mean())]}
        beside = others if kind == "good" or "good" not in measured else {}
        found.append(result(name, format_, "nats", phase, loss | beside))
        if "imatrix" in measured:
            middle, error = ratio(measured, kind)
            span = [rounded(100 * (middle - error)), rounded(100 * (middle + error))]
            identity = {"name": name, "format": format_, "metric": "% of imatrix's nats"}
            found.append(identity | {"phase": phase, "fewbit": span})
        found.append(result(name, format_, "s", phase, {"fewbit": [value.seconds]}))
    return found


def main(arguments: Sequence[str]) -> None:
    """Measure one model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--name")
    parser.add_argument("--text", type=Path, help="default: the demo's own")
    parser.add_argument("--formats", default="Q4_0,Q4_K,IQ4_XS,Q3_K,Q2_K")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--windows", type=int, default=128, help="windows to calibrate on")
    parser.add_argument("--measured", type=int, default=24, help="windows to measure on")
    parser.add_argument("--own", action="store_true", help="calibrate on the model's own text")
    parser.add_argument("--swap", action="store_true", help="calibrate on the second half")
    parser.add_argument("--calibration", type=Path, help="calibrate on half of another text")
    parser.add_argument("--calibrated", help="a word for the calibration, if not the other half")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--save-run", type=Path)
    given = parser.parse_args(arguments)
    run(given)


if __name__ == "__main__":
    main(sys.argv[1:])
