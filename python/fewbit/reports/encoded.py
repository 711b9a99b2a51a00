"""A model as if it were stored in a format, for `fewbit inspect --format`; nothing is written."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from fewbit.files.checkpoint import Checkpoint, LazyTensor
from fewbit.run.model import LoadedModel


def as_encoded(checkpoint: Checkpoint, recipe: str) -> Checkpoint:
    """Give `checkpoint` the tensors that `recipe` makes of it; each is encoded when it is read.

    Raises:
        FormatError: the recipe is unknown or needs an importance matrix.
        UnsupportedError: the model is quantized already.

    """
    model = LoadedModel(checkpoint).quantize(recipe)
    tensors = {
        name: LazyTensor(name, model.formats[name], tensor.shape, partial(model.data, name))
        for name, tensor in checkpoint.tensors.items()
    }
    return replace(checkpoint, tensors=tensors)
