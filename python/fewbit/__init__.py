"""fewbit: a language model's weights in fewer bits, what that loses, and the result running.

>>> import fewbit
>>> model = fewbit.load("demo")
>>> small = model.quantize("Q4_0")
>>> text = str(small.generate("The old house", max_tokens=8))
"""

from fewbit import moved
from fewbit._core import __version__
from fewbit.api import Model, bench, load, quantize_file
from fewbit.api_compare import compare
from fewbit.callbacks import Progress
from fewbit.convert.findings import Verification
from fewbit.convert.verify import verify
from fewbit.demo import DEMO, demo_text
from fewbit.errors import (
    DeviceError,
    FewbitError,
    FileFormatError,
    FormatError,
    InputError,
    ShapeError,
    UnsupportedError,
)
from fewbit.files.importance import read_imatrix
from fewbit.formats.error_statistics import ErrorStatistics
from fewbit.formats.table import FORMATS, Format, find_format
from fewbit.formats.tensors import QuantizedTensor, dequantize, quantize
from fewbit.generation.conversation import Conversation, Reply
from fewbit.generation.many import Written
from fewbit.generation.text import Generation, Session
from fewbit.improve.calibration import Calibration
from fewbit.improve.covariance_file import CovarianceFile, read_covariances
from fewbit.improve.mixture import Mixture
from fewbit.improve.report import Improvement
from fewbit.improve.sensitivity_rows import Sensitivity
from fewbit.measure.collect import CollectedImatrix
from fewbit.measure.comparison import Comparison
from fewbit.measure.evaluate import divergence, perplexity
from fewbit.measure.multiple_choice.endpoint import Endpoint
from fewbit.measure.multiple_choice.results import Benchmark
from fewbit.measure.multiple_choice.run import benchmark
from fewbit.measure.next_tokens import NextTokens
from fewbit.measure.paired import Paired
from fewbit.measure.results import Divergence, Perplexity
from fewbit.measure.score import Score
from fewbit.measure.speed import Bench
from fewbit.plan.config import Config, Rope
from fewbit.plan.plan import Plan
from fewbit.plots.draw import plot
from fewbit.recipes.choose import Options
from fewbit.reports.contents import inspect
from fewbit.reports.explain import Explained, explain
from fewbit.reports.number_table import NumberTable, represent
from fewbit.reports.outliers import Outliers, find_outliers
from fewbit.reports.rounding import RoundedLists, round_numbers
from fewbit.reports.summaries import Contents
from fewbit.run.executor import Cache
from fewbit.run.sampling import Sampling
from fewbit.tokenizer.tokenizer import Tokenizer

__all__ = [
    "DEMO",
    "FORMATS",
    "Bench",
    "Benchmark",
    "Cache",
    "Calibration",
    "CollectedImatrix",
    "Comparison",
    "Config",
    "Contents",
    "Conversation",
    "CovarianceFile",
    "DeviceError",
    "Divergence",
    "Endpoint",
    "ErrorStatistics",
    "Explained",
    "FewbitError",
    "FileFormatError",
    "Format",
    "FormatError",
    "Generation",
    "Improvement",
    "InputError",
    "Mixture",
    "Model",
    "NextTokens",
    "NumberTable",
    "Options",
    "Outliers",
    "Paired",
    "Perplexity",
    "Plan",
    "Progress",
    "QuantizedTensor",
    "Reply",
    "Rope",
    "RoundedLists",
    "Sampling",
    "Score",
    "Sensitivity",
    "Session",
    "ShapeError",
    "Tokenizer",
    "UnsupportedError",
    "Verification",
    "Written",
    "__version__",
    "bench",
    "benchmark",
    "compare",
    "demo_text",
    "dequantize",
    "divergence",
    "explain",
    "find_format",
    "find_outliers",
    "inspect",
    "load",
    "perplexity",
    "plot",
    "quantize",
    "quantize_file",
    "read_covariances",
    "read_imatrix",
    "represent",
    "round_numbers",
    "verify",
]

moved.install()
del moved
