"""Compares formats of one model, and picks the smallest that loses little."""

import fewbit

found = fewbit.compare("demo", ["Q8_0", "Q5_0", "Q4_K_M", "Q2_K", "asym3-g64"], chunks=2)
print(found)  # as `fewbit compare` prints it; found.to_markdown() and found.to_csv() also exist

good = [row for row in found if row.fast.kld.value < 0.05]  # nats
smallest = min(good, key=lambda row: row.sizes.bytes)
print(f"\nsmallest below 0.05 nats: {smallest.format}, {smallest.sizes.bits_per_weight:.2f} bits")
