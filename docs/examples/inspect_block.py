"""Takes one Q4_0 block apart by hand, and checks the result against fewbit."""

import numpy as np

import fewbit

row = np.linspace(-1, 1, 32, dtype=np.float32)
stored = fewbit.quantize(row[None], "Q4_0")
block = stored.data[0]  # 18 bytes: an f16 scale, then 16 bytes of two 4-bit codes each

scale = block[:2].view(np.float16)[0].astype(np.float32)
codes = np.concatenate([block[2:] & 15, block[2:] >> 4]).astype(np.float32)
values = scale * (codes - 8)

print("scale ", scale)
print("codes ", codes.astype(int).tolist())
print("values", values.round(3).tolist())
assert np.array_equal(values, stored.dequantize()[0])
