"""fewbit: a language model's weights in fewer bits, what that loses, and the result running.

>>> import fewbit
>>> model = fewbit.load(fewbit.DEMO)
>>> small = model.quantize("Q4_0")
>>> text = "".join(small.generate("The old house", max_tokens=8))
"""

from fewbit.api import Model, load
from fewbit.demo import DEMO, demo_text
from fewbit.errors import (
    FewbitError,
    FileFormatError,
    FormatError,
    InputError,
    ShapeError,
    UnsupportedError,
)
from fewbit.files.importance import read_imatrix
from fewbit.formats.table import FORMATS, Format, find_format
from fewbit.formats.tensors import ErrorStatistics, QuantizedTensor, quantize
from fewbit.measure.collect import CollectedImatrix
from fewbit.measure.evaluate import divergence, perplexity
from fewbit.plan.config import Config, Rope
from fewbit.plan.plan import Plan
from fewbit.recipes.choose import Options
from fewbit.run.sampling import Sampling

__all__ = [
    "DEMO",
    "FORMATS",
    "CollectedImatrix",
    "Config",
    "ErrorStatistics",
    "FewbitError",
    "FileFormatError",
    "Format",
    "FormatError",
    "InputError",
    "Model",
    "Options",
    "Plan",
    "QuantizedTensor",
    "Rope",
    "Sampling",
    "ShapeError",
    "UnsupportedError",
    "demo_text",
    "divergence",
    "find_format",
    "load",
    "perplexity",
    "quantize",
    "read_imatrix",
]
