"""llama.cpp's mixtures as data: file types, and which tensors get other formats than the main one.

A tensor has a kind ("attn_v", "ffn_down", ...) by substrings of its name, as in llama.cpp. A
mixture has one rule for a kind: from the place of a tensor among those of its kind to a format, or
to None for the main format.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

FILE_TYPES: dict[str, int] = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10,
    "Q3_K_S": 11, "Q3_K_M": 12, "Q3_K_L": 13, "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_S": 16,
    "Q5_K_M": 17, "Q6_K": 18, "IQ2_XXS": 19, "IQ2_XS": 20, "Q2_K_S": 21, "IQ3_XS": 22,
    "IQ3_XXS": 23, "IQ1_S": 24, "IQ4_NL": 25, "IQ3_S": 26, "IQ3_M": 27, "IQ2_S": 28, "IQ2_M": 29,
    "IQ4_XS": 30, "IQ1_M": 31, "BF16": 32, "TQ1_0": 36, "TQ2_0": 37, "MXFP4_MOE": 38, "Q1_0": 40,
    "Q2_0": 41,
}  # fmt: skip
"""Recipe of ``llama-quantize`` -> its number in GGUF (`general.file_type`)."""
OTHER_FILE_TYPES = {"MXFP4": 38, "NVFP4": 39}
"""Numbers of formats that are not recipes of ``llama-quantize``."""
ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}
MAIN_FORMATS = {
    "Q2_K_S": "Q2_K", "Q3_K_S": "Q3_K", "Q3_K_M": "Q3_K", "Q3_K_L": "Q3_K", "Q4_K_S": "Q4_K",
    "Q4_K_M": "Q4_K", "Q5_K_S": "Q5_K", "Q5_K_M": "Q5_K", "IQ2_S": "IQ2_XS", "IQ2_M": "IQ2_S",
    "IQ3_XS": "IQ3_S", "IQ3_M": "IQ3_S", "MXFP4_MOE": "MXFP4",
}  # fmt: skip
"""Main format of the recipes whose name is not a format."""

FALLBACKS = {
    "Q2_0": "Q4_0", "Q2_K": "Q4_0", "Q3_K": "Q4_0", "TQ1_0": "Q4_0", "TQ2_0": "Q4_0",
    "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "IQ1_S": "IQ4_NL", "IQ1_M": "IQ4_NL",
    "IQ2_XXS": "IQ4_NL", "IQ2_XS": "IQ4_NL", "IQ2_S": "IQ4_NL", "IQ3_XXS": "IQ4_NL",
    "IQ3_S": "IQ4_NL", "IQ4_XS": "IQ4_NL",
}  # fmt: skip
"""Fallback of a format whose blocks do not divide a row; F16 if those of the fallback do not.

