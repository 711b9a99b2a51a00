"""Text from a model: generation, conversations, and reasoning separate from answers."""
