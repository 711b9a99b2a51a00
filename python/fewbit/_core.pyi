"""Types of the Rust core."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias, TypedDict, final, type_check_only

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ACTIVATIONS",
    "BATCH",
    "KV_TYPES",
    "NO_TOKEN",
    "Cache",
    "Collector",
    "Differentiator",
    "Executor",
    "FormatInfo",
    "OutputCovariances",
    "Pass",
    "Sampler",
    "ScaleGradients",
    "ScaledTensor",
    "Snapshot",
    "Weights",
    "__version__",
    "check_threads",
    "decode",
    "divergence",
    "encode",
    "encode_to_file",
    "find_format",
    "formats",
    "improve",
    "isa",
    "isas",
    "logprobs",
    "nll",
    "peak_rate",
    "random_fraction",
    "read_rate",
    "sample",
]

__version__: str
ACTIVATIONS: tuple[str, ...]
BATCH: int
KV_TYPES: tuple[str, ...]
NO_TOKEN: int

@final
class FormatInfo:
    @property
    def name(self) -> str: ...
    @property
    def family(self) -> str: ...
    @property
    def block(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def gguf_id(self) -> int | None: ...
    @property
    def scale_group(self) -> int | None: ...
    @property
    def has_minimum(self) -> bool: ...
    @property
    def activation_group(self) -> int | None: ...
    @property
    def needs_importance(self) -> bool: ...
    @property
    def larger_than_file(self) -> bool: ...

def formats() -> list[FormatInfo]: ...
def find_format(name: str) -> FormatInfo: ...
def encode(
    data: NDArray[np.uint8],
    source: str,
    columns: int,
    format: str,
    importance: NDArray[np.float32] | None = None,
    threads: int = 0,
) -> NDArray[np.uint8]: ...
def encode_to_file(
    data: NDArray[np.uint8],
    source: str,
    columns: int,
    format: str,
    path: str,
    offset: int,
    first: int = 0,
    importance: NDArray[np.float32] | None = None,
    threads: int = 0,
) -> None: ...
def decode(
    data: NDArray[np.uint8], format: str, columns: int, threads: int = 0
) -> NDArray[np.float32]: ...
def improve(
    weights: NDArray[np.float32],
    format: str,
    covariance: NDArray[np.float64],
    *,
    output_covariance: NDArray[np.float64] | None = None,
    held_out: NDArray[np.float64] | None = None,
    importance: NDArray[np.float32] | None = None,
    damping: float = 0.01,
    sweeps: int = 8,
    rounds: int = 2,
    blocks: int = 1,
    threads: int = 0,
) -> tuple[NDArray[np.uint8], Improvement]: ...

@type_check_only
class Improvement(TypedDict):
    before: float
    after: float
    predicted: float
    changed: int
    kept: int
    held_out: tuple[float, float] | None
    damping: float

@final
class Weights:
    def __new__(cls, keep_file_size: bool = False) -> Weights: ...
    def add(
        self,
        name: str,
        format: str,
        rows: int,
        columns: int,
        data: NDArray[np.uint8],
        matrices: int = 1,
    ) -> None: ...
    @property
    def nbytes(self) -> int: ...

@final
class Cache:
    @property
    def capacity(self) -> int: ...
    @property
    def sequences(self) -> int: ...
    def length(self, sequence: int = 0) -> int: ...
    def truncate(self, sequence: int, length: int) -> None: ...
    def reachable(self, sequence: int, length: int) -> int: ...
    def reset(self) -> None: ...
    def copy(self, source: int, target: int) -> None: ...
    def free(self, sequence: int) -> None: ...
    def bytes(self) -> int: ...
    def snapshot(self, sequence: int) -> Snapshot: ...
    def restore(self, snapshot: Snapshot, sequence: int) -> None: ...
    def export(self, sequence: int) -> NDArray[np.uint8]: ...
    def import_(self, sequence: int, length: int, data: NDArray[np.uint8]) -> None: ...

@final
class Snapshot:
    @property
    def length(self) -> int: ...
    @property
    def nbytes(self) -> int: ...

@final
class Executor:
    def __new__(
        cls, plan: str, weights: Weights, threads: int = 0, isa: str | None = None
    ) -> Executor: ...
    @property
    def isa(self) -> str: ...
    @property
    def threads(self) -> int: ...
    def cache(self, sequences: int, capacity: int, kv: str = "f32") -> Cache: ...
    def collector(self, names: set[str], covariance: bool = False, skip: int = 0) -> Collector: ...
    def collect(
        self,
        cache: Cache,
        tokens: NDArray[np.uint32],
        collector: Collector,
        complete: bool = False,
    ) -> NDArray[np.float32]: ...
    def forward(
        self,
        cache: Cache,
        tokens: NDArray[np.uint32],
        sequences: NDArray[np.uint32],
        outputs: NDArray[np.uint32],
        acts: str,
    ) -> NDArray[np.float32]: ...

@final
class Collector:
    def sums(self) -> list[tuple[list[str], NDArray[np.float64], NDArray[np.uint64]]]: ...
    def covariance(self, name: str, matrix: int = 0) -> NDArray[np.float64] | None: ...

@final
class ScaledTensor:
    def __new__(
        cls, data: NDArray[np.uint8], format: str, columns: int, d_at: int, m_at: int | None = None
    ) -> ScaledTensor: ...
    @property
    def d(self) -> NDArray[np.float32]: ...
    @property
    def m(self) -> NDArray[np.float32]: ...
    def set(self, d: NDArray[np.float32], m: NDArray[np.float32]) -> None: ...
    def data(self) -> NDArray[np.uint8]: ...

@final
class OutputCovariances:
    def __new__(
        cls,
        products: set[str],
        embeddings: set[str],
        most: int = 2048,
        block: int = 256,
        isa: str | None = None,
    ) -> OutputCovariances: ...
    def take(self) -> dict[str, tuple[NDArray[np.float64], NDArray[np.uint64]]]: ...

@final
class ScaleGradients:
    def __new__(
        cls, tensors: dict[str, ScaledTensor], vectors: set[str], isa: str | None = None
    ) -> ScaleGradients: ...
    def tensors(self) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]: ...
    def vectors(self) -> dict[str, NDArray[np.float64]]: ...

@final
class Pass:
    @property
    def gradient(self) -> NDArray[np.float32]: ...

@final
class Differentiator:
    def __new__(
        cls,
        plan: str,
        weights: Weights,
        scaled: dict[str, ScaledTensor] | None = None,
        threads: int = 0,
        isa: str | None = None,
    ) -> Differentiator: ...
    @property
    def products(self) -> list[list[str]]: ...
    def forward(
        self, tokens: NDArray[np.uint32], lengths: list[int], keep: bool = True
    ) -> Pass: ...
    def logits(self, pass_: Pass) -> NDArray[np.float32]: ...
    def sampled_loss(
        self,
        pass_: Pass,
        uniforms: NDArray[np.float64],
        observer: OutputCovariances | ScaleGradients | None = None,
    ) -> NDArray[np.uint32]: ...
    def divergence(
        self,
        pass_: Pass,
        base: Differentiator,
        base_pass: Pass,
        observer: OutputCovariances | ScaleGradients | None = None,
    ) -> NDArray[np.float64]: ...
    def back(
        self, pass_: Pass, observer: OutputCovariances | ScaleGradients | None = None
    ) -> int | None: ...

def isa() -> str: ...
def isas() -> list[str]: ...
def nll(logits: NDArray[np.float32], targets: NDArray[np.uint32]) -> NDArray[np.float64]: ...
def divergence(
    base: NDArray[np.float32], logits: NDArray[np.float32], targets: NDArray[np.uint32]
) -> dict[str, NDArray[np.float64]]: ...

@final
class Sampler:
    def __new__(
        cls,
        *,
        seed: int = 0,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        logit_bias: Sequence[tuple[int, float]] = ...,
        repeat_penalty: float = 1.0,
        repeat_last_n: int = 64,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        dry_multiplier: float = 0.0,
        dry_base: float = 1.75,
        dry_allowed_length: int = 2,
        dry_penalty_last_n: int = ...,
        breakers: Mapping[int, Sequence[Sequence[int]]] = ...,
    ) -> Sampler: ...
    @property
    def seed(self) -> int: ...
    @property
    def position(self) -> int: ...
    def accept(self, tokens: Sequence[int]) -> None: ...
    def truncate(self, length: int) -> None: ...
    def changed(self, logits: NDArray[np.float32]) -> NDArray[np.float64]: ...

_Scores: TypeAlias = tuple[NDArray[np.float64], NDArray[np.uint32], NDArray[np.float64]]

def sample(
    logits: NDArray[np.float32],
    samplers: Sequence[Sampler],
    masks: Sequence[NDArray[np.uint32] | None] | None = None,
    forced: Sequence[int | None] | None = None,
    top_n: int | None = None,
) -> tuple[NDArray[np.uint32], _Scores | None]: ...
def logprobs(
    logits: NDArray[np.float32], targets: NDArray[np.uint32], top_n: int = 0
) -> _Scores: ...
def random_fraction(seed: int, position: int) -> float: ...
def check_threads(threads: int) -> int: ...
def read_rate(threads: int = 0) -> float: ...
def peak_rate(threads: int = 0, isa: str | None = None) -> float: ...
