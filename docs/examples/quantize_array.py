"""Stores an array in several formats and shows what each one loses."""

import numpy as np

import fewbit

rng = np.random.default_rng(0)
weights = rng.normal(0, 0.05, (256, 1024)).astype(np.float32)

print("format      bits    largest error  signal to noise")
for name in ("Q8_0", "Q6_K", "Q4_0", "asym4-g64", "IQ2_S", "TQ1_0"):
    stored = fewbit.quantize(weights, name)
    error = stored.error
    print(f"{name:10} {stored.bits_per_weight:6.3f} {error.max_abs:14.5f} {error.snr:13.1f} dB")
