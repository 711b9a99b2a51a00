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
        [sys.executable, "-W", "ignore", "-c", FORKED], timeout=120, capture_output=True, text=True
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
        [sys.executable, "-c", LIGHT], check=True, timeout=60, capture_output=True, text=True
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
