"""Turn the tensors of a Hugging Face checkpoint into those of GGUF: names, row order, offsets.

Nothing is read here: a `Source` describes a GGUF tensor and how it is made when it is read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewbit.errors import FileFormatError, UnsupportedError
from fewbit.files.mapped import intact
from fewbit.files.names import gguf_names, is_buffer, rotated_heads
from fewbit.files.safetensors import TensorInfo
from fewbit.plan.config import Config, Delta

Array = NDArray[Any]
FORMATS: dict[str, np.dtype[np.unsignedinteger[Any]]] = {
    "F32": np.dtype("<u4"),
    "F16": np.dtype("<u2"),
    "BF16": np.dtype("<u2"),
}
"""Float format -> dtype of the integers that hold its bits."""
_EXPERT = re.compile(r"(.*\.experts)\.([0-9]{1,6})\.(.*)")
_NOT_TEXT = re.compile(r"(^|\.)(visual|vision_tower|multi_modal_projector|mtp)\.")
"""Tensors of vision encoders and of multi-token prediction: they are not loaded."""


@dataclass(frozen=True)
class Source:
    """A tensor that is made on demand: elements of `format`, as integers that hold their bits.

    MXFP4 is bytes, [..., blocks of a row, 17]. `load` returns all elements in `shape`; `load_rows`
    returns the rows from a start to a stop without loading the others, None where it cannot.
    """

    format: str
    shape: tuple[int, ...]
    load: Callable[[], Array]
    load_rows: Callable[[int, int], Array] | None = None

    def map(self, change: Callable[[Array], Array], shape: tuple[int, ...]) -> Source:
        """Apply `change` to the elements; the result has `shape`."""
        return replace(self, shape=shape, load=lambda: change(self.load()), load_rows=None)

    def permuted(self, order: NDArray[np.int64], axis: int = 0) -> Source:
        """Select the slices `order` along an axis, which has all of them, in that order."""
        shape = (*self.shape[:axis], order.size, *self.shape[axis + 1 :])
        found = self.map(lambda x: np.take(x, order, axis), shape)
        if axis or len(shape) != 2:
            return found
        return replace(
            found, load_rows=lambda start, stop: np.take(self.load(), order[start:stop], 0)
        )

    def floats(self, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Source:
        """Apply `change` to the values; the result is F32."""

        def load() -> Array:
            bits = self.load()
            if self.format == "BF16":
                values = (bits.astype("<u4") << 16).view("<f4")
            else:
                values = bits.view("<f2" if self.format == "F16" else "<f4").astype("<f4")
            return change(values).astype("<f4").view("<u4")

        return Source("F32", self.shape, load)

    def read(self) -> NDArray[np.uint8]:
        """Read all bytes, uint8 [rows, row bytes]."""
        return self._bytes(self.load(), math.prod(self.shape[:-1]))

    @property
    def read_rows(self) -> Callable[[int, int], NDArray[np.uint8]] | None:
        """Function that reads the bytes of the rows from a start to a stop; None without one."""
        load_rows = self.load_rows
        if load_rows is None:
            return None
        return lambda start, stop: self._bytes(load_rows(start, stop), stop - start)

    def _bytes(self, data: Array, rows: int) -> NDArray[np.uint8]:
        return np.ascontiguousarray(data).reshape(rows, -1).view(np.uint8)


def gguf_tensors(infos: Mapping[str, TensorInfo], config: Config) -> dict[str, Source]:
    """Map GGUF names to tensors, for all tensors of the text model.

    Raises:
        UnsupportedError: the architecture does not have a tensor, or its dtype is not supported.
        FileFormatError: an expert is missing, or a shape does not fit the configuration.

    """
    sources = _stacked({_name(k): t for k, t in infos.items() if _is_weight(k, t)})
    if split := _SPLITS.get(config.architecture):
        sources = split(sources, config)
    names = gguf_names(sources, config.architecture, config.layers)
    return {name: _reshaped(name, sources[source], config) for name, source in names.items()}


def _is_weight(name: str, info: TensorInfo) -> bool:
    """Whether a tensor is a weight of the text model; decided before its dtype is looked at."""
    return not (_NOT_TEXT.search(name) or is_buffer(name) or 0 in info.shape)


def _name(name: str) -> str:
    """Drop the prefix that models with a vision encoder put before the names of the text model."""
    return name.replace("language_model.model.", "model.").replace("language_model.", "")


def _stacked(infos: Mapping[str, TensorInfo]) -> dict[str, Source]:
    """Stack the tensors of single experts as [experts, ...]; leave the others as they are."""
    found: dict[str, Source] = {}
    by_expert: dict[str, dict[int, Source]] = {}
    for name, info in infos.items():
        source = _source(name, info)
        if match := _EXPERT.fullmatch(name):
            by_expert.setdefault(f"{match[1]}.{match[3]}", {})[int(match[2])] = source
        else:
            found[name] = source
    for name, experts in by_expert.items():
        ordered = [experts.get(i) for i in range(len(experts))]
        same = {(s.format, s.shape) for s in ordered if s is not None}
        if None in ordered or len(same) != 1:
            raise FileFormatError(
                f"experts of `{name}` are missing, or differ in shape or dtype",
                hint="download the checkpoint again",
                tensor=name,
            )
        found[name] = _stack([s for s in ordered if s is not None])
    return found


def _stack(sources: Sequence[Source]) -> Source:
    first = sources[0]

    def load_rows(start: int, stop: int) -> Array:
        height = first.shape[0]
        each = range(start // height, -(-stop // height))
        cut = [(max(start - i * height, 0), min(stop - i * height, height)) for i in each]
        return np.concatenate(
            [sources[i].load()[low:high] for i, (low, high) in zip(each, cut, strict=True)]
        )

    return replace(
        first,
        shape=(len(sources), *first.shape),
        load=lambda: np.stack([s.load() for s in sources]),
        load_rows=load_rows,
    )


def _source(name: str, info: TensorInfo) -> Source:
    if info.dtype == "U8" and name.endswith(("_blocks", "_scales")):
        return Source("U8", info.shape, lambda: intact(info.data).reshape(info.shape))
    if info.dtype not in FORMATS:
        raise UnsupportedError(
            f"tensor `{name}` has the unsupported dtype {info.dtype}",
            hint="known in safetensors files: F32, F16, BF16",
            tensor=name,
        )
    shape, integers = info.shape or (1,), FORMATS[info.dtype]
    return Source(info.dtype, shape, lambda: intact(info.data).view(integers).reshape(shape))


def _reshaped(name: str, source: Source, config: Config) -> Source:
    """Change one tensor to what GGUF stores."""
    architecture, delta = config.architecture, config.delta
    if heads := rotated_heads(name, architecture, config.heads, config.kv_heads):
        return _interleaved(name, source, heads, config.head_dim)
    if architecture == "gpt2" and len(source.shape) == 2 and name.startswith("blk."):
        return source.map(lambda x: x.T, source.shape[::-1])
    if name.endswith(_ALWAYS_F32) and source.format != "F32":
        source = source.floats(lambda w: w)
    if name.endswith("_norm.weight") and architecture in _ONE_ADDED and "ssm_norm" not in name:
        return source.floats(lambda w: w + np.float32(1))
    if delta is None:
        return source
    if name.endswith(".ssm_conv1d.weight"):
        channels = source.shape[0]
        source = source.map(lambda x: x.reshape(channels, -1), (channels, source.shape[-1]))
        source = source.floats(lambda w: w)
    if name.endswith(".ssm_a"):
        source = source.floats(lambda a: -np.exp(a))
    return _turned(name, source, delta) if architecture.startswith("qwen35") else source


_ALWAYS_F32 = (
    ".ffn_gate_inp.weight",
    ".ffn_gate_inp_shexp.weight",
    "_exps.bias",
    "position_embd.weight",
)
"""Matrices that llama.cpp's converter stores as F32 whatever the dtype in the checkpoint;
llama.cpp runs biases of experts as F32 only."""
_ONE_ADDED = ("gemma3", "qwen3next", "qwen35", "qwen35moe")
"""Architectures whose norms multiply by 1 + w; GGUF stores 1 + w."""


def _interleaved(name: str, source: Source, heads: int, head_dim: int) -> Source:
    """Hugging Face rotates elements (i, i + dim/2) of a head, GGUF's "llama" (2i, 2i + 1)."""
    _expect(name, source, 0, heads * head_dim)
    if head_dim % 2:
        raise FileFormatError(f"heads of tensor `{name}` have {head_dim} elements, an odd number")
    order = np.arange(heads * head_dim).reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1)
    return source.permuted(order)


