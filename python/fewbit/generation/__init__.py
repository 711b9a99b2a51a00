"""Text from a model: generation, conversations, and reasoning told apart from answers."""
