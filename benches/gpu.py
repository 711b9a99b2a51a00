"""Benchmark of a card: check its results, then measure copies, prompts and generation.

    python benches/gpu.py [--device gpu:0] [--formats BF16,Q8_0] [--no-check] [--plain]
                          [--acts f32,int8] [--layers 32] [--width 4096] [--experts]
                          [--tokens 128] [--prompt 512]

Method: the tests of tests/gpu run on this card first. Then, for each format, the bench builds a
Llama with random weights: width 4096, FFN width three times that, 32 layers, heads of 128 columns,
a quarter as many key/value heads, and a vocabulary of 151,936 tokens at width 4096, proportional to
the square of the width (9 billion weights in all). Speed does not depend on the values, so each
matrix repeats some encoded rows. The bench times a prompt of 512 tokens, then greedy generation as
in `fewbit generate`, with f32 activations and, for integer formats, int8 activations. `--plain`
joins no layers. `--experts` gives each layer 128 experts of 3/8 of the width, 8 of them per token
(Qwen3-30B-A3B at width 2048).

Reading the tables: "floor" is the time to read the weights of one token once at the copy rate; the
rest goes to dispatches that wait for each other, attention and slow kernels. "encode" is the host's
time to record a step; it runs in parallel with the card and counts only if it is longer. "prompt
GOP/s" is two operations per weight and token of the prompt, divided by the time of the prompt.
"products" are the shaders for few and for many tokens. The second table times the dispatches of
each op separately, without the waits between different ops, for a token; the third for a prompt.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewbit import _core
from fewbit.formats.table import find_format
from fewbit.models import build_plan
from fewbit.plan.config import Config, Experts, Rope
from fewbit.plan.plan import Plan
from fewbit.plan.shapes import tensor_shapes
from fewbit.plan.sizes import fraction_read, sizes_of
from fewbit.run.gpu.cache import Cache
from fewbit.run.gpu.decode import decode
from fewbit.run.gpu.device import Device, find_adapter, open_device
from fewbit.run.gpu.executor import Executor
from fewbit.run.gpu.stages import Stage, StepKind, step_kind
from fewbit.run.gpu.weights import Weights
from fewbit.run.limits import ACTIVATIONS
from fewbit.run.sampling import GREEDY

FORMATS = ("BF16", "Q8_0", "Q4_0", "Q4_1", "Q2_K")
PATTERN_ROWS = 64
USED = frozenset(("subgroup",))
"""Features that shaders use; other features that a device enables are not used yet."""


@dataclass(frozen=True)
class Result:
    """Speed of one format: ms per token, bytes read per token, tokens/s of a prompt."""

    format: str
    acts: str
    bytes_per_token: int
    token: float
    encode: float
    stages: int
    prompt_rate: float
    products: str
    """Shader files of the products, for few and for many tokens."""
    operations: int
    """Operations of the matrix products for one token of a prompt."""
    ops: dict[str, tuple[int, float]]
    """Dispatches and ms per token, by op."""
    prompt_ops: dict[str, tuple[int, float]]


def shape(layers: int, width: int, experts: bool) -> Config:
    """The configuration of the model."""
    heads, vocab = max(width // 128, 4), 151_936 * width**2 // 4096**2 // 4 * 4
    mixture: dict[str, Any] = {}
    if experts:
        mixture = {"experts": 128, "routing": Experts(used=8, ffn=3 * width // 8 // 32 * 32)}
    return Config(
        "qwen3moe" if experts else "llama", max(vocab, 1024), layers, width, 3 * width, heads,
        heads // 4, width // heads, 1e-5, 2048, rope=Rope(base=500_000.0), **mixture,
    )  # fmt: skip


def rows_of(format_: str, rows: int, columns: int) -> NDArray[np.uint8]:
    """Encoded normal numbers [rows, row bytes]: PATTERN_ROWS rows, repeated."""
    values = np.random.default_rng(columns).normal(0, columns**-0.5, (PATTERN_ROWS, columns))
    data = values.astype(np.float32).view(np.uint8)
    encoded = _core.encode(data, "F32", columns, format_)
    return np.resize(encoded, (rows, encoded.shape[1]))


def random_weights(device: Device, plan: Plan, format_: str) -> tuple[Weights, int]:
    """All tensors of the plan on the card, and the bytes that one token reads."""
    weights, kinds = Weights(device), {}
    for name, (*rows, columns) in tensor_shapes(plan).items():
        count = math.prod(rows)
        plain = count == 1 or "gate_inp" in name  # norms and routers
        kinds[name] = "F32" if plain else format_
        data = rows_of(kinds[name], count, columns) if count > 1 else ones(columns)
        weights.add(name, kinds[name], count, columns, data)
    return weights, sizes_of(plan, kinds).bytes_per_token


def ones(columns: int) -> NDArray[np.uint8]:
    """Weights of a norm."""
    return np.ones((1, columns), np.float32).view(np.uint8)


def measure(
    device: Device, config: Config, format_: str, tokens: int, prompt: int, kinds: Sequence[str],
    fused: bool,
) -> Iterator[Result]:  # fmt: skip
    """Measure a prompt and `tokens` generated tokens in one format, for each of `kinds`."""
    plan = build_plan(config)
    weights, read = random_weights(device, plan, format_)
    executor = Executor(plan.to_dicts(), weights, fused=fused)
    cache = executor.cache(1, prompt + 2 * tokens + 8)
    for acts in kinds:
        if acts == "int8" and find_format(format_).is_float:
            continue
        rate = prompt_rate(executor, cache, prompt, acts)
        list(decode(executor, cache, 1, GREEDY, 0, acts, 4))
        start = time.perf_counter()
        list(decode(executor, cache, 1, GREEDY, 0, acts, tokens))
        token = (time.perf_counter() - start) / tokens
        encode, stages = encode_time(executor, cache, acts)
        yield Result(
            format_, acts, read, 1e3 * token, 1e3 * encode, stages, rate,
            products(executor, acts), operations(plan), op_times(executor, cache, acts, 1),
            op_times(executor, cache, acts, min(prompt, executor.batch)),
        )  # fmt: skip
    cache.release()
    executor.release()
    weights.release()


def prompt_rate(executor: Executor, cache: Cache, prompt: int, acts: str) -> float:
    """Tokens/s of a prompt, including the copy of the last logits; the best of three runs."""
    ids, best = np.arange(prompt, dtype=np.uint32), float("inf")
    for _ in range(3):
        cache.reset()
        start = time.perf_counter()
        executor.forward(cache, ids, 0 * ids, ids[-1:], acts)
        best = min(best, time.perf_counter() - start)
    return prompt / best


def operations(plan: Plan) -> int:
    """Two operations for each weight that a token of a prompt is multiplied by."""
    shapes, found = tensor_shapes(plan), 0
    for op in plan.ops:
        if op.kind == "take":
            break
        if op.kind in ("linear", "expert_linear"):
            found += int(2 * math.prod(shapes[op.weights[0]]) * (fraction_read(plan, op) or 1))
    return found


def products(executor: Executor, acts: str) -> str:
    """The shader files of the products, those of the most products first."""
    stages = [stage for stage in executor.program(acts).stages if stage.tiles]
    forms = Counter(f for s in stages if s.tiles for f in (s.files[1], s.tiles.files[1]))
    return ", ".join(name for name, _ in forms.most_common())


def encode_time(
    executor: Executor, cache: Cache, acts: str, repetitions: int = 20
) -> tuple[float, int]:
    """Median seconds to record one step, without submitting it; and its number of dispatches."""
    bound = executor.bound(cache, acts)
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        encoder = executor.device.encoder()
        executor.encode(encoder, bound, {"tokens": 1, "outputs": 1})
        encoder.finish()
        times.append(time.perf_counter() - start)
    dispatches = sum(is_made(item.stage, 1, "few_tokens") for item in bound)
    return sorted(times)[repetitions // 2], dispatches


def is_made(stage: Stage, tokens: int, step: StepKind) -> bool:
    """True if a step of this kind with `tokens` tokens makes the dispatch."""
    return step in stage.step_kinds and tokens > stage.above


def op_times(
    executor: Executor, cache: Cache, acts: str, tokens: int, repetitions: int = 5
) -> dict[str, Any]:
    """Dispatches of each op in a step, and their ms in one submission."""
    bound, device, found = executor.bound(cache, acts), executor.device, {}
    sequences = np.zeros(tokens, np.uint32)
    step = step_kind(sequences, executor.program(acts).queries_per_kv_head)
    bound = [item for item in bound if is_made(item.stage, tokens, step)]
    rows = {"tokens": tokens, "outputs": 1}
    if tokens > 1:
        ids, repetitions = np.arange(tokens, dtype=np.uint32), 1
        executor.write_step(cache, ids, ids, sequences, ids[-1:])
    for kind in dict.fromkeys(item.stage.op for item in bound):
        mine, best = [item for item in bound if item.stage.op == kind], float("inf")
        for _ in range(3):
            encoder = device.encoder()
            for _ in range(repetitions):
                executor.encode(encoder, mine, rows, step)
            start = time.perf_counter()
            device.queue.submit([encoder.finish()])
            device.read(executor.shared("no_input"), 0, 4, "cannot time an op")
            best = min(best, (time.perf_counter() - start) / repetitions)
        found[kind] = len(mine), 1e3 * best
    return found


def check(index: int) -> None:
    """Run the tests on the card; exit if one fails."""
    environment = os.environ | {"FEWBIT_ADAPTER": str(index)}
    tests = Path(__file__).parents[1] / "tests" / "gpu"
    command = [sys.executable, "-m", "pytest", "-q", "--require", "gpu", str(tests)]
    code = subprocess.run(command, env=environment, cwd=tests.parents[1], check=False).returncode
    if code:
        sys.exit(f"the card computes wrongly (pytest exited with {code}): no speed is measured")


def main() -> None:
    """Check, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="gpu")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--acts", default=",".join(ACTIVATIONS))
    parser.add_argument("--experts", action="store_true")
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--no-check", action="store_true")
    options = parser.parse_args()
    adapter = find_adapter(options.device)
    if adapter is None:
        sys.exit("this bench needs a card: --device gpu or gpu:N")
    if not options.no_check:
        check(adapter.index)
    device = open_device(adapter)
    copy = device.copy_rate(size=(16 if adapter.is_software else 1024) << 20)
    print(f"{adapter.name}, {adapter.backend}, {adapter.driver}: copies {copy:,.0f} GB/s")
    print(f"optional features used: {', '.join(sorted(device.features & USED)) or 'nothing'}\n")
    print("| format | acts | GB a token | tokens/s | GB/s | of copy rate | floor ms | ms a token "
          "| encode ms | dispatches | prompt tokens/s | prompt GOP/s | products |")  # fmt: skip
    print("|---" * 13 + "|")
    config = shape(options.layers, options.width, options.experts)
    size, kinds = (options.tokens, options.prompt), options.acts.split(",")
    results: list[Result] = []
    for name in options.formats.split(","):
        for result in measure(device, config, name, *size, kinds, not options.plain):
            show(result, copy)
            results.append(result)
    show_ops("a token", results, [r.ops for r in results])
    show_ops("a prompt", results, [r.prompt_ops for r in results])