def _expect(name: str, source: Source, axis: int, size: int) -> None:
    """Refuse a source whose shape is not that of the configuration along an axis.

    Raises:
        FileFormatError: it has another size along the axis, or has no such axis.

    """
    if len(source.shape) > axis and source.shape[axis] == size:
        return
    expected = [*source.shape[:axis], size, *source.shape[axis + 1 :]]
    raise FileFormatError(
        f"tensor `{name}` has shape {list(source.shape)}, expected {expected} by the configuration",
        hint="take the configuration that belongs to the weights",
        tensor=name,
    )


def _axes(name: str, source: Source, count: int) -> tuple[int, ...]:
    """The shape of a source, which must have `count` axes."""
    if len(source.shape) != count:
        raise FileFormatError(
            f"tensor `{name}` has shape {list(source.shape)}, expected {count} axes", tensor=name
        )
    return source.shape


def _turned(name: str, source: Source, d: Delta) -> Source:
    """Order value heads so that head h belongs to key head h modulo the number of key heads."""
    _check_heads(name, d)
    keys, values = 2 * d.key_heads * d.key_size, d.heads * d.value_size
    if name.endswith((".ssm_alpha.weight", ".ssm_beta.weight", ".ssm_a", ".ssm_dt.bias")):
        _expect(name, source, 0, d.heads)  # first, as an array of this size follows
        return source.permuted(_order_of_heads(d))
    if name.endswith(".attn_gate.weight"):
        _expect(name, source, 0, values)
        return source.permuted(_order_of_values(d))
    if name.endswith(".ssm_out.weight"):
        _expect(name, source, 1, values)
        return source.permuted(_order_of_values(d), axis=1)
    if name.endswith((".attn_qkv.weight", ".ssm_conv1d.weight")):
        _expect(name, source, 0, keys + values)
        return source.permuted(np.concatenate([np.arange(keys), keys + _order_of_values(d)]))
    return source


