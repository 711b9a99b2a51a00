"""The ways of splitting text before byte-level BPE that GGUF names in `tokenizer.ggml.pre`.

Each is a list of regular expressions. The first cuts the text before and after each of its matches,
the next one cuts the pieces in the same way. The names are llama.cpp's (``llama-vocab.cpp``), the
expressions those of the tokenizers that the names stand for.
"""

from __future__ import annotations

from dataclasses import dataclass

_SUFFIXES = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
"""English endings after an apostrophe."""
_SPACES = r"\s+(?!\S)|\s+"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|" + _SPACES
_SIGNS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|" + _SPACES
_LETTERS = _SUFFIXES + r"|[^\r\n\p{L}\p{N}]?\p{L}+|"
_LLAMA3 = _LETTERS + r"\p{N}{1,3}" + _SIGNS
_QWEN2 = _LETTERS + r"\p{N}" + _SIGNS
_QWEN35 = (
    _SUFFIXES + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|" + _SPACES
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def _cased(number: str, suffixes: str = "") -> str:
    """Words that end where lower case turns into upper case; numbers and signs."""
    begin = r"[^\r\n\p{L}\p{N}]?"
    words = f"{begin}{_UPPER}*{_LOWER}+{suffixes}|{begin}{_UPPER}+{_LOWER}*{suffixes}"
    return rf"{words}|{number}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|{_SPACES}"


_GPT4O = _cased(r"\p{N}{1,3}", _SUFFIXES + "?")
_ASCII_SIGNS = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"
_DEEPSEEK_WORDS = _ASCII_SIGNS + r"[A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"
_DEEPSEEK3 = _DEEPSEEK_WORDS + r"[\r\n]*|\s*[\r\n]+|" + _SPACES
_CJK = "[一-龥\u3040-ゟ゠-ヿ]+"
_EAST_ASIAN = "[一-龥ࠀ-一가-\ud7ff]+"
_CASED_LETTERS = (
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕ"
    "ἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭ"
    "ℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤ\u2ceb-\u2cee\u2cf2\u2cf3Ꙁ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)
_DEEPSEEK_LLM = (
    *(r"[\r\n]", rf"\s?[{_CASED_LETTERS}]+", r"\s?[!-/:-~！-／：-～‘-‟\u3000-。]+"),
    *(r"\s+$", _EAST_ASIAN),
)
_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
_YOUTU = "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|" + _CJK
_JAIS_SPACES = "|".join(
    rf"\s{{{n}}}(?!\S)" for n in ("512", "256", "128", "64", "32", "16", "8", "4", "1,2")
)
PUNCTUATION = r"[\p{P}\$\+<=>\^~\|`]+"
"""Runs of what `tokenizers` calls punctuation."""


@dataclass(frozen=True)
class Splitting:
    """A rule of splitting text before byte-level BPE: GGUF's names for it, patterns in order.

    `ignores_merges` takes a word that is in the vocabulary as one token, without merging.
    `normal_form` composes characters first (NFC). `adds_bos` is the default of the file's own key.
    `spellings` are other patterns that tokenizers of these names have in tokenizer.json; they
    differ for digits, which most of these vocabularies do not merge.
    """

    names: tuple[str, ...]
    patterns: tuple[str, ...]
    ignores_merges: bool = False
    normal_form: bool = False
    adds_bos: bool = False
    spellings: tuple[tuple[str, ...], ...] = ()


SPLITTINGS = (
    Splitting(
        (
            *("gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4"),
            *("gigachat", "a.x-4.0", "mellum", "modern-bert", "jina-es", "jina-de"),
            *("jina-v2-es", "jina-v2-de"),
        ),
        (GPT2,),
    ),
    Splitting(
        (
            *("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "falcon-h1", "midm-2.0"),
            *("lfm2", "jina-v5-nano"),
        ),
        (_LLAMA3,),
        ignores_merges=True,
        adds_bos=True,
    ),
    Splitting(("dbrx", "smaug-bpe", "glm4", "chatglm-bpe"), (_LLAMA3,)),
    Splitting(
        ("qwen2", "deepseek-r1-qwen", "megrez", "kormo", "f2llmv2"), (_QWEN2,), normal_form=True
    ),
    Splitting(("stablelm2", "hunyuan", "solar-open", "grok-2"), (_QWEN2,)),
    Splitting(
        (
            *("smollm", "codeshell", "refact", "command-r", "starcoder", "exaone", "minerva-7b"),
            "mellum2",
        ),
        (r"\p{N}", GPT2),
    ),
    Splitting(("tekken",), (_cased(r"\p{N}"),), ignores_merges=True, adds_bos=True),
    Splitting(("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"), (_GPT4O,)),
    Splitting(("qwen35",), (_QWEN35,), normal_form=True),
    Splitting(
        ("deepseek-llm",),
        (*_DEEPSEEK_LLM, r"\p{N}+"),
        spellings=((*_DEEPSEEK_LLM, r"\p{N}"),),
    ),
    Splitting(("deepseek-coder",), (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _EAST_ASIAN, r"\p{N}")),
    Splitting(
        ("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"), (r"\p{N}{1,3}", _CJK, _DEEPSEEK3)
    ),
    Splitting(
        ("spark2_5",),
        (r"\p{N}{1,3}", _CJK, _DEEPSEEK_WORDS + r"|[\r\n]|" + _SPACES, r"\p{N}"),
    ),
    Splitting(
        ("falcon",),
        (PUNCTUATION, GPT2, "[0-9][0-9][0-9]"),
        spellings=((PUNCTUATION, GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),),
    ),
    Splitting(
        ("seed-coder",),
        (_LETTERS + r"\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|" + _SPACES,),
    ),
    Splitting(("bailingmoe", "bailingmoe2", "llada-moe"), (_QWEN2,)),
    Splitting(("ufakzeka",), (_QWEN2.removeprefix(_SUFFIXES + "|"),)),
    Splitting(("laguna",), (r"[^\n]+|[\n]+", _QWEN2)),
    Splitting(
        ("exaone-moe",),
        (
            _SUFFIXES + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]+|" + _SPACES,
        ),
    ),
    Splitting(("jais-2",), (_LLAMA3.removesuffix(_SPACES) + _JAIS_SPACES + r"|\s{1}",)),
    Splitting(("minicpm5",), (r"\p{N}{1,3}", _LETTERS + r"\p{N}+" + _SIGNS), ignores_merges=True),
    # Looking ahead to the end of a number takes time that grows with the square of its length: in
    # numbers of more than 300 digits the first ones are not grouped.
    Splitting(
        ("tiny_aya", "cohere2moe"),
        (r"\d{1,3}(?=(?:\d{3}){0,100}\b)", _GPT4O),
        spellings=((r"\d{1,3}(?=(?:\d{3})*\b)", _GPT4O),),
    ),
    Splitting(
        ("superbpe",),
        (r"\p{N}+", r"(?=(\d{3}){1,100}(?!\d))"),
        spellings=((r"\p{N}+", r"(?=(\d{3})+(?!\d))"),),
    ),
    Splitting(("poro-chat", "bloom", "gpt3-finnish"), (_BLOOM,)),
    Splitting(("viking",), (_BLOOM, r"\p{N}")),
    Splitting(("youtu",), (_YOUTU, _cased(r"\p{N}", _SUFFIXES + "?")), ignores_merges=True),
    Splitting(
        ("chameleon",),
        (
            *("<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", r"([\t\n]|    |  )"),
            *(r"\p{N}", r"[\p{P}!-/:-@\[-`{-~]", GPT2),
        ),
        adds_bos=True,
    ),
    Splitting(
        ("default",),
        (PUNCTUATION.replace("`", ""), GPT2.removesuffix(r"|\s+"), r"\p{N}+", "[0-9]{3}"),
    ),
)
