"""Files: safetensors and GGUF containers, configurations, tensor names, the hub."""
