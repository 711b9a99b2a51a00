"""Compares formats of one model: size, perplexity and KL divergence."""

import fewbit

model = fewbit.load("demo")
text = fewbit.demo_text()

print("format        bytes  perplexity  KL divergence")
for recipe in ("Q8_0", "Q4_K_M", "Q2_K", "asym3-g64"):
    small = model.quantize(recipe)
    lost = small.divergence(model, text, chunks=4, acts="f32")
    kld = f"{lost.kld.value:.5f} ± {lost.kld.error:.5f}"
    print(f"{recipe:9} {small.sizes.bytes:9,} {lost.ppl.value:11.3f}  {kld}")
