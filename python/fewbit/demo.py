"""The model and the text that come with the package, which every command uses by default."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

DEMO = Path(__file__).parent / "data" / "demo"
"""A Llama of 4.2 million weights (bfloat16), trained for this project."""


def is_demo(model: str | PathLike[str] | None) -> bool:
    """Whether `model` means the built-in one: None, or "demo" if no file is called so."""
    return model is None or (str(model) == "demo" and not Path(model).exists())


def demo_or(model: str | PathLike[str] | None) -> str | PathLike[str]:
    """The path of the built-in model if `model` means it, else `model`."""
    return DEMO if model is None or is_demo(model) else model


def demo_text() -> str:
    """85,883 characters sampled from the demo model itself at temperature 1.

    On text drawn from p the log of a perplexity ratio is, in expectation, the KL divergence, so
    the two columns of a comparison check each other.
    """
    return (DEMO / "demo.txt").read_bytes().decode()