def _check_heads(name: str, d: Delta) -> None:
    if d.heads % d.key_heads:
        raise FileFormatError(
            f"tensor `{name}`: {d.heads} value heads do not divide among {d.key_heads} key heads",
            hint="take the configuration that belongs to the weights",
            tensor=name,
        )


def _order_of_heads(d: Delta) -> NDArray[np.int64]:
    return np.arange(d.heads).reshape(d.key_heads, -1).T.reshape(-1)


def _order_of_values(d: Delta) -> NDArray[np.int64]:
    return (_order_of_heads(d)[:, None] * d.value_size + np.arange(d.value_size)).reshape(-1)


def _split_qwen3next(sources: dict[str, Source], config: Config) -> dict[str, Source]:
    """Split the fused q, k, v, z of each key head: all q, k, v in one tensor, all z in another."""
    assert config.delta is not None
    d, found = config.delta, {}
    values = d.heads // d.key_heads * d.value_size  # rows of v, and of z, for each key head
    for name, source in sources.items():
        if name.endswith(".in_proj_qkvz.weight"):
            _check_heads(name, d)
            _expect(name, source, 0, d.key_heads * 2 * (d.key_size + values))
            rows = np.arange(source.shape[0]).reshape(d.key_heads, -1)
            cuts = np.split(rows, np.cumsum([d.key_size, d.key_size, values]), axis=1)
            q, k, v, z = (cut.reshape(-1) for cut in cuts)
            stem = name.removesuffix("qkvz.weight")
            found[stem + "qkv.weight"] = source.permuted(np.concatenate([q, k, v]))
            found[stem + "z.weight"] = source.permuted(z)
        else:
            found[name] = source
    return found


