"""Number formats: the table of all formats, the layouts of their blocks, and quantized arrays."""
