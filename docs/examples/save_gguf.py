"""Writes a GGUF file with one tensor in another format, loads it again, and generates text."""

import fewbit

model = fewbit.load("demo")
options = fewbit.Options(overrides={r"blk\.0\..*": "Q8_0"})  # the first layer keeps 8 bits
small = model.quantize("Q4_K_M", options=options)
small.save("small.gguf")

again = fewbit.load("small.gguf")
print({name: again.formats[name] for name in list(again.formats)[:4]})
print("The old house" + str(again.generate("The old house", max_tokens=30, temperature=0)))
