"""Encoding models of any size into files: memory that it takes, and what a stopped run leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fewbit
from fewbit import _core
from fewbit.convert import encode
from fewbit.files.gguf import read_gguf
from tests.compare import same_bits
from tests.golden.loading import MODELS

ROOT = str(Path(__file__).parents[1])
LLAMA = MODELS / "llama"
WIDTH, FFN, VOCAB = 2048, 8192, 1 << 16


def sparse_llama(folder: Path, layers: int, vocab: int = VOCAB) -> Path:
    """A bf16 Llama of zeros in a Hugging Face folder: a header, and a hole behind it."""
    config = json.loads((LLAMA / "config.json").read_text())
    config |= {
        "hidden_size": WIDTH, "intermediate_size": FFN, "num_hidden_layers": layers,
        "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 128, "vocab_size": vocab,
        "tie_word_embeddings": False, "dtype": "bfloat16",
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).write_bytes((LLAMA / file).read_bytes())
    shapes = {"embed_tokens": [vocab, WIDTH], "norm": [WIDTH]}
    for layer in range(layers):
        shapes |= {
            f"layers.{layer}.{name}": shape
            for name, shape in {
                "self_attn.q_proj": [WIDTH, WIDTH], "self_attn.k_proj": [512, WIDTH],
                "self_attn.v_proj": [512, WIDTH], "self_attn.o_proj": [WIDTH, WIDTH],
                "mlp.gate_proj": [FFN, WIDTH], "mlp.up_proj": [FFN, WIDTH],
                "mlp.down_proj": [WIDTH, FFN], "input_layernorm": [WIDTH],
                "post_attention_layernorm": [WIDTH],
            }.items()
        }  # fmt: skip
    named = {f"model.{name}.weight": shape for name, shape in shapes.items()}
    header, end = {}, 0
    for name, shape in (named | {"lm_head.weight": [vocab, WIDTH]}).items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(file.tell() + end)
    return folder


MEASURE = """
import sys
import threading
import fewbit

def anonymous():
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024

source, target, recipe = sys.argv[1:]
model = fewbit.load(source, threads=2).quantize(recipe, requantize=True)
before, most, done = anonymous(), 0, threading.Event()

def watch():
    global most
    while not done.wait(0.002):
        most = max(most, anonymous())

