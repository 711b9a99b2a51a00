"""Write SentencePiece models of a few hundred pieces, and the ids that SentencePiece gives texts.

``python tests/golden/make_tokenizers.py`` needs the package `sentencepiece` (made with 0.2.3).
"""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "tokenizers"
WORDS = ("cat", "dog", "house", "hill", "year", "word", "token", "language", "number", "space")
TEXT = "\n".join(
    [
        *("The old house stood on a hill, and nobody had lived there for years.",) * 5,
        *("naïve café 12345 numbers  and spaces 你好 世界 こんにちは Привет мир",) * 5,
        *(f"{w} and the {w}s return to {w}ing models {i}" for i, w in enumerate(WORDS)),
    ]
)
MODELS: dict[str, dict[str, Any]] = {
    "bpe": {
        "model_type": "bpe", "byte_fallback": True, "vocab_size": 400, "split_digits": True,
        "normalization_rule_name": "identity", "remove_extra_whitespaces": False,
        "control_symbols": ["<|im_end|>"],
    },
    "bpe-no-bytes": {
        "model_type": "bpe", "vocab_size": 160, "normalization_rule_name": "identity",
        "add_dummy_prefix": False,
    },
    "unigram": {"model_type": "unigram", "vocab_size": 160, "rules": "ﬁ\tfi\nＡ\tA\n　\t \n"},
    "unigram-bytes": {
        "model_type": "unigram", "byte_fallback": True, "vocab_size": 400,
        "normalization_rule_name": "identity", "remove_extra_whitespaces": False,
    },
}  # fmt: skip
TEXTS = (
    "Hello world", "  two  spaces ", "the old house stood", "naïve café 12345", "你好 世界 zzz 🚀",
    "line\nbreak\ttab", "", "x", "Ａ ﬁ　wide", "unknown ☃ char", "</s> <0x41> <unk> <|im_end|>",
    "e\u0301 a\u0308", "\u00a0y\r\nz ▁▁ x",
)  # fmt: skip


def trained(rules: str | None = None, **options: Any) -> bytes:
    """A model of `TEXT`; `rules` are lines of a text and what replaces it."""
    import sentencepiece

    with tempfile.TemporaryDirectory() as folder:
        if rules is not None:
            lines = [
                "\t".join(" ".join(f"{ord(c):X}" for c in text) for text in line.split("\t"))
                for line in rules.splitlines()
            ]
            file = Path(folder) / "rules.tsv"
            file.write_text("\n".join(lines) + "\n")
            options["normalization_rule_tsv"] = str(file)
        out = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXT.split("\n")), model_writer=out, hard_vocab_limit=False,
            character_coverage=1.0, minloglevel=2, **options,
        )  # fmt: skip
        return out.getvalue()


def main() -> None:
    import sentencepiece

    FOLDER.mkdir(exist_ok=True)
    found: dict[str, list[Any]] = {}
    for name, options in MODELS.items():
        data = trained(**options)
        (FOLDER / f"{name}.model").write_bytes(data)
        processor = sentencepiece.SentencePieceProcessor(model_proto=data)
        found[name] = [[text, processor.encode(text)] for text in TEXTS]
    (FOLDER / "ids.json").write_text(json.dumps(found, indent=0, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    main()
