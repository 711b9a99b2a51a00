"""Compares each op of a plan on the CPU with the oracle, to find the first one that is wrong.

Both get the same inputs: the oracle goes on with the CPU's values, so an error does not spread.
embed, linear, rope and add must give the same bits; the others may differ by roundings.
"""

from __future__ import annotations

import numpy as np

import fewbit
from fewbit.plan.plan import Plan
from reference.cache import Cache
from reference.run import Runner
from reference.weights import Weight

TOKENS = [17, 5, 300]
OPS = 16  # the first layer of the demo; the oracle is slow, so start with few

model = fewbit.load("demo", "cpu").quantize("Q8_0")
weights = {
    name: Weight(model.formats[name], len(data), columns, data.tobytes())
    for name in model.plan.weights()
    for data, columns in [(model.data(name), model.checkpoint.tensors[name].shape[-1])]
}
oracle = Runner(weights, Cache(len(TOKENS)), TOKENS, [0] * len(TOKENS), [2], acts="int8")

for count, op in enumerate(model.plan.ops[:OPS], start=1):
    beginning = Plan(model.config)
    beginning.ops = model.plan.ops[:count]  # the plan up to this op, whose value is then the result
    bound = model.backend.executor(beginning, model.weights, 1)
    cache = bound.cache(1, len(TOKENS), "f32")
    ids, sequence = np.array(TOKENS, np.uint32), np.zeros(len(TOKENS), np.uint32)
    found = bound.forward(cache, ids, sequence, np.arange(len(TOKENS), dtype=np.uint32), "int8")
    oracle.step(op.to_dict())
    expected = np.array(oracle.values[-1], np.float32)
    difference = float(np.max(np.abs(found - expected)))
    same = np.array_equal(found.view(np.uint32), expected.view(np.uint32))
    print(f"%{count - 1:<3} {op.kind:10} {'same bits' if same else f'differs by {difference:.1e}'}")
    oracle.values[-1] = found.tolist()
