"""Separates what quantized weights lose from what fast arithmetic adds, and from the KV cache."""

from typing import Literal

import fewbit

base = fewbit.load("demo")
text = fewbit.demo_text()


def report(name: str, model: fewbit.Model, acts: Literal["f32", "int8"]) -> None:
    """Print the KL divergence of `model` from the base, and how often the top token agrees."""
    lost = model.divergence(base, text, chunks=4, acts=acts)
    agree = 100 * lost.same_top.value
    print(f"{name:29} KL divergence {lost.kld.value:.5f} nats, same top token {agree:.1f} %")


report("Q8_0 weights", base.quantize("Q8_0"), "f32")
report("Q8_0 weights, int8 arithmetic", base.quantize("Q8_0"), "int8")
report("int8 keys and values", fewbit.load("demo", kv="int8"), "f32")
