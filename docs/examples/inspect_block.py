"""Takes one Q4_0 block apart by hand, and checks the result against fewbit."""

import numpy as np

import fewbit

contents = fewbit.inspect("demo")
print(f"{contents.weights:,} weights, {contents.bits_per_weight:.0f} bits each")

row = fewbit.load("demo", "cpu").tensor("blk.0.ffn_down.weight")[:1, :32]
stored = fewbit.quantize(row, "Q4_0")
block = stored.data[0]  # 18 bytes: an f16 scale, then 16 bytes of two 4-bit codes each

scale = block[:2].view(np.float16)[0].astype(np.float32)
codes = np.concatenate([block[2:] & 15, block[2:] >> 4]).astype(np.float32)
values = scale * (codes - 8)

print("source", row[0, :8].round(3))
print("scale ", scale)
print("codes ", codes.astype(int)[:8])
print("values", values[:8].round(3))
assert np.array_equal(values, stored.dequantize()[0])
