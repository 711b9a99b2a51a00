"""What users call: `quantize` an array, `load` a model, and what a `Model` can do."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fewbit.convert.encode import Stream
from fewbit.errors import InputError, UnsupportedError
from fewbit.files.checkpoint import Checkpoint, open_checkpoint
from fewbit.formats.table import find_format
from fewbit.formats.tensors import QuantizedTensor, quantize
from fewbit.models import build_plan
from fewbit.plan.config import Config
from fewbit.plan.plan import Plan
from fewbit.recipes import choose as recipes
from fewbit.run.backend import (
    Backend,
    Executor,
    Stored,
    Weights,
    discard,
    executor,
    memory_rate,
    predict,
    stored_bytes,
)

if TYPE_CHECKING:
    from fewbit.measure.collect import CollectedImatrix
    from fewbit.measure.statistics import Divergence, Perplexity
    from fewbit.run.predictions import Predictions
    from fewbit.tokenizer.tokenizer import Tokenizer

__all__ = ["Model", "QuantizedTensor", "load", "quantize"]

Acts: TypeAlias = Literal["f32", "int8"]
Progress: TypeAlias = Callable[[int, int, str], None]
"""Called with bytes done, bytes in all, and the tensor's name."""
Importance: TypeAlias = Mapping[str, NDArray[np.float32]]


def load(
    path: str | PathLike[str],
    device: str = "auto",
    *,
    recipe: str | None = None,
    threads: int = 0,
    kv: str = "f32",
    progress: Progress | None = None,
) -> Model:
    """The model in a Hugging Face folder or GGUF file, or of that name on the hub, ready to run.

    With `recipe` it is quantized while it loads. `threads` 0 means all cores. `device` is "cpu",
    "gpu", "gpu:N" for the Nth adapter of `fewbit devices`, or "auto": a discrete card if there is
    one, else the CPU. Its caches keep keys and values as `kv`: "f32", "f16" in half the memory,
    or "int8" in a quarter, with a scale for each head and token.

    Raises:
        FewbitError: the file is damaged, its architecture unknown, or the device not to be had.

    """
    backend = Backend(device)
    checkpoint = open_checkpoint(path)
    model = Model(
        checkpoint, threads=threads, kv=kv, progress=None if recipe else progress, backend=backend
    )
    return model.quantize(recipe, progress=progress) if recipe else model


