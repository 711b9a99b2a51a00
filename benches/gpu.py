"""One run on a card: is it right, how fast does it copy, and how much of that do models reach.

    python benches/gpu.py [--device gpu:0] [--formats BF16,Q8_0] [--no-check] [--plain]
                          [--acts int8] [--layers 32] [--width 4096]
                          [--tokens 128] [--prompt 512]

Method: first the tests of tests/gpu on this card. Then, for each format, a Llama of random weights
(9 billion: width 4096, ffn three times that, 32 layers, a vocabulary of 151,936 that shrinks with
the square of the width; heads of 128 columns, a quarter as many for keys) is made on the machine,
tensor by tensor; speed does not depend on the values, so each matrix repeats some encoded rows. A
prompt (of 512 tokens) is timed, then greedy generation as `fewbit generate` does it. `--plain`
joins no layers.

Reading the tables: "floor" is the time to read the weights of one token once at the copy rate; what
is above it goes to dispatches that wait for each other, attention and slow kernels. "encode" is the
host's time to record a step; it hides behind the card's as long as it is the smaller one. The
second table has each op's dispatches of a token by themselves, one after the other: where a token's
time goes, the waiting between unlike ops left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewbit import _core
from fewbit.config import Config, Rope
from fewbit.formats import find_format
from fewbit.gpu.cache import Cache
from fewbit.gpu.device import Device, find_adapter, open_device
from fewbit.gpu.executor import ACTS, Executor
from fewbit.gpu.weights import Weights
from fewbit.models import build_plan
from fewbit.plan import Plan
from fewbit.sampling import GREEDY
from fewbit.sizes import tensor_shapes

FORMATS = ("BF16", "Q8_0", "Q4_0", "Q4_1", "Q2_K")
PATTERN_ROWS = 64


@dataclass(frozen=True)
class Result:
    """Times in ms of one token, bytes that it reads, and tokens per second of a prompt."""

    format: str
    bytes_per_token: int
    token: float
    encode: float
    stages: int
    prompt_rate: float
    ops: dict[str, tuple[int, float]]
    """Of each op of a token its dispatches, and their ms."""


def shape(layers: int, width: int) -> Config:
    """The model's numbers."""
    heads, vocab = max(width // 128, 4), 151_936 * width**2 // 4096**2 // 4 * 4
    return Config(
        "llama", max(vocab, 1024), layers, width, 3 * width, heads, heads // 4, width // heads,
        1e-5, 2048, rope=Rope(base=500_000.0),
    )  # fmt: skip


def rows_of(format_: str, rows: int, columns: int) -> NDArray[np.uint8]:
    """Encoded normal numbers, some rows over and over."""
    values = np.random.default_rng(columns).normal(0, columns**-0.5, (PATTERN_ROWS, columns))
    data = values.astype(np.float32).view(np.uint8)
    encoded = _core.encode(data, "F32", columns, format_)
    return np.resize(encoded, (rows, encoded.shape[1]))


def random_weights(device: Device, plan: Plan, format_: str) -> tuple[Weights, int]:
    """All tensors of the plan on the card, and the bytes of them that a token reads."""
    weights, read = Weights(device), 0
    tables = {op.weights[0] for op in plan.ops if op.kind == "embed"}
    for name, (rows, columns) in tensor_shapes(plan).items():
        kind = format_ if rows > 1 else "F32"
        data = rows_of(kind, rows, columns) if rows > 1 else ones(columns)
        weights.add(name, kind, rows, columns, data)
        read += find_format(kind).row_bytes(columns) * (1 if name in tables else rows)
    return weights, read


def ones(columns: int) -> NDArray[np.uint8]:
    """A norm's weights."""
    return np.ones((1, columns), np.float32).view(np.uint8)


def measure(
    device: Device, config: Config, format_: str, tokens: int, prompt: int, acts: str, fused: bool
) -> Result:
    """A prompt and `tokens` generated tokens in one format."""
    plan = build_plan(config)
    weights, read = random_weights(device, plan, format_)
    executor = Executor(json.dumps(plan.to_dicts()), weights, fused=fused)
    cache = executor.cache(1, prompt + 2 * tokens + 8)
    ids = np.arange(prompt, dtype=np.uint32)
    best = float("inf")
    for _ in range(3):
        cache.reset()
        start = time.perf_counter()
        executor.forward(cache, ids, 0 * ids, ids[-1:], acts)
        best = min(best, time.perf_counter() - start)
    rng = np.random.default_rng(0)
    list(cache.decode(1, GREEDY, rng, acts, 4) or ())
    start = time.perf_counter()
    list(cache.decode(1, GREEDY, rng, acts, tokens) or ())
    token = (time.perf_counter() - start) / tokens
    encode, stages = encode_time(executor, cache, acts)
    ops = op_times(executor, cache, acts)
    cache.release()
    executor.release()
    weights.release()
    return Result(format_, read, 1e3 * token, 1e3 * encode, stages, prompt / best, ops)


def encode_time(
    executor: Executor, cache: Cache, acts: str, repetitions: int = 20
) -> tuple[float, int]:
    """Seconds to record and finish one step that is never submitted; its dispatches."""
    bound = executor.bound(cache, acts)
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        encoder = executor.device.encoder()
        executor.encode(encoder, bound, {"tokens": 1, "outputs": 1})
        encoder.finish()
        times.append(time.perf_counter() - start)
    return sorted(times)[repetitions // 2], sum("few" in item.stage.kinds for item in bound)


def op_times(executor: Executor, cache: Cache, acts: str, repetitions: int = 5) -> dict[str, Any]:
    """Of each op its dispatches in a step, and the ms that these take in one submission."""
    bound, device, found = executor.bound(cache, acts), executor.device, {}
    bound = [item for item in bound if "few" in item.stage.kinds]
    for kind in dict.fromkeys(item.stage.op for item in bound):
        mine, best = [item for item in bound if item.stage.op == kind], float("inf")
        for _ in range(3):
            encoder = device.encoder()
            for _ in range(repetitions):
                executor.encode(encoder, mine, {"tokens": 1, "outputs": 1})
            start = time.perf_counter()
            device.queue.submit([encoder.finish()])
            device.read(executor.shared("empty"), 0, 4, "cannot time an op")
            best = min(best, (time.perf_counter() - start) / repetitions)
        found[kind] = len(mine), 1e3 * best
    return found


def check(index: int) -> None:
    """Run the tests on the card; end here if one fails."""
    environment = os.environ | {"FEWBIT_ADAPTER": str(index)}
    tests = Path(__file__).parents[1] / "tests" / "gpu"
    command = [sys.executable, "-m", "pytest", "-q", "--require", "gpu", str(tests)]
    code = subprocess.run(command, env=environment, cwd=tests.parents[1], check=False).returncode
    if code:
        sys.exit(f"the card computes wrongly (pytest ended with {code}): no speed is measured")


def main() -> None:
    """Check, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="gpu")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--acts", choices=ACTS, default="f32")
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--no-check", action="store_true")
    options = parser.parse_args()
    adapter = find_adapter(options.device)
    if adapter is None:
        sys.exit("this measures cards: --device gpu or gpu:N")
    if not options.no_check:
        check(adapter.index)
    device = open_device(adapter)
    copy = device.copy_rate(size=(16 if adapter.is_software else 1024) << 20)
    print(f"{adapter.name}, {adapter.backend}, {adapter.driver}: copies {copy:,.0f} GB/s")
    print("| format | GB a token | tokens/s | GB/s | of copy rate | floor ms | ms a token "
          "| encode ms | dispatches | prompt tokens/s |")  # fmt: skip
    print("|---" * 10 + "|")
    config, results = shape(options.layers, options.width), []
    for name in options.formats.split(","):
        size = options.tokens, options.prompt
        results.append(measure(device, config, name, *size, options.acts, not options.plain))
        show(results[-1], copy)
    show_ops(results)


def show(r: Result, copy: float) -> None:
    """One line of the table."""
    size, rate = r.bytes_per_token / 1e9, r.bytes_per_token / 1e6 / r.token
    cells = (
        r.format, f"{size:.3f}", f"{1e3 / r.token:,.1f}", f"{rate:,.1f}", f"{rate / copy:.1%}",
        f"{1e3 * size / copy:.2f}", f"{r.token:.2f}", f"{r.encode:.2f}", str(r.stages),
        f"{r.prompt_rate:,.0f}",
    )  # fmt: skip
    print("| " + " | ".join(cells) + " |", flush=True)


def show_ops(results: list[Result]) -> None:
    """ms of each op in a token, a column a format."""
    print("\n| op | dispatches | " + " | ".join(f"{r.format} ms" for r in results) + " |")
    print("|---" * (2 + len(results)) + "|")
    for op in dict.fromkeys(op for r in results for op in r.ops):
        found = [r.ops.get(op, (0, 0.0)) for r in results]
        counts = max(count for count, _ in found)
        print(f"| {op} | {counts} | " + " | ".join(f"{ms:.3f}" for _, ms in found) + " |")


if __name__ == "__main__":
    main()