watcher = threading.Thread(target=watch)
watcher.start()
model.save(target)
done.set()
watcher.join()
print(most - before)
"""


def peak(source: Path, target: Path, recipe: str) -> int:
    """Bytes that quantizing takes beyond what opening the model took, mapped files not counted."""
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(source), str(target), recipe],
        capture_output=True, text=True, check=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": ROOT},
    )  # fmt: skip
    return int(run.stdout)


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")


@needs_proc
def test_memory_is_bounded_by_a_slab_not_by_a_tensor(tmp_path: Path) -> None:
    """The embedding and the output have 268 MB each, in a folder and then in a GGUF file."""
    source = sparse_llama(tmp_path / "hf", layers=1)
    assert peak(source, tmp_path / "a.gguf", "Q8_0") < 24e6
    assert peak(tmp_path / "a.gguf", tmp_path / "b.gguf", "Q4_0") < 24e6
    assert read_gguf(tmp_path / "b.gguf").tensors["token_embd.weight"].format == "Q4_0"


@needs_proc
@pytest.mark.skipif("FEWBIT_SLOW" not in os.environ, reason="minutes; FEWBIT_SLOW=1 runs it")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("recipe", ["Q4_K_M", "Q2_K"])
def test_memory_does_not_grow_with_the_model(recipe: str, tmp_path: Path) -> None:
    source = sparse_llama(tmp_path / "hf", layers=248)
    assert (source / "model.safetensors").stat().st_size > 30e9
    most = peak(source, tmp_path / "m.gguf", recipe)
    print(f"{recipe} of 30 GB: {most / 1e6:.1f} MB of anonymous memory")
    assert most < 128e6


@pytest.mark.parametrize("recipe", ["Q8_0", "Q4_K_M", "IQ3_S"])
def test_the_number_of_threads_changes_nothing(recipe: str, tmp_path: Path) -> None:
    for threads in (1, 2, 3):
        model = fewbit.load(LLAMA, threads=threads)
        model.quantize(recipe).save(tmp_path / f"{threads}.gguf")
    one, two, three = ((tmp_path / f"{n}.gguf").read_bytes() for n in (1, 2, 3))
    assert one == two == three


@pytest.mark.parametrize("size", [1, 5000, 100_000])
def test_the_size_of_a_slab_changes_nothing(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of q and k are put in GGUF's order a head at a time."""
    model = fewbit.load(LLAMA).quantize("Q4_0")
    model.save(tmp_path / "whole.gguf")
    monkeypatch.setattr(encode, "SLAB", size)
    calls = []
    model.save(tmp_path / "slabs.gguf", progress=lambda done, total, name: calls.append(done))
    assert (tmp_path / "slabs.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()
    assert len(calls) > 2 * len(model.formats) or size == 100_000
    tensors = read_gguf(tmp_path / "whole.gguf").tensors
    for name in model.formats:
        same_bits(tensors[name].data, model.data(name).reshape(tensors[name].data.shape), name)
    assert calls == sorted(calls)
    assert calls[-1] == sum(entry.data.nbytes for entry in tensors.values())


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_first_row_that_cannot_be_stored_is_named(threads: int, tmp_path: Path) -> None:
    rows = np.zeros((5000, 64), np.float32)
    rows[[4000, 1234, 4999], [1, 2, 3]] = np.nan
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(fewbit.FormatError, match=r"cannot store NaN as Q8_0: row 1334, column 2"):
        _core.encode_to_file(
            rows.view(np.uint8), "F32", 64, "Q8_0", str(tmp_path / "f"), 0, 100, None, threads
        )


ENDLESS = """
from fewbit.cli.main import main
from fewbit.convert.encode import TensorEncoder

once = TensorEncoder.write

def write(self, name, path, offset):
    print("writing", flush=True)
    while True:
        yield from once(self, name, path, offset)

TensorEncoder.write = write
main()
"""


def stopped(tmp_path: Path, signum: int) -> subprocess.CompletedProcess[str]:
    """`fewbit quantize` that writes one tensor for ever, stopped after it has begun to."""
    source = sparse_llama(tmp_path / "hf", layers=1)
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-c", ENDLESS, "quantize", str(source), str(out / "m.gguf")]
    with subprocess.Popen(
        [*command, "-f", "Q4_K_M"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=ROOT,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        assert len(list(out.iterdir())) == 1
        process.send_signal(signum)
        _, err = process.communicate(timeout=600)
    assert list(out.iterdir()) == []
    return subprocess.CompletedProcess(command, process.returncode, "", err)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_stopped_run_leaves_nothing(name: str, tmp_path: Path) -> None:
    ended = stopped(tmp_path, getattr(signal, name))
    assert ended.returncode == 128 + getattr(signal, name)
    assert ended.stderr == "interrupted\n"


def test_the_core_imports_nothing_at_its_first_call() -> None:
    """A signal's handler that raised within such an import ended as a panic of the core."""
    code = """
import builtins, numpy as np
from fewbit import _core
rows = np.zeros((1, 128), np.uint8)
builtins.__import__ = None
_core.encode(rows, "F32", 32, "Q8_0")
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


def test_a_full_disk_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is encoded: the file takes its place first."""
    resource = pytest.importorskip("resource")
    if not hasattr(os, "posix_fallocate"):
        pytest.skip("the place on the disk cannot be taken beforehand")
    monkeypatch.setattr(_core, "encode_to_file", None)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            fewbit.load(LLAMA).quantize("Q4_0").save(tmp_path / "m.gguf")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_meanwhile_is_said(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left on device") as caught:
        _core.encode_to_file(
            np.zeros((64, 4096), np.uint8), "F32", 1024, "F32", "/dev/full", 0, 0, None, 2
        )
    assert caught.value.errno == 28
