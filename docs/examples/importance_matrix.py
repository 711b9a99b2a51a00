"""Quantizes to 2 bits with and without an importance matrix, and measures both on another text."""

import fewbit

model = fewbit.load("demo", "cpu")
text = fewbit.demo_text()
sample, test = text[:40_000], text[40_000:]

importance = model.imatrix(sample)
importance.save("importance.gguf")  # llama.cpp's file format

for name, imatrix in (("without", None), ("with", fewbit.read_imatrix("importance.gguf"))):
    small = model.quantize("Q2_K", imatrix)
    lost = small.divergence(model, test, chunks=4, acts="f32")
    print(f"{name:8} KL divergence {lost.kld.value:.3f} ± {lost.kld.error:.3f}")
