"""Benchmark of prompt attention on a card: a workgroup per query against tiles of queries.

    python benches/gpu_attend.py [--device gpu:0] [--tokens 16,64,256] [--depths 0,1024]
                                 [--heads 8] [--kv-heads 2] [--sizes 64,128] [--kv f32,f16,int8]

Method: the plan is one `attend` over random queries, keys and values. The dispatch of `attend` for
a prompt that follows `--depths` other tokens is timed alone: both forms in turn, the best of five.

Reading the table: "times" is the speedup of tiles. GFLOP/s counts two operations for each element
of a key or value that a query attends to.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from fewbit.run.gpu.device import Device, find_adapter, open_device
from fewbit.run.gpu.executor import Executor
from fewbit.run.gpu.stages import StepKind
from fewbit.run.gpu.weights import Weights
from fewbit.run.limits import BATCH

ROUNDS = 5
FORMS: tuple[StepKind, ...] = ("by_query", "by_tile")


def attending(device: Device, heads: int, kv_heads: int, size: int) -> Executor:
    """A plan of one `attend`; its inputs are columns of a table of 64 random rows."""
    widths = (heads * size, kv_heads * size, kv_heads * size)
    x = np.random.default_rng(0).normal(size=(64, sum(widths))).astype(np.float32)
    weights = Weights(device)
    weights.add("x", "F32", *x.shape, x.view(np.uint8))
    plan: list[dict[str, Any]] = [op("embed", [], ["x"], sum(widths))]
    for index, width in enumerate(widths):
        plan.append(op("part", [0], [], width, parts=1, start=sum(widths[:index])))
    attributes = {"heads": heads, "kv_heads": kv_heads, "scale": size**-0.5, "window": 0}
    plan.append(op("attend", [1, 2, 3], [], widths[0], layer=0, **attributes))
    return Executor(plan, weights)


def op(kind: str, inputs: list[int], weights: list[str], width: int, **attributes: Any) -> Any:
    """One op of a plan."""
    return {"op": kind, "inputs": inputs, "weights": weights, "width": width, **attributes}


def times(executor: Executor, tokens: int, depth: int, kv: str) -> dict[StepKind, float]:
    """Seconds of `attend` for `tokens` tokens after `depth` others, by form."""
    cache = executor.cache(1, depth + tokens, kv)
    ids = np.arange(depth + tokens, dtype=np.uint32) % 64
    executor.forward(cache, ids, 0 * ids, ids[:0], "f32")
    bound = [item for item in executor.bound(cache, "f32") if item.stage.op == "attend"]
    positions = np.arange(depth, depth + tokens, dtype=np.uint32)
    executor.write_step(cache, ids[depth:], positions, 0 * positions, positions[:0])
    best = dict.fromkeys(FORMS, float("inf"))
    for _ in range(ROUNDS):
        for form in FORMS:
            encoder = executor.device.encoder()
            executor.encode(encoder, bound, {"tokens": tokens, "outputs": 0}, form)
            start = time.perf_counter()
            executor.device.queue.submit([encoder.finish()])
            executor.device.read(executor.shared("no_input"), 0, 4, "cannot time `attend`")
            best[form] = min(best[form], time.perf_counter() - start)
    cache.release()
    return best


def numbers(text: str) -> Sequence[int]:
    """A comma-separated list of integers from the command line."""
    return [int(number) for number in text.split(",")]


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="gpu")
    parser.add_argument("--tokens", type=numbers, default=[16, 64, 256])
    parser.add_argument("--depths", type=numbers, default=[0, 1024])
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--kv-heads", type=int, default=2)
    parser.add_argument("--sizes", type=numbers, default=[64, 128])
    parser.add_argument("--kv", default="f32")
    options = parser.parse_args()
    adapter = find_adapter(options.device)
    if adapter is None or max(options.tokens) > BATCH:
        parser.error(f"this bench needs a card (--device gpu:N) and at most {BATCH} tokens")
    device = open_device(adapter)
    print(f"{adapter.name}, {adapter.backend}, {adapter.driver}")
    print("| kv | columns of a head | depth | tokens | by query ms | by tile ms | times "
          "| GFLOP/s |\n" + "|---" * 8 + "|")  # fmt: skip
    for size in options.sizes:
        executor = attending(device, options.heads, options.kv_heads, size)
        for kv in options.kv.split(","):
            for depth in options.depths:
                for tokens in options.tokens:
                    by_query, by_tile = times(executor, tokens, depth, kv).values()
                    met = tokens * depth + tokens * (tokens + 1) // 2
                    rate = 4 * options.heads * size * met / by_tile / 1e9
                    cells = f"{1e3 * by_query:.1f} | {1e3 * by_tile:.1f} | {by_query / by_tile:.2f}"
                    print(f"| {kv} | {size} | {depth} | {tokens} | {cells} | {rate:.1f} |")


if __name__ == "__main__":
    main()
