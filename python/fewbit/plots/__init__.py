"""Pictures: number formats, weights of models, what quantization loses. They need matplotlib."""
