"""Measuring models: perplexity, KL divergence, comparison tables, speed, importance matrices."""
