"""Terms of quantization: a few sentences and a formula each. `explain` adds an example."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Term:
    """A term: sentences that define it, a formula ("" if it has none), other names."""

    name: str
    text: tuple[str, ...]
    formula: str = ""
    aliases: tuple[str, ...] = ()
    see: tuple[str, ...] = ()


TERMS = {
    term.name: term
    for term in (
        Term(
            "block",
            (
                "A block is a run of weights of one row, mostly 32, that are stored together and "
                "share a scale. An outlier spoils only the weights of its own block.",
                "A block never crosses rows. Smaller blocks mean smaller errors and more bits, "
                "because each block stores its own scale.",
            ),
            "bits per weight = code bits + (scale bits + zero point bits) / weights of the block",
            ("group",),
            ("super-block", "scale", "outlier"),
        ),
        Term(
            "super-block",
            (
                "A super-block is 256 weights in 8 or 16 blocks. Each block has a scale of 4 to 8 "
                "bits, and one f16 for the super-block multiplies all of them.",
                "So small blocks cost less: Q4_K has a scale and a minimum for 32 weights at 4.5 "
                "bits per weight, as much as Q4_0 takes for a scale alone.",
            ),
            "Q4_K: value = d * scale * code - dmin * minimum",
            ("superblock", "k-quant"),
            ("block",),
        ),
        Term(
            "scale",
            (
                "A scale is the float that turns the integer codes of a block into values: the "
                "distance of two neighbouring values.",
            ),
            "symmetric: scale = largest magnitude / largest code; value = scale * code",
            ("delta", "d"),
            ("zero point", "block"),
        ),
        Term(
            "zero point",
            (
                "A zero point is the code that means 0. Asymmetric formats store it, so that all "
                "codes lie between the smallest and the largest weight of a block.",
                "K formats store a minimum instead, which is -scale * zero point.",
            ),
            "value = scale * (code - zero point)",
            ("zero", "asymmetric", "minimum"),
            ("scale",),
        ),
        Term(
            "outlier",
            (
                "An outlier is a weight many standard deviations (σ) away from the others. It "
                "makes the scale of its block large, and the other weights of the block coarse.",
            ),
            "distance in σ = |weight - mean| / standard deviation",
            ("outliers", "sigma"),
            ("block",),
        ),
        Term(
            "perplexity",
            (
                "Perplexity says how well a model predicts a text: a model that hesitates between "
                "37 equally likely tokens at each step has perplexity 37. Lower is better.",
            ),
            "PPL = exp(mean of -ln p(token | tokens before it))",
            ("ppl",),
            ("KLD",),
        ),
        Term(
            "KLD",
            (
                "The Kullback-Leibler divergence compares the probabilities p of the original "
                "model with the probabilities q of the quantized one, for all next tokens.",
                "It is 0 only if both are equal, and it needs no text with a right answer.",
            ),
            "KLD = sum over all tokens of p * ln(p / q)",
            ("kl", "divergence", "kl divergence"),
            ("perplexity",),
        ),
        Term(
            "imatrix",
            (
                "An importance matrix has the mean square of each column's activations on a sample "
                "text. The error of a weight costs as much as its input is large, so the encoder "
                "puts its errors where inputs are small.",
            ),
            "weighted error = sum of importance[column] * (weight - value)^2",
            ("importance", "importance matrix"),
            ("acts",),
        ),
        Term(
            "acts",
            (
                "Activations are the vectors that weights are multiplied with. `--acts int8` "
                "rounds them to 8 bits in groups of 32 or 256, which is fast; `--acts f32` does "
                "not round them, so that only the weights' own error is measured.",
            ),
            "scale = largest magnitude of the group / 127; code = round(activation / scale)",
            ("activations", "int8"),
            ("scale",),
        ),
        Term(
            "mixture",
            (
                "A mixture such as Q4_K_M gives tensors different formats: more bits to those "
                "whose errors cost most, as the output matrix and some of attn_v and ffn_down.",
            ),
            "",
            ("recipe",),
            ("block",),
        ),
        Term(
            "roofline",
            (
                "Generating a token reads every weight once. Two bounds limit it: the memory, "
                "which delivers bytes, and the arithmetic, which unpacks and multiplies codes.",
                "Fewer bits raise the memory's bound alone. Where the arithmetic is the lower "
                "bound, a 2-bit format whose codes take longer to unpack is slower than a 4-bit "
                "one, although it reads fewer bytes.",
            ),
            "weights per second <= min(arithmetic, bytes per second / bytes per weight)",
            ("2-bit", "speed", "why 2-bit is slower than 4-bit"),
            ("block",),
        ),
    )
}
"""Terms by name, in the order in which one leads to the next."""


def find_term(name: str) -> Term | None:
    """The term called `name`, in any letter case and with or without hyphens; None if unknown."""
    for term in TERMS.values():
        if _plain(name) in {_plain(each) for each in (term.name, *term.aliases)}:
            return term
    return None


def _plain(name: str) -> str:
    return name.lower().replace("-", " ").replace("_", " ").strip()
