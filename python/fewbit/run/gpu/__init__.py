"""The GPU executor: runs plans by WGSL shaders on cards of any vendor, through wgpu."""
