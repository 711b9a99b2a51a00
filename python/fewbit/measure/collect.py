"""Collect importance matrices from a text: the mean squared input of each column of weights.

The windows are ``llama-imatrix``'s: the text without one final newline is tokenised at once and cut
into windows of `ctx` tokens. Each token of a window goes through the model with f32 activations;
the inputs of each weight matrix are squared and summed, column by column.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewbit import _core
from fewbit.callbacks import Progress
from fewbit.errors import UnsupportedError
from fewbit.files.importance import COUNTS, SUMS, Imatrix, means
from fewbit.files.replace import replacing
from fewbit.measure.evaluate import windows
from fewbit.recipes import choose as recipes
from fewbit.run.limits import BATCH
from fewbit.run.model import LoadedModel

PRODUCTS = ("linear", "expert_linear")

FEW_TOKENS = 10_000
"""Fewer tokens give a warning: the relative error of a mean of n squares is about sqrt(2 / n) for
normal inputs, and much larger if a few inputs are large."""


@dataclass(frozen=True, eq=False)
class CollectedImatrix(Imatrix):
    """An importance matrix with what it was computed from.

    `sums` are of the squared inputs, float64 [matrices, columns], `counts` of the tokens that met
    each matrix, uint64 [matrices]. `unseen` names what no token met.
    """

    sums: Mapping[str, NDArray[np.float64]] = field(default_factory=dict, repr=False)
    counts: Mapping[str, NDArray[np.uint64]] = field(default_factory=dict, repr=False)
    ctx: int = 0
    unseen: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        """How many tokens went through the model."""
        return self.ctx * self.chunks

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons why this matrix may be unreliable."""
        found = [f"no token met {name}" for name in self.unseen]
        if self.tokens < FEW_TOKENS:
            found.append(
                f"{self.tokens:,} tokens are few: {FEW_TOKENS:,} and more tell columns apart"
            )
        return tuple(found)

    def save(self, path: str | PathLike[str]) -> None:
        """Write a GGUF file as ``llama-imatrix`` does; nothing is left behind on failure.

        Raises:
            OSError: the file cannot be written.

        """
        from gguf import GGUFWriter

        with replacing(Path(path)) as file, closing(GGUFWriter(file, "")) as writer:
            writer.add_string("general.type", "imatrix")
            writer.add_array("imatrix.datasets", list(self.datasets))
            writer.add_uint32("imatrix.chunk_count", self.chunks)
            writer.add_uint32("imatrix.chunk_size", self.ctx)
            for name in sorted(self.sums):
                writer.add_tensor(name + SUMS, _stored(self.sums[name]))
                writer.add_tensor(name + COUNTS, _stored(self.counts[name][:, None]))
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()


def imatrix(
    model: LoadedModel,
    text: str,
    ctx: int = 512,
    chunks: int | None = None,
    *,
    output: bool = False,
    dataset: str = "",
    progress: Progress | None = None,
) -> CollectedImatrix:
    """Collect the importance of each column of the weights on `text`, as ``llama-imatrix`` does.

    The weights of all blocks are covered, with `output` also the output layer's. `dataset` names
    the text in a saved file; `chunks` limits the number of windows.

    Raises:
        InputError: the text is too short for two windows.
        UnsupportedError: the model is on a card.

    """
    tokens = windows(model, text, ctx, chunks)
    asked = _asked(model, output)
    executor = model.executor
    if not isinstance(executor, _core.Executor):
        raise UnsupportedError(
            "importance matrices are collected on the CPU", hint='load the model with device="cpu"'
        )
    collector = executor.collector(asked)
    cache: Any = model.cache(1, ctx)
    count = len(tokens.inputs)
    for chunk, window in enumerate(tokens.inputs):
        cache.reset()
        for start in range(0, ctx, BATCH):
            executor.collect(cache, window[start : start + BATCH], collector)
        if progress:
            progress(chunk + 1, count, f"{(chunk + 1) * ctx:,} tokens")
    sums: dict[str, NDArray[np.float64]] = {}
    counts: dict[str, NDArray[np.uint64]] = {}
    for names, found, seen in collector.sums():
        sums |= dict.fromkeys(names, found)
        counts |= dict.fromkeys(names, seen)
    entries = {
        name: means(found.astype(np.float32), counts[name].astype(np.float32))
        for name, found in sums.items()
    }
    return CollectedImatrix(
        entries,
        datasets=(dataset,) if dataset else (),
        chunks=count,
        sums=sums,
        counts=counts,
        ctx=ctx,
        unseen=tuple(_unseen(model, counts)),
    )


def _stored(values: NDArray[Any]) -> NDArray[np.float32]:
    """As ggml has them: a matrix of one row is a vector."""
    return np.asarray(values[0] if len(values) == 1 else values, np.float32)


def _asked(model: LoadedModel, output: bool) -> set[str]:
    """The weights of products in the blocks, and the output's: ``llama-imatrix`` takes no other."""
    names = {op.weights[0] for op in model.plan.ops if op.kind in PRODUCTS}
    return {name for name in names if name.startswith("blk.") or (output and name[:7] == "output.")}


def _unseen(model: LoadedModel, counts: Mapping[str, NDArray[np.uint64]]) -> list[str]:
    """Weights of the blocks that would be quantized, and experts, that no token met."""
    found = []
    for name, tensor in model.checkpoint.tensors.items():
        wanted = recipes.is_quantizable(name, tensor.shape, model.config.architecture)
        if not name.startswith("blk.") or not wanted:
            continue
        missing = np.flatnonzero(counts.get(name, np.zeros(1, np.uint64)) == 0)
        if missing.size == counts.get(name, missing).size:
            found.append(f"`{name}`")
        elif missing.size:
            experts = ", ".join(str(expert) for expert in missing)
            found.append(f"experts {experts} of `{name}`")
    return found