def _split_experts(sources: dict[str, Source], config: Config) -> dict[str, Source]:
    """Split the gate and up projections of experts, which transformers 5 has as one tensor.

    Gate comes first. Some models have matrices transposed: their shape shows it.
    """
    found = {}
    for name, source in sources.items():
        stem, _, end = name.replace(".block_sparse_moe.", ".mlp.").rpartition(".")
        if not stem.endswith(".experts") or end not in ("gate_up_proj", "down_proj"):
            found[name] = source
            continue
        source = _upright(name, source, config, 2 if end == "gate_up_proj" else 1)
        if end == "gate_up_proj":
            half = np.arange(_axes(name, source, 3)[1] // 2)
            found[f"{stem}.gate_proj.weight"] = source.permuted(half, axis=1)
            found[f"{stem}.up_proj.weight"] = source.permuted(half + half.size, axis=1)
        else:
            found[f"{stem}.down_proj.weight"] = source
    return found


def _upright(name: str, source: Source, config: Config, projections: int) -> Source:
    """Turn the fused matrices of experts so that rows are outputs.

    Raises:
        FileFormatError: the shape is neither way that of the configuration.

    """
    ffn = config.ffn if config.routing is None else config.routing.ffn
    width = config.width
    expected = (2 * ffn, width) if projections == 2 else (width, ffn)
    if source.shape[1:] == expected:
        return source
    if source.shape[1:] == expected[::-1]:
        return source.map(lambda x: x.swapaxes(1, 2), (source.shape[0], *expected))
    raise FileFormatError(
        f"tensor `{name}` has shape {list(source.shape)}, "
        f"expected {[config.experts, *expected]} by the configuration",
        hint="take the configuration that belongs to the weights",
        tensor=name,
    )


def _split_gpt_oss(sources: dict[str, Source], config: Config) -> dict[str, Source]:
    """Split gate and up, whose rows alternate; transpose floats, join MXFP4 blocks and scales."""
    found: dict[str, Source] = {}
    for name, source in sources.items():
        if name.endswith("_scales"):
            continue
        if name.endswith("_blocks"):
            scales = sources.get(name.removesuffix("_blocks") + "_scales")
            blocks = _axes(name, source, 4)
            if scales is None or scales.shape != blocks[:-1] or blocks[-1] != 16:
                raise FileFormatError(f"tensor `{name}` has no scales of its shape", tensor=name)
            source, end = _mxfp4(source, scales), "weight"
        elif name.endswith("_proj_bias"):
            end = "bias"
        elif name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            a, b, c = _axes(name, source, 3)
            source, end = source.map(lambda x: x.swapaxes(1, 2), (a, c, b)), "weight"
        else:
            found[name] = source
            continue
        stem = name.removesuffix("_blocks").removesuffix("_bias")
        if stem.endswith(".gate_up_proj"):
            if len(source.shape) < 2:
                raise FileFormatError(f"tensor `{name}` has no rows for each expert", tensor=name)
            for first, half in enumerate(("gate", "up")):
                order = np.arange(first, source.shape[1], 2)
                half_name = f"{stem.removesuffix('gate_up_proj')}{half}_proj.{end}"
                found[half_name] = source.permuted(order, axis=1)
        else:
            found[f"{stem}.{end}"] = source
    return found


def _mxfp4(blocks: Source, scales: Source) -> Source:
    """Repack blocks of 32 codes, two neighbours a byte, as GGUF's: the scale, then 16 bytes with
    code j in the low 4 bits and code j + 16 in the high 4.
    """

    def load() -> Array:
        packed = blocks.load()
        codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], 32)
        joined = codes[..., :16] | codes[..., 16:] << 4
        return np.concatenate([scales.load()[..., None], joined], axis=-1)

    *outer, count, _ = blocks.shape
    return Source("MXFP4", (*outer, count * 32), load)


_SPLITS = {
    "llama": _split_experts,
    "qwen3moe": _split_experts,
    "qwen3next": lambda sources, config: _split_experts(_split_qwen3next(sources, config), config),
    "qwen35moe": _split_experts,
    "gpt-oss": _split_gpt_oss,
}
