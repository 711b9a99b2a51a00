"""The GPU executor: the same plans, run by shaders in WGSL through wgpu on any vendor's card."""