Formats with blocks of up to 32 elements fall back to F16; Q1_0 and NVFP4 have no fallback.
"""
DEMANDING = {"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS"}
"""Formats that need an importance matrix."""
DEMANDING_IN_RECIPE = {"Q2_K_S": "Q2_K"}
"""Recipe -> format that needs an importance matrix in this recipe only."""

TABLES = ("token_embd.weight", "per_layer_token_embd.weight")
_KINDS = {
    "attn_qkv.weight": "attn_v", "attn_kv_b.weight": "attn_v", "attn_v.weight": "attn_v",
    "attn_k.weight": "attn_k", "attn_q.weight": "attn_q", "attn_output.weight": "attn_output",
    "ffn_up": "ffn_up", "ffn_gate": "ffn_gate", "ffn_down": "ffn_down",
}  # fmt: skip
"""Substring of a tensor name -> kind, the first match wins; fused q, k, v count as v."""
UNQUANTIZED = (
    "_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight", "altup", "laurel",
    "per_layer_model_proj", "ssm_conv1d", "shortconv.conv.weight", "indexer.k_proj.weight",
    "indexer.q_proj.weight", "attn_rel_b.weight", ".position_embd", "sam.pos_embd", "sam.neck.",
    "sam.net_", ".rel_pos", ".patch_embd", ".patch_merger", "a.rvq.codebook", "mm.a.code_embd",
    *(f"time_mix_{name}.weight" for name in (
        "first", "w0", "w1", "w2", "v0", "v1", "v2", "a0", "a1", "a2", "g1", "g2", "decay_w1",
        "decay_w2", "lerp_fused",
    )),
)  # fmt: skip
"""Substrings of the names of tensors that are never quantized: small or sensitive ones."""
UNQUANTIZED_NAMES = ("position_embd.weight", "token_types.weight")
UNQUANTIZED_IN_GLM5_NEXT = (
    "hc_", "indexer.attn_q_b", "indexer.attn_k", "indexer.proj", "indexer_compressor_gate",
    "indexer_compressor_ape", "ssm_f_a.weight", "ssm_f_b.weight", "ssm_g_a.weight",
    "ssm_g_b.weight", "ssm_beta.weight", "attn_kv_a_mqa.weight", "attn_k_b.weight",
    "attn_v_b.weight",
)  # fmt: skip
Q8_IN_GLM5_NEXT = ("attn_q_a", "attn_q_b", "nextn.eh_proj")
LAYERS_OF_70B = {
    "llama": 80, "llama-embed": 80, "qwen2": 80, "deci": 80, "olmo": 80, "jais2": 68,
}  # fmt: skip
"""Number of layers of the "70B" model of an architecture: its V matrices get at least Q5_K."""


@dataclass(frozen=True)
class Place:
    """Place of a tensor in its model: number `index` of `count` tensors of its kind.

    `gqa` is the number of query heads for each value head, `experts` the number of experts.
    `importance` is True if there is an importance matrix.
    """

    index: int
    count: int
    gqa: int
    experts: int
    importance: bool

    @property
    def early(self) -> bool:
        """True in the first eighth of the tensors."""
        return self.index < self.count // 8

    @property
    def spread(self) -> bool:
        """True in the first or last eighth, and for every third between (`use_more_bits`)."""
        third = (self.index - self.count // 8) % 3 == 2
        return self.early or self.index >= 7 * self.count // 8 or third

    @property
    def between(self) -> bool:
        """True between the first and the last eighth."""
        return self.count // 8 <= self.index < 7 * self.count // 8


Rule = Callable[[Place], str | None]
Rules = Mapping[str, Rule]


def _always(format_: str) -> Rule:
    return lambda at: format_


def _where(test: Callable[[Place], bool], format_: str, otherwise: str | None = None) -> Rule:
    return lambda at: format_ if test(at) else otherwise


def _shared(format_: str, otherwise: str | None = None) -> Rule:
    """`format_` where 4 or more query heads use a value head, so that V is a small matrix."""
    return _where(lambda at: at.gqa >= 4, format_, otherwise)


def _eight(format_: str | None, otherwise: str | None = None) -> Rule:
    """`format_` in models of 8 experts (Mixtral), where attention is small beside the experts."""
    return lambda at: format_ if at.experts == 8 else otherwise


def _tiny(sensitive: str, table: str, attn_output: str | None) -> Rules:
    """Rules of the mixtures of 1 and 2 bits; `sensitive` is the format of V and early layers."""
    return {
        "attn_v": _where(lambda at: at.gqa >= 4 or at.experts >= 4, "Q4_K", sensitive),
        "attn_k": _eight("Q4_K"),
        "ffn_down": _where(lambda at: at.early, sensitive),
        "attn_output": _eight("Q5_K", attn_output),
        "token_embd": _always(table),
    }


_SPREAD = _where(lambda at: at.spread, "Q6_K")
_IQ4: Rules = {
    "attn_v": _shared("Q5_K"),
    "ffn_down": _where(lambda at: at.early and not at.importance, "Q5_K"),
    "attn_output": _eight("Q5_K"),
}
_TERNARY: Rules = {"token_embd": _always("Q4_K")}

TINY: dict[str, Rules] = {
    "IQ1_S": _tiny("Q2_K", "Q2_K", "IQ2_XXS"),
    "IQ1_M": _tiny("Q2_K", "Q2_K", "IQ2_XXS"),
    "IQ2_XXS": _tiny("Q2_K", "Q2_K", None),
    "IQ2_XS": _tiny("Q2_K", "Q2_K", None),
    "IQ2_S": _tiny("IQ3_S", "IQ3_S", "IQ3_S"),
    "IQ2_M": _tiny("IQ3_S", "IQ3_S", "IQ3_S"),
}
"""Mixtures that count tensors instead of layers; llama.cpp applies no other rule to them."""
_MIXTURES: dict[str, Rules] = {
    "Q2_K": {
        "attn_v": _shared("Q4_K", "Q3_K"),
        "ffn_down": _always("Q3_K"),
        "attn_output": _eight("Q5_K", "Q3_K"),
    },
    "Q2_K_S": {
        "attn_v": _shared("Q4_K"),
        "ffn_down": _where(lambda at: at.early, "Q4_K"),
    },
    "Q3_K_S": {"attn_output": _eight("Q5_K")},
    "Q3_K_M": {
        "attn_v": _where(lambda at: at.index < 2, "Q5_K", "Q4_K"),
        "ffn_down": _where(lambda at: at.index < at.count // 16, "Q5_K", "Q4_K"),
        "attn_output": _eight("Q5_K", "Q4_K"),
    },
    "Q3_K_L": {
        "attn_v": _always("Q5_K"),
        "ffn_down": _always("Q5_K"),
        "attn_output": _eight(None, "Q5_K"),
    },
    "Q4_K_S": {
        "attn_v": _where(lambda at: at.index < 4, "Q5_K"),
        "ffn_down": _where(lambda at: at.early, "Q5_K"),
        "attn_output": _eight("Q5_K"),
    },
    "Q4_K_M": {"attn_v": _SPREAD, "ffn_down": _SPREAD, "attn_output": _eight("Q5_K")},
    "Q5_K_M": {"attn_v": _SPREAD, "ffn_down": _SPREAD},
    "Q4_0": {"ffn_down": _where(lambda at: at.early and at.importance, "Q4_1")},
    "Q5_0": {"ffn_down": _where(lambda at: at.early and at.importance, "Q5_1")},
    "IQ3_XXS": {
        "attn_v": lambda at: "Q4_K" if at.gqa >= 4 else None if at.importance else "IQ3_S",
        "attn_k": _always("IQ2_S"),
        "attn_q": _always("IQ2_S"),
        "ffn_down": lambda at: None if at.importance else "Q4_K" if at.early else "Q3_K",
        "attn_output": _eight("Q5_K", "IQ3_S"),
        "token_embd": _always("IQ3_S"),
    },
    "IQ3_XS": {
        "attn_v": _shared("Q4_K"),
        "attn_k": _always("IQ3_XXS"),
        "attn_q": _always("IQ3_XXS"),
        "attn_output": _eight("Q5_K"),
        "ffn_gate": _where(lambda at: at.between, "IQ3_XXS"),
        "ffn_up": _where(lambda at: at.between, "IQ3_XXS"),
    },
    "IQ3_S": {"attn_v": _shared("Q4_K"), "attn_output": _eight("Q5_K")},
    "IQ3_M": {
        "attn_v": _always("Q4_K"),
        "ffn_down": _where(lambda at: at.early or (at.experts == 8 and at.spread), "Q4_K"),
        "attn_output": _eight("Q5_K", "Q4_K"),
    },
    "IQ4_NL": _IQ4,
    "IQ4_XS": _IQ4,
    "TQ1_0": _TERNARY,
    "TQ2_0": _TERNARY,
    "Q2_0": _TERNARY,
}
_FALCON: dict[str, Rules] = {
    "Q3_K_M": {
        "ffn_down": lambda at: (
            "Q5_K" if at.index < at.count // 16 else "Q4_K" if at.spread else None
        ),
    },
    "Q3_K_L": {"ffn_down": _always("Q4_K"), "attn_output": _always("Q4_K")},
    "Q4_K_S": {"ffn_down": lambda at: None},
    "Q4_K_M": {
        "ffn_down": lambda at: (
            "Q6_K" if at.index < at.count // 16 else "Q5_K" if at.spread else None
        ),
    },
}
"""Rules of Falcon that replace those above; it has no rule for `attn_output`."""
Q5_OUTPUT = {*TINY, "IQ3_XXS"}
"""Mixtures whose output matrix is Q5_K instead of Q6_K."""


def kind_of(name: str) -> str:
    """Return the kind of tensor `name`, "other" if no rule applies to it."""
    if name == "output.weight":
        return "output"
    if name in TABLES:
        return "token_embd"
    return next((kind for substring, kind in _KINDS.items() if substring in name), "other")


def rules_of(recipe: str, architecture: str) -> Rules:
    """Return the rules of `recipe` for models of `architecture`, by kind of tensor."""
    if recipe in TINY:
        return TINY[recipe]
    rules = _MIXTURES.get(recipe, {})
    if architecture != "falcon":
        return rules
    rest = {kind: rule for kind, rule in rules.items() if kind != "attn_output"}
    return rest | dict(_FALCON.get(recipe, {}))