class Model:
    """A checkpoint whose tensors are stored in `formats`, and the executor that runs it.

    The weights are packed on first use, so what is only saved takes no memory.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        formats: Mapping[str, str] | None = None,
        *,
        importance: Importance | None = None,
        threads: int = 0,
        kv: str = "f32",
        progress: Progress | None = None,
        recipe: str | None = None,
        backend: Backend | None = None,
    ) -> None:
        self.checkpoint = checkpoint
        self.plan: Plan = build_plan(checkpoint.config)
        self.formats: dict[str, str] = {
            name: (formats or {}).get(name, checkpoint.tensors[name].format)
            for name in checkpoint.tensors
        }
        self.recipe = recipe
        self._importance: Importance = importance or {}
        self._threads, self._kv = threads, kv
        self._progress = progress
        self.backend = backend or Backend()

    @property
    def config(self) -> Config:
        """The numbers that the plan was built from."""
        return self.checkpoint.config

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that came with the checkpoint."""
        return self.checkpoint.tokenizer()

    @cached_property
    def weights(self) -> Weights:
        """The tensors that the plan needs, packed for the kernels or on the card."""
        stored = {name: (self.formats[name], *self._shape(name)) for name in self.plan.weights()}
        weights = self.backend.weights(self.plan, stored)
        try:
            self._fill(weights, stored)
        except BaseException:
            discard(weights)
            raise
        return weights

    def _fill(self, weights: Weights, stored: Mapping[str, Stored]) -> None:
        total, done = sum(map(stored_bytes, stored.values())), 0
        for name, (format_, rows, columns) in stored.items():
            shape = self.checkpoint.tensors[name].shape
            matrices = shape[0] if len(shape) == 3 else 1
            weights.add(name, format_, rows, columns, self.data(name), matrices)
            done += stored_bytes(stored[name])
            if self._progress:
                self._progress(done, total, name)

    @cached_property
    def executor(self) -> Executor:
        """The plan bound to the weights."""
        return executor(self.plan, self.weights, self._threads)

    def data(self, name: str) -> NDArray[np.uint8]:
        """The bytes of tensor `name` in its format, uint8 [rows, row bytes]."""
        return self._stream(self.formats).data(name)

    def _stream(self, formats: Mapping[str, str]) -> Stream:
        return Stream(self.checkpoint, formats, self._importance, self._threads)

    def _shape(self, name: str) -> tuple[int, int]:
        shape = self.checkpoint.tensors[name].shape
        return (1, shape[0]) if len(shape) == 1 else (int(np.prod(shape[:-1])), shape[-1])

    def cache(self, sequences: int = 1, capacity: int | None = None) -> Any:
        """An empty key/value cache of `capacity` tokens (the model's context) a sequence."""
        return self.executor.cache(sequences, capacity or self.config.context, self._kv)

    def memory_rate(self, threads: int = 0) -> float:
        """GB/s (10^9 bytes) of the memory that holds the weights: reading it, on a card copying."""
        return memory_rate(self.weights, threads)

    def forward(
        self,
        cache: Any,
        tokens: ArrayLike,
        sequences: ArrayLike | None = None,
        outputs: ArrayLike | None = None,
        acts: str = "int8",
    ) -> NDArray[np.float32]:
        """Append tokens [n] to their sequences (all to sequence 0) and return logits, f32.

        `outputs` are the ascending indices of the tokens whose logits [len(outputs), vocab] are
        wanted, all of them if None. `acts` "int8" rounds activations that meet quantized weights
        in groups of 32 (of 256 for some formats of 1 to 3 bits) and those that meet bfloat16 to
        bfloat16, "f32" leaves them.

        Raises:
            InputError: a token is not in the vocabulary, or the cache is full.

        """
        ids = _ids(tokens)
        where = np.zeros_like(ids) if sequences is None else _ids(sequences)
        wanted = np.arange(ids.size, dtype=np.uint32) if outputs is None else _ids(outputs)
        return self.executor.forward(cache, ids, where, wanted, acts)

    def predict(
        self, cache: Any, tokens: ArrayLike, outputs: ArrayLike, acts: str = "int8"
    ) -> Predictions:
        """As `forward` of sequence 0; the logits stay where they were made, and are measured there.

        Raises:
            InputError: as `forward`.

        """
        ids = _ids(tokens)
        return predict(self.executor, cache, ids, np.zeros_like(ids), _ids(outputs), acts)

    def logits(self, ids: ArrayLike, acts: str = "int8") -> NDArray[np.float32]:
        """The logits [n, vocab] after each of `ids`, from an empty cache."""
        tokens = _ids(ids)
        return self.forward(self.cache(1, max(tokens.size, 1)), tokens, acts=acts)

    def quantize(
        self,
        recipe: str,
        imatrix: Importance | None = None,
        *,
        options: recipes.Options | None = None,
        requantize: bool = False,
        progress: Progress | None = None,
    ) -> Model:
        """This model with its tensors stored as `recipe` says ("Q4_0", "Q4_K_M", "asym4-g32", ...).

        `imatrix` gives each tensor's importance of columns, f32 [columns], of experts one after
        another; `options` say which tensors depart from the recipe.

        Raises:
            FormatError: the recipe is unknown or needs an importance matrix.
            UnsupportedError: the model is quantized already and `requantize` is False.

        """
        importance = imatrix or {}
        chosen = recipes.choose(
            recipe,
            self.checkpoint.tensors,
            self.config,
            importance=importance.keys(),
            options=options,
        )
        self._refuse_rounding_twice(chosen, requantize)
        return Model(
            self.checkpoint, chosen, importance=importance, threads=self._threads, kv=self._kv,
            progress=progress, recipe=recipe, backend=self.backend,
        )  # fmt: skip

    def _refuse_rounding_twice(self, chosen: Mapping[str, str], requantize: bool) -> None:
        """What is stored in few bits already may stay as it is, or change where that is wanted."""
        stored = {name: tensor.format for name, tensor in self.checkpoint.tensors.items()}
        quantized = [n for n, f in self.formats.items() if not find_format(f).is_float]
        changed = [name for name in quantized if chosen[name] != self.formats[name]]
        altered = [name for name, format_ in self.formats.items() if format_ != stored[name]]
        if altered or (changed and not requantize):
            name = (changed or altered)[0]
            raise UnsupportedError(
                f"the model is quantized already: `{name}` is {self.formats[name]}",
                hint="quantize the original; `--allow-requantize` (`requantize=True`) rounds twice",
            )

    def save(self, path: str | PathLike[str], *, progress: Progress | None = None) -> None:
        """Write a GGUF file that fewbit and llama.cpp load; nothing is left behind on failure.

        Warns of what GGUF has no words for, where the file then predicts a little else.

        Raises:
            FormatError: GGUF cannot hold one of the formats.
            UnsupportedError: GGUF has no words for something that the model does not run without.

        """
        from fewbit.convert.gguf import gguf_formats, write_model
        from fewbit.files.gguf_config import unsaid

        if self.checkpoint.metadata is None:
            for what in unsaid(self.config):
                warnings.warn(what, stacklevel=2)
        stream = self._stream(gguf_formats(self.checkpoint, self.formats))
        write_model(Path(path), stream, self.recipe, progress)

    def perplexity(self, text: str, **options: Any) -> Perplexity:
        """The perplexity over `text`."""
        from fewbit.measure import evaluate

        return evaluate.perplexity(self, text, **options)

    def divergence(self, base: Model, text: str, **options: Any) -> Divergence:
        """How predictions diverge from those of `base`."""
        from fewbit.measure import evaluate

        return evaluate.divergence(self, base, text, **options)

    def imatrix(self, text: str, **options: Any) -> CollectedImatrix:
        """How much each column counts in `text`; options as `fewbit.measure.collect.imatrix`."""
        from fewbit.measure import collect as calibrate

        return calibrate.imatrix(self, text, **options)

    def generate(self, prompt: str | Sequence[int], **options: Any) -> Iterator[str]:
        """Text that continues `prompt`, piece by piece."""
        from fewbit.generation.text import generate

        return generate(self, prompt, **options)


def _ids(values: ArrayLike) -> NDArray[np.uint32]:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise InputError(
            f"ids must be a list of integers, found shape {array.shape} of {array.dtype}"
        )
    if array.size and (int(array.min()) < 0 or int(array.max()) > 0xFFFFFFFF):
        raise InputError(f"ids must be 0 or more, found {array.min()}")
    return np.ascontiguousarray(array, np.uint32)
