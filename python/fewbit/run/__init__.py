"""Running a plan: a model's weights, executor and KV cache, on the CPU or on a graphics card."""
