"""Reading models from disk: safetensors and GGUF files, configurations, names, the hub."""
