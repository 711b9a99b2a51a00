"""Compares formats of one model: size, perplexity and KL divergence."""

import fewbit

model = fewbit.load(fewbit.DEMO)
text = fewbit.demo_text()

print("format        bytes  perplexity  KL divergence")
for recipe in ("Q8_0", "Q4_K_M", "Q2_K", "asym3-g64"):
    small = model.quantize(recipe)
    size = sum(small.data(name).size for name in small.formats)
    lost = small.divergence(model, text, chunks=4, acts="f32")
    kld = f"{lost.kld.value:.5f} ± {lost.kld.error:.5f}"
    print(f"{recipe:9} {size:9,} {lost.ppl.value:11.3f}  {kld}")
