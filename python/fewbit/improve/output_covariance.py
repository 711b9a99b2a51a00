"""The covariance G = E[g g^T] of a product's output gradients: which errors of outputs matter.

g is the gradient, with respect to one token's output of the product, of the sum of -ln p(label)
over a window, with labels sampled from the model's own prediction. With H = E[x x^T] of the inputs
and an error E of the weights, the divergence KL(base || changed) is 1/2 tr(G E H E^T) nats per
token to second order (Martens and Grosse 2015, arXiv 1503.05671).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewbit import _core
from fewbit.callbacks import Progress
from fewbit.errors import InputError, UnsupportedError
from fewbit.run.model import LoadedModel

Floats = NDArray[np.float64]

BATCH = 2048
"""Tokens that go through a layer at a time."""
ENTIRE = 2048
"""Most outputs of a product whose covariance is an entire matrix."""
BLOCK = 256
"""Most outputs of a block of larger ones: such blocks keep 93 % of the gain."""


@dataclass(frozen=True)
class OutputCovariance:
    """Second moments of the output gradients of the product with weight `name`.

    `sums` are float64 [matrices, blocks, outputs, outputs] for one matrix or each expert: blocks on
    the diagonal, or a single block of all outputs. `counts` are the tokens that met each matrix,
    uint64; `tokens` all tokens.
    """

    name: str
    sums: Floats
    counts: NDArray[np.uint64]
    tokens: int

    @property
    def width(self) -> int:
        """Outputs of one matrix."""
        _, blocks, outputs, _ = self.sums.shape
        return int(blocks * outputs)

    def blocks(self, matrix: int = 0) -> Floats:
        """E[g g^T] over the tokens that met `matrix`, [blocks, outputs, outputs].

        Zeros if none did. This is what `_core.improve` takes as `output_covariance`.
        """
        mean: Floats = self.sums[matrix] / max(int(self.counts[matrix]), 1)
        return mean

    def mean(self, matrix: int = 0) -> Floats:
        """E[g g^T] as one matrix [width, width], zero outside the blocks."""
        found, start = np.zeros((self.width, self.width)), 0
        for block in self.blocks(matrix):
            stop = start + len(block)
            found[start:stop, start:stop] = block
            start = stop
        return found


def output_covariances(
    model: LoadedModel,
    windows: NDArray[np.uint32],
    *,
    wanted: Collection[str] | None = None,
    seed: int = 0,
    entire: int = ENTIRE,
    block: int = BLOCK,
    threads: int = 0,
    progress: Progress | None = None,
) -> Iterator[dict[str, OutputCovariance]]:
    """Yield the output covariances of one layer after another, from the last to the first.

    `windows` are token ids [windows, tokens]. Products of the layers are covered, or those of them
    that `wanted` names; the output layer is not. The last dict has the embedding's table, whose
    outputs are the rows that it gives. Memory holds the input of every layer for all windows
    (4 bytes x tokens x width x layers) and the values of one layer for `BATCH` tokens.

    Raises:
        InputError: there are no windows, or a token is not in the vocabulary.
        UnsupportedError: the model is on a card, or its layers are not connected by one value.

    """
    weights = model.weights
    if not isinstance(weights, _core.Weights):
        raise UnsupportedError(
            "gradients are computed on the CPU", hint='load the model with device="cpu"'
        )
    if windows.ndim != 2 or not windows.size:
        raise InputError(f"expected windows [windows, tokens], found shape {windows.shape}")
    differentiator = _core.Differentiator(model.plan.to_json(), weights, threads=threads)
    passes = _passes(differentiator, windows, seed, progress)
    layers = differentiator.products[:-1]
    tables = {op.weights[0] for op in model.plan.ops if op.kind == "embed"}
    names = {name for layer in layers for name in layer}
    if wanted is not None:
        names, tables = names & set(wanted), tables & set(wanted)
    for index in range(len(layers) - 1, -1, -1):
        found = _core.OutputCovariances(names, tables, entire, block)
        for each in passes:
            differentiator.back(each, found)
        if progress:
            progress(len(layers) - index, len(layers), f"gradients of segment {index}")
        yield {
            name: OutputCovariance(name, sums, counts, windows.size)
            for name, (sums, counts) in found.take().items()
        }


def _passes(
    differentiator: _core.Differentiator, windows: NDArray[np.uint32], seed: int,
    progress: Progress | None,
) -> list[_core.Pass]:  # fmt: skip
    """Forward passes over all windows, some at a time, with sampled labels."""
    ctx, passes = windows.shape[1], []
    step = max(1, BATCH // ctx)
    for start in range(0, len(windows), step):
        some = windows[start : start + step]
        made = differentiator.forward(np.ascontiguousarray(some).reshape(-1), [ctx] * len(some))
        rng = np.random.default_rng([seed, start])
        differentiator.sampled_loss(made, rng.random(some.size))
        passes.append(made)
        if progress:
            progress(min(start + step, len(windows)), len(windows), "forward passes")
    return passes


def predicted_divergence(
    errors: NDArray[np.floating], inputs: Floats, outputs: Floats, fraction: float = 1.0
) -> float:
    """1/2 tr(G E H E^T): the predicted KL(base || changed) in nats per token.

    `errors` E [rows, columns] are weights minus stored values, `inputs` H [columns, columns] and
    `outputs` G [rows, rows] second moments over the tokens that meet the matrix, which are
    `fraction` of all tokens.
    """
    e = errors.astype(np.float64)
    return 0.5 * fraction * float(np.einsum("rc,rc->", outputs @ e, e @ inputs))
