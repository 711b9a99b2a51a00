"""The oracle's GGUF and safetensors code against files of llama.cpp and of safetensors."""

import numpy as np
import pytest
from safetensors.numpy import load as load_safetensors

from reference.containers import (
    Stored,
    read_gguf,
    read_safetensors,
    write_gguf,
    write_safetensors,
)
from tests.compare import same_bits
from tests.golden.loading import MODELS, asset, load

GGUFS = ["llama-spm", "mistral", "qwen2", "qwen3"]


@pytest.mark.parametrize("name", GGUFS)
def test_llama_cpp_stores_the_same_tensors(name):
    """llama.cpp's converter writes the same names, shapes and row order of q and k."""
    _, tensors = read_gguf(asset(name, "model-f32.gguf").read_bytes())
    weights = load(name).weights
    tensors.pop("rope_freqs.weight", None)
    assert tensors.keys() == weights.keys()
    for key, tensor in tensors.items():
        assert (1, *tensor.shape)[-2:] == (weights[key].rows, weights[key].columns)
        same_bits(tensor.data, weights[key].data, key)


@pytest.mark.parametrize("name", GGUFS)
def test_gguf_written_again_is_the_same_file(name):
    data = asset(name, "model-f32.gguf").read_bytes()
    same_bits(write_gguf(*read_gguf(data)), data)


def test_safetensors_reads_what_is_written():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    half = np.float16([1, 2])
    tensors = {
        "x": Stored("F32", (2, 3), x.tobytes()),
        "half": Stored("F16", (2,), half.tobytes()),
    }
    data = write_safetensors(tensors)
    assert read_safetensors(data) == tensors
    for key, expected in (("x", x), ("half", half)):
        same_bits(load_safetensors(data)[key], expected)


@pytest.mark.parametrize("cut", [3, 20, 200, 5000, 100_000])
def test_truncated_files_are_refused(cut):
    data = (MODELS / "qwen3" / "model-f32.gguf").read_bytes()
    with pytest.raises(ValueError, match=r"bytes wanted at byte|not a GGUF"):
        read_gguf(data[:cut])