def show(r: Result, copy: float) -> None:
    """Print one line of the first table."""
    size, rate = r.bytes_per_token / 1e9, r.bytes_per_token / 1e6 / r.token
    cells = (
        r.format, r.acts, f"{size:.3f}", f"{1e3 / r.token:,.1f}", f"{rate:,.1f}",
        f"{rate / copy:.1%}", f"{1e3 * size / copy:.2f}", f"{r.token:.2f}", f"{r.encode:.2f}",
        str(r.stages), f"{r.prompt_rate:,.0f}", f"{r.prompt_rate * r.operations / 1e9:,.1f}",
        r.products,
    )  # fmt: skip
    print("| " + " | ".join(cells) + " |", flush=True)


def show_ops(what: str, results: list[Result], times: list[dict[str, tuple[int, float]]]) -> None:
    """Print the ms of each op, with a column for each row of the first table."""
    names = " | ".join(f"{r.format} {r.acts} ms" for r in results)
    print(f"\n| op of {what} | dispatches | {names} |")
    print("|---" * (2 + len(results)) + "|")
    for op in dict.fromkeys(op for found in times for op in found):
        found = [each.get(op, (0, 0.0)) for each in times]
        counts = max(count for count, _ in found)
        print(f"| {op} | {counts} | " + " | ".join(f"{ms:.3f}" for _, ms in found) + " |")


if __name__ == "__main__":
    main()
