"""Models and arrays in other processes: after a fork, in a pickle, with any number of threads."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fewbit
from fewbit.files.gguf import fields_of
from tests import foreign_files

FORKED = """
import os, numpy as np, fewbit
rows = np.random.default_rng(0).standard_normal((512, 256)).astype(np.float32)
model = fewbit.load("demo", "cpu", threads=2)

def work():
    quantized = [fewbit.quantize(rows, "Q4_K", threads=n).data.tobytes() for n in (0, 2)]
    loss = model.perplexity(fewbit.demo_text(), ctx=32, chunks=1).ppl.value
    fresh = fewbit.load("demo", "cpu", recipe="Q4_0").logits([1, 2]).tobytes()
    return quantized, loss, model.logits([1, 2, 3]).tobytes(), fresh

before = work()
child = os.fork()
if child == 0:
    os._exit(0 if work() == before else 9)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert work() == before
raise SystemExit(code)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_computes_the_same() -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED], timeout=600, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_model_is_pickled_as_its_path_and_formats() -> None:
    model = fewbit.load("demo", "cpu", threads=1, kv="f16").quantize("Q4_K_M")
    expected = model.logits([1, 2, 3])
    pickled = pickle.dumps(model)
    assert len(pickled) < 20_000
    for found in (pickle.loads(pickled), copy.deepcopy(model)):
        assert type(found) is fewbit.Model
        np.testing.assert_array_equal(found.logits([1, 2, 3]), expected)
        assert (found.recipe, found.formats, repr(found)) == ("Q4_K_M", model.formats, repr(model))


def test_a_pickle_of_a_model_that_is_gone_says_so(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    fewbit.load("demo").save(path)
    pickled = pickle.dumps(fewbit.load(path))
    path.unlink()
    with pytest.raises(fewbit.FewbitError, match=r"m\.gguf"):
        pickle.loads(pickled)


@pytest.mark.parametrize("threads", [-1, 1025, 10**9, 10**30])
def test_absurd_thread_counts_are_refused(threads: int) -> None:
    rows = np.zeros((2, 32), np.float32)
    expected = f"the number of threads is {threads}, expected 0 to 1024"
    for call in (
        lambda: fewbit.quantize(rows, "Q8_0", threads=threads),
        lambda: fewbit.dequantize(bytes(34), "Q8_0", (32,), threads=threads),
        lambda: fewbit.load("demo", threads=threads),
        lambda: fewbit.bench("demo", threads=threads),
    ):
        with pytest.raises(fewbit.InputError) as caught:
            call()
        assert caught.value.message == expected


LIGHT = """
import sys
import fewbit.cli.main
print(*sorted({"gguf", "ml_dtypes", "yaml", "jinja2", "wgpu"} & set(sys.modules)))
"""


def test_a_command_starts_without_the_modules_that_it_may_not_need() -> None:
    """They take longer to import than most commands to run."""
    ended = subprocess.run(
        [sys.executable, "-c", LIGHT], check=True, timeout=600, capture_output=True, text=True
    )
    assert ended.stdout == "\n"


BUSY = """
import os, threading, time, fewbit
model = fewbit.load("demo", "cpu", threads=2)
expected = model.logits([1, 2, 3]).tobytes()
cache, stop = model.cache(1, 512), threading.Event()

def compute():
    while not stop.is_set():
        cache.reset()
        model.forward(cache, list(range(1, 400)))

thread = threading.Thread(target=compute)
thread.start()
codes = []
for _ in range(6):
    time.sleep(0.03)
    if (child := os.fork()) == 0:
        start, refused = time.monotonic(), False
        same = [model.logits([1, 2, 3]).tobytes() == expected for _ in range(3)]
        try:
            cache.length()
        except fewbit.InputError as error:
            refused = "when this process was forked" in str(error)
        late = time.monotonic() - start > 20
        os._exit(9 if late or not all(same) else 1 if refused else 0)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop.set()
thread.join()
assert model.logits([1, 2, 3]).tobytes() == expected
raise SystemExit(0 if max(codes) == 1 else 8)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_forked_while_a_thread_computes_does_not_wait_for_it() -> None:
    """The child computes in a cache of its own; the cache that was in use is refused."""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BUSY], timeout=120, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (0, "")


LINUX = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")

DROPPED = """
import gc, os, fewbit
from fewbit.sampling import GREEDY

def once():
    model = fewbit.load("demo", "cpu", threads=2)
    "".join(model.generate("Once", max_tokens=5, sampling=GREEDY))
    model.tokenizer.encode(fewbit.demo_text())

def memory():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

for _ in range(3):
    once()
before = memory()
for _ in range(12):
    once()
print((memory() - before) / 1e6, len(os.listdir("/proc/self/fd")))
"""


@LINUX
def test_models_that_are_dropped_leave_no_memory() -> None:
    """The cache of a tokenizer's merges, which outlives it, has 2 MB."""
    ended = subprocess.run(
        [sys.executable, "-c", DROPPED], check=True, timeout=120, capture_output=True, text=True
    )
    megabytes, files = map(float, ended.stdout.split())
    assert megabytes < 10
    assert files < 30


RUNNING = """
import os, sys, fewbit
def memory():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

model = fewbit.load(sys.argv[1], "cpu", threads=1)
before = memory()
packed = model.weights.nbytes
print((memory() - before) / packed)
"""


@LINUX
def test_a_running_model_keeps_one_copy_of_its_weights(tmp_path: Path) -> None:
    """The pages of the file are given back once its tensors are packed."""
    path = tmp_path / "m.gguf"
    values = np.random.default_rng(0).standard_normal((4096, 1024)).astype(np.float32)
    width = {"embedding_length": 1024, "feed_forward_length": 4096, "block_count": 1,
             "attention.head_count": 8, "attention.layer_norm_rms_epsilon": 1e-5,
             "context_length": 64}  # fmt: skip
    metadata = {"general.architecture": "llama"} | {f"llama.{k}": v for k, v in width.items()}
    block = {"attn_q": 1024, "attn_k": 1024, "attn_v": 1024, "attn_output": 1024, "ffn_gate": 4096,
             "ffn_up": 4096}  # fmt: skip
    tensors = {f"blk.0.{name}.weight": values[:rows] for name, rows in block.items()}
    tensors |= {f"blk.0.{name}_norm.weight": values[0] for name in ("attn", "ffn")}
    tensors |= {"blk.0.ffn_down.weight": values.reshape(1024, 4096), "token_embd.weight": values,
                "output_norm.weight": values[0], "output.weight": values}  # fmt: skip
    foreign_files.write(path, dict(fields_of(metadata)), tensors)
    ended = subprocess.run(
        [sys.executable, "-c", RUNNING, str(path)],
        check=True, timeout=120, capture_output=True, text=True,
    )  # fmt: skip
    assert 0.9 < float(ended.stdout) < 1.15
