"""fewbit: a language model's weights in fewer bits, what that loses, and the result running.

>>> import fewbit
>>> model = fewbit.load(fewbit.DEMO)
>>> small = model.quantize("Q4_0")
>>> text = "".join(small.generate("The old house", max_tokens=8))
"""

from fewbit.api import Model, load
from fewbit.calibrate import CollectedImatrix
from fewbit.config import Config, Rope
from fewbit.demo import DEMO, demo_text
from fewbit.errors import (
    FewbitError,
    FileFormatError,
    FormatError,
    InputError,
    ShapeError,
    UnsupportedError,
)
from fewbit.evaluate import divergence, perplexity
from fewbit.formats import FORMATS, Format, find_format
from fewbit.imatrix import read_imatrix
from fewbit.plan import Plan
from fewbit.recipes import Options
from fewbit.sampling import Sampling
from fewbit.tensors import ErrorStatistics, QuantizedTensor, quantize

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
