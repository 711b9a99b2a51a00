"""Fused plans give the same bits as the original plans, in the oracle and on a card."""

import numpy as np
import pytest

from fewbit.run.gpu.executor import Executor
from fewbit.run.gpu.fuse import fuse
from reference import experts, run
from reference.weights import Weight
from tests.compare import same_bits, within_bound
from tests.golden.loading import NAMES, NOISE, load
from tests.gpu.running import embed, op, stored, upload, values
from tests.gpu.test_models import forward

STAGES = {
    "llama": (14, 10), "mistral": (14, 10), "qwen2": (14, 10), "qwen3": (16, 13),
    "phi3": (11, 10), "gpt2": (9, 9), "gemma3": (20, 17), "qwen3_moe": (20, 17),
    "gpt_oss": (18, 14),
}  # fmt: skip
"""Dispatches of an attention layer, before and after fusion."""


def joined_weights(plan, weights):
    """The weights with each tensor ``A+B`` of the plan: the rows of both, expert by expert."""
    made = dict(weights)
    joined = {name: step.get("experts", 1) for step in plan for name in step["weights"]}
    for name, matrices in joined.items():
        tensors = [weights[n] for n in name.split("+")]
        if len(tensors) > 1 and name.count(".bias"):
            rows = [np.array(w.values).reshape(matrices, -1) for w in tensors]
            made[name] = stored(np.concatenate(rows, axis=1))
        elif len(tensors) > 1:
            rows = [experts.split(w, matrices) for w in tensors]
            data = b"".join(w.data for same in zip(*rows, strict=True) for w in same)
            made[name] = Weight(
                tensors[0].format,
                len(data) * tensors[0].rows // len(tensors[0].data),
                tensors[0].columns,
                data,
            )
    return made


@pytest.mark.parametrize("name", NAMES)
def test_the_oracle_gives_the_same_bits(name):
    """The oracle runs the original and the fused plan."""
    g = load(name)
    plan = fuse(g.plan, lambda names, _: len({g.weights[n].format for n in names}) == 1)
    assert plan != g.plan or name == "gpt2"
    found = run.forward(plan, joined_weights(plan, g.weights), g.ids[:6], outputs=[5])
    same_bits(np.float32(found), np.float32(run.forward(g.plan, g.weights, g.ids[:6], outputs=[5])))


@pytest.mark.parametrize("acts", ["f32", "int8"])
@pytest.mark.parametrize(
    "name", ["llama", "qwen2", "gemma3", "phi3", "qwen3_5", "qwen3_moe", "gpt_oss"]
)
def test_a_card_gives_the_same_bits(card, name, acts):
    """Few tokens and many; with biases, heads that are rotated in part, and recurrent states."""
    g = load(name)
    plain, fused = (
        Executor(g.plan, upload(card, g.weights, g.plan), fused=fused) for fused in (False, True)
    )
    found = []
    for executor in (plain, fused):
        cache, where = executor.cache(1, 24), np.zeros(12, np.uint32)
        ids, wanted = np.uint32(g.ids[:12]), np.arange(12, dtype=np.uint32)
        rows = executor.forward(cache, ids, where, wanted, acts)
        last = executor.forward(cache, ids[:1], where[:1], wanted[:1], acts)
        found.append(np.concatenate([rows, last]))
    same_bits(found[1], found[0])
    assert len(fused.program(acts).stages) < len(plain.program(acts).stages)


@pytest.mark.parametrize("name", STAGES)
def test_dispatches_of_a_layer(card, name):
    """Dispatches between the first two `attend` ops: those of one layer."""
    g = load(name)
    found = []
    for fused in (False, True):
        executor = Executor(g.plan, upload(card, g.weights, g.plan), fused=fused)
        stages = [stage.for_cache(64) for stage in executor.program("f32").stages]
        ops = [s.op for s in stages if s and "few_tokens" in s.step_kinds and not s.above]
        first, second = [i for i, kind in enumerate(ops) if kind == "attend"][:2]
        found.append(second - first)
    assert tuple(found) == STAGES[name]


@pytest.mark.parametrize(
    "formats", [("Q8_0", "Q8_0", "Q4_0"), ("Q4_K", "Q6_K", "Q4_K"), ("sym4-g32",) * 3]
)
def test_only_what_has_one_format_is_joined(card, formats):
    """Of three products of one value, those with the format of the first; affine formats never."""
    x = values(1, 5, 256)
    weights = {"x": stored(x)}
    plan = [embed("x", x)]
    for at, name in enumerate(formats):
        weights[f"w{at}"] = stored(values(2 + at, 8, 256), name)
        plan.append(op("linear", [0], [f"w{at}"], 8))
    plan += [op("add", [1, 2], [], 8), op("swiglu", [4, 3], [], 8)]
    rows = []
    for fused in (False, True):
        executor = Executor(plan, upload(card, weights, plan), fused=fused)
        rows.append(forward(executor, executor.cache(1, 5), range(5)))
    same_bits(rows[1], rows[0])
    products = [stage for stage in executor.program("f32").stages if stage.op == "linear"]
    assert len(products) == (3 if formats[0].startswith("sym") else 2)


@pytest.mark.parametrize(("width", "products"), [(5, 2), (6, 1)])
def test_experts_are_joined_where_each_is_of_whole_words(card, width, products):
    """A copy needs sizes in whole words: the headers of five rows are ten bytes."""
    x = np.concatenate([values(1, 9, 32), values(2, 9, 8)], axis=1)
    weights = {"x": stored(x)} | {
        name: stored(values(3 + at, 8 * width, 32), "Q4_0") for at, name in enumerate("gu")
    }
    plan = [
        embed("x", x),
        *(op("part", [0], [], n, parts=1, start=start) for n, start in ((32, 0), (8, 32))),
        op("route", [2], [], 8, used=4, normalize=True),
        *(op("expert_linear", [1, 3], [name], 4 * width, experts=8) for name in "gu"),
        op("swiglu", [4, 5], [], 4 * width),
    ]
    rows = []
    for fused in (False, True):
        executor = Executor(plan, upload(card, weights, plan), fused=fused)
        for count in (1, 9):
            rows.append(forward(executor, executor.cache(1, count), range(count)))
    same_bits(rows[2], rows[0])
    same_bits(rows[3], rows[1])
    stages = [s for s in executor.program("f32").stages if s.op == "expert_linear"]
    assert len(stages) == products


def test_the_same_weights_serve_further_executors(card):
    g = load("llama")
    held = upload(card, g.weights, g.plan)
    taken = []
    for _ in range(2):
        executor = Executor(g.plan, held)
        cache = executor.cache(1, len(g.ids))
        within_bound(forward(executor, cache, g.ids), g.logits, NOISE)
        cache.release()
        executor.release()
        taken.append(card.allocated)
    assert taken[0] == taken[1], "joined tensors are not stored twice"
