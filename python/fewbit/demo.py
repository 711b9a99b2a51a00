"""The model and the text that come with the package, so that every command has something to do."""

from __future__ import annotations

from pathlib import Path

DEMO = Path(__file__).parent / "data" / "demo"
"""A Llama of 4.2 million weights (bfloat16), trained for this project."""


def demo_text() -> str:
    """85,883 characters sampled from the demo model itself at temperature 1.

    On text drawn from p the log of a perplexity ratio is, in expectation, the KL divergence, so
    the two columns of a comparison check each other.
    """
    return (DEMO / "demo.txt").read_bytes().decode()
