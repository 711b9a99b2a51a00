"""A model that can run: its plan, its weights in the memory of a device, its executor."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fewbit import _core
from fewbit.callbacks import Progress
from fewbit.convert.encode import TensorEncoder
from fewbit.convert.quantization import refuse_rounding_twice
from fewbit.errors import InputError
from fewbit.files.checkpoint import Checkpoint, fingerprint_of, open_checkpoint
from fewbit.files.mapped import drop_pages
from fewbit.models import build_plan
from fewbit.plan.config import Config
from fewbit.plan.plan import Plan
from fewbit.plan.shapes import matrix_shape
from fewbit.plan.sizes import Sizes, sizes_of
from fewbit.recipes import choose as recipes
from fewbit.run.device import Device
from fewbit.run.executor import Backend, Cache, Executor, Stored, Weights, stored_bytes
from fewbit.run.limits import Activations, KvType
from fewbit.run.predictions import Predictions
from fewbit.run.sampling import Sampling
from fewbit.tokenizer.load import tokenizer_of
from fewbit.tokenizer.tokenizer import Tokenizer

Importance: TypeAlias = Mapping[str, NDArray[np.float32]]
"""How much each column of a tensor counts, f32 [columns], of experts one after another."""


class LoadedModel:
    """A checkpoint whose tensors are stored in `formats`, and the executor that runs it.

    The weights are packed on first use, so a model that is only saved takes no memory. `close`, or
    the end of a `with` block, frees them.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        formats: Mapping[str, str] | None = None,
        *,
        importance: Importance | None = None,
        threads: int = 0,
        kv: KvType = "f32",
        progress: Progress | None = None,
        recipe: str | None = None,
        device: Device | None = None,
    ) -> None:
        self.checkpoint = checkpoint
        self.plan: Plan = build_plan(checkpoint.config)
        self.formats: dict[str, str] = {
            name: (formats or {}).get(name, checkpoint.tensors[name].format)
            for name in checkpoint.tensors
        }
        self.recipe = recipe
        self._importance: Importance = importance or {}
        self._threads, self._kv = _core.check_threads(threads), kv
        self._progress = progress
        self._device = device or Device()

    def __repr__(self) -> str:
        config, sizes = self.config, self.sizes
        device = self._device.name if "backend" not in self.__dict__ else self.backend.name
        recipe = self.recipe or "as stored"
        return (
            f"<fewbit.Model {config.name!r}: {config.architecture}, {sizes.weights:,} weights, "
            f"{recipe}, {sizes.bits_per_weight:.2f} bits per weight, {device}>"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the path and the formats: weights are read anew, so the files must be there."""
        options = {
            "importance": dict(self._importance), "threads": self._threads, "kv": self._kv,
            "recipe": self.recipe,
        }  # fmt: skip
        path = Path(self.checkpoint.path).absolute()
        return _reopened, (type(self), path, self.formats, self._device.name, options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the weights and working memory; the next use would load them anew."""
        executor = self.__dict__.pop("executor", None)
        weights = self.__dict__.pop("weights", None)
        if weights is not None:
            self.backend.discard(weights, executor)

    @property
    def config(self) -> Config:
        """The numbers that the plan was built from."""
        return self.checkpoint.config

    @property
    def kv(self) -> KvType:
        """The element type of its KV caches."""
        return self._kv

    @property
    def importance(self) -> Importance:
        """The importance of columns that its tensors are quantized with; empty without any."""
        return self._importance

    @property
    def sizes(self) -> Sizes:
        """Weights, bytes and bits per weight of the tensors that the plan uses."""
        return sizes_of(self.plan, self.formats)

    @cached_property
    def fingerprint(self) -> str:
        """A fingerprint of the names, shapes and formats of all tensors, and some of their rows."""
        return fingerprint_of(self.checkpoint)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that came with the checkpoint.

        Raises:
            FileFormatError: it is missing or damaged.
            UnsupportedError: it is of a kind that fewbit does not read.

        """
        return tokenizer_of(self.checkpoint)

    @cached_property
    def backend(self) -> Backend:
        """The device that runs the model: the CPU or a card."""
        return self._device.backend(self.plan)

    @cached_property
    def weights(self) -> Weights:
        """The tensors that the plan needs, packed for the kernels or on the card."""
        stored = {name: (self.formats[name], *self._shape(name)) for name in self.plan.weights()}
        weights = self.backend.weights(self.plan, stored)
        try:
            self._fill(weights, stored)
        except BaseException:
            self.backend.discard(weights)
            raise
        return weights

    def _fill(self, weights: Weights, stored: Mapping[str, Stored]) -> None:
        total, done = sum(map(stored_bytes, stored.values())), 0
        for name, (format_, rows, columns) in stored.items():
            shape = self.checkpoint.tensors[name].shape
            matrices = shape[0] if len(shape) == 3 else 1
            weights.add(name, format_, rows, columns, self.data(name), matrices)
            drop_pages(self.checkpoint.maps)
            done += stored_bytes(stored[name])
            if self._progress:
                self._progress(done, total, name)

    @cached_property
    def executor(self) -> Executor:
        """The plan bound to the weights."""
        return self.backend.executor(self.plan, self.weights, self._threads)

    def data(self, name: str) -> NDArray[np.uint8]:
        """The bytes of tensor `name` in its format, uint8 [rows, row bytes].

        Raises:
            InputError: the model has no such tensor.
            FormatError: a weight cannot be stored in the format.

        """
        self._check_name(name)
        return self._encoder(self.formats).data(name)

    def encoded(
        self, name: str, format_: str, importance: NDArray[np.float32] | None = None
    ) -> NDArray[np.uint8]:
        """The bytes of tensor `name` in another format, uint8 [rows, row bytes].

        Raises:
            FormatError: a weight cannot be stored in the format.

        """
        weights = {} if importance is None else {name: importance}
        return TensorEncoder(self.checkpoint, {name: format_}, weights, self._threads).data(name)

    def tensor(self, name: str) -> NDArray[np.float32]:
        """The values of tensor `name` as its format holds them, f32, in the tensor's shape.

        Raises:
            InputError: the model has no such tensor.
            FormatError: a weight cannot be stored in the format.

        """
        data = self.data(name)
        values = _core.decode(data, self.formats[name], self._shape(name)[1])
        return values.reshape(self.checkpoint.tensors[name].shape)

    def _check_name(self, name: str) -> None:
        if name not in self.checkpoint.tensors:
            raise InputError(
                f"the model has no tensor `{name}`",
                hint="`fewbit inspect MODEL` lists them, `model.formats` has their names",
                tensor=name,
            )

    def _encoder(self, formats: Mapping[str, str]) -> TensorEncoder:
        return TensorEncoder(self.checkpoint, formats, self._importance, self._threads)

    def _shape(self, name: str) -> tuple[int, int]:
        return matrix_shape(self.checkpoint.tensors[name].shape)

    def cache(self, sequences: int = 1, capacity: int | None = None) -> Cache:
        """An empty KV cache of `capacity` tokens (the model's context) for each sequence."""
        cache: Cache = self.executor.cache(sequences, capacity or self.config.context, self._kv)
        return cache

    def memory_rate(self, threads: int = 0) -> float:
        """GB/s (10^9 bytes) of the memory that holds the weights: reading it, on a card copying."""
        return self.backend.memory_rate(self.weights, threads)

    def peak_rate(self, threads: int = 0) -> float | None:
        """Billions of int8 multiply-adds per second: the CPU's peak; None on a card."""
        return self.backend.peak_rate(threads)

    def forward(
        self,
        cache: Cache,
        tokens: ArrayLike,
        sequences: ArrayLike | None = None,
        outputs: ArrayLike | None = None,
        acts: Activations = "int8",
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
        self, cache: Cache, tokens: ArrayLike, outputs: ArrayLike, acts: Activations = "int8"
    ) -> Predictions:
        """As `forward` of sequence 0; the logits stay where they were made, and are measured there.

        Raises:
            InputError: as `forward`.

        """
        ids, wanted = _ids(tokens), _ids(outputs)
        return self.backend.predict(self.executor, cache, ids, np.zeros_like(ids), wanted, acts)

    def decode(
        self,
        cache: Cache,
        token: int,
        sampling: Sampling,
        seed: int,
        acts: Activations,
        most: int,
    ) -> Generator[int] | None:
        """The tokens after `token` in sequence 0, up to `most`, chosen on the device.

        The draws are those of `fewbit.run.sampler` for `seed`.
        None if the device cannot choose tokens in this way.
        """
        return self.backend.decode(self.executor, cache, token, sampling, seed, acts, most)

    def logits(self, ids: ArrayLike, acts: Activations = "int8") -> NDArray[np.float32]:
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
    ) -> Self:
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
        stored = {name: tensor.format for name, tensor in self.checkpoint.tensors.items()}
        refuse_rounding_twice(stored, self.formats, chosen, requantize)
        return type(self)(
            self.checkpoint, chosen, importance=importance, threads=self._threads, kv=self._kv,
            progress=progress, recipe=recipe, device=self._device,
        )  # fmt: skip


def _reopened(
    kind: type[LoadedModel], path: Path, formats: dict[str, str], device: str, options: Any
) -> LoadedModel:
    """The model that a pickle holds, from the files at `path`."""
    return kind(open_checkpoint(path), formats, device=Device(device), **options)


def _ids(values: ArrayLike) -> NDArray[np.uint32]:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise InputError(
            f"ids must be a list of integers, found shape {array.shape} of {array.dtype}"
        )
    if array.size and (int(array.min()) < 0 or int(array.max()) > 0xFFFFFFFF):
        raise InputError(f"ids must be 0 or more, found {array.min()}")
    return np.ascontiguousarray(array, np.uint32)
