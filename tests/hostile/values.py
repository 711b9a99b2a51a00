"""Odd numbers and texts, and JSON documents in which values, keys and bytes are exchanged."""

from __future__ import annotations

import json
from random import Random
from typing import Any

INTEGERS = [
    *(0, 1, -1, 2, 3, 7, 255, 1000, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53 + 1),
    *(2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**31), -(2**63), 10**30),
]
FLOATS = [
    *(0.0, -0.0, -1.0, 0.5, 1e-45, 1e-320, 3.4e38, -3.4e38, 1e300, -1e300, 128.0, 1e18),
    *(float("inf"), float("-inf"), float("nan")),
]
TEMPLATES = [
    *("{{ 1/0 }}", "{{ 10**10**8 }}", "{{ 'a' * 10**10 }}", "{% if %}", "{{", "{{ '\\ud800' }}"),
    *("{% for m in messages %}{{ m['content'] }}{% endfor %}", "{{ nope.nope }}"),
    *("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ ''.__class__.__mro__ }}"),
    *("{{ '{:2000000000}'.format(1) }}", "{{ '%2000000000d' % 1 }}", "{{ 'x'.encode('nope') }}"),
    *("{{ messages|tojson(indent=10**9) }}", "{{ '%c' % 99999999999 }}"),
    *("{{ raise_exception('no') }}", "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}"),
]
PATTERNS = [
    *("(a+)+$", "(?:(?:a*)*)*b", "(?:x+x+)+y", "a{1000}{1000}", "(?<=a+)b", "[", "(?R)", "("),
    *("", "$", "(?:)", "\\G", "\\K", "(?i:É)", "(.*)(.*)(.*)(.*)(.*)[^a]", "\\p{Nope}"),
    *("\\s+(?!\\S)|\\s+", "."),
]
TEXTS = [
    *("", " ", "\0", "a\0b", "\ud800", "\uffff", "é" * 50, "x" * 100_000, "../../etc/passwd"),
    *("nan", "1e400", "-1", "{}", "[]", "null", "%s%n", "<|endoftext|>", "▁", "\r\n", "default"),
    *("linear", "yarn", "llama3", "longrope", "none", "gelu", "sliding_attention", "blk.²."),
    *("full_attention", "model-00001-of-99999.safetensors", "9" * 5000, "$A", "<s>:1", "a b c"),
    *TEMPLATES,
    *PATTERNS,
]


def deep(levels: int) -> Any:
    """Lists in lists."""
    found: Any = []
    for _ in range(levels):
        found = [found]
    return found


def odd_value(rng: Random) -> Any:
    """Any JSON value."""
    match rng.randrange(10):
        case 0 | 1 | 2:
            return rng.choice(INTEGERS)
        case 3 | 4:
            return rng.choice(FLOATS)
        case 5 | 6:
            return rng.choice(TEXTS)
        case 7:
            return rng.choice([None, True, False])
        case 8:
            return rng.choice([[], {}, [None], [[]], {"": None}, {"a": {"b": [1]}}, deep(200)])
    return [odd_scalar(rng) for _ in range(rng.choice([1, 2, 3, 32, 1000]))]


def odd_scalar(rng: Random) -> Any:
    """A JSON value without others inside."""
    return rng.choice([rng.choice(INTEGERS), rng.choice(FLOATS), rng.choice(TEXTS), None, True])


def _place(value: Any, rng: Random) -> tuple[Any, Any] | None:
    """A list or an object of the document, and one of its indices or keys."""
    found, deepest = None, rng.choice([1, 1, 2, 3, 4, 8])
    for _ in range(deepest):
        if isinstance(value, dict) and value:
            key: Any = rng.choice(list(value))
        elif isinstance(value, list) and value:
            key = rng.randrange(len(value))
        else:
            break
        found, value = (value, key), value[key]
    return found


def step(rng: Random, depth: int = 0) -> Any:
    """A step of a tokenizer.json: one that exists, with odd numbers and texts."""
    if depth < 3 and rng.random() < 0.3:
        kind = rng.choice(["normalizers", "pretokenizers", "processors", "decoders"])
        inner = [step(rng, depth + 1)] * rng.choice([0, 1, 2, 40, 300])
        return {"type": "Sequence", kind: inner}
    text, number = rng.choice([*TEXTS, "a", "aa"]), rng.choice(INTEGERS)
    pattern = rng.choice([{"String": rng.choice(["a", "", " "])}, {"Regex": rng.choice(PATTERNS)}])
    behavior = rng.choice(["Isolated", "Removed", "MergedWithNext", "Contiguous"])
    piece = {"Sequence": {"id": "A", "type_id": 0}}
    return rng.choice(
        [
            {"type": "Replace", "pattern": pattern, "content": text},
            {"type": "Prepend", "prepend": text},
            {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": False},
            {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
            {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
            {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True},
            {"type": "FixedLength", "length": number},
            {"type": "Strip", "content": " ", "start": number, "stop": number},
            {"type": "Digits", "individual_digits": True},
            {"type": "WordPiece", "prefix": text, "cleanup": True},
            {"type": "CTC", "pad_token": text, "word_delimiter_token": text, "cleanup": True},
            {"type": "TemplateProcessing", "single": [piece] * rng.choice([0, 2, 5000]),
             "pair": [piece], "special_tokens": {}},
            {"type": rng.choice(["NFC", "NFKD", "BertPreTokenizer", "Fuse", "ByteFallback", text])},
        ]
    )  # fmt: skip


def _is_tokenizer(document: Any) -> bool:
    """Whether the places that `change_tokenizer` changes are still there."""
    known = document if isinstance(document, dict) else {}
    tokens, model = known.get("added_tokens"), known.get("model")
    return isinstance(model, dict) and isinstance(tokens, list) and all(tokens)


def change_tokenizer(document: Any, rng: Random) -> Any:
    """A tokenizer.json with another step, or other numbers in its model or its tokens."""
    kind = rng.randrange(8)
    if kind < 5:
        names = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
        document[rng.choice(names)] = step(rng)
    elif kind == 5:
        for token in document["added_tokens"][: rng.choice([1, 3])]:
            if isinstance(token, dict):
                token[rng.choice(list(token))] = odd_scalar(rng)
    elif kind == 6:
        keys = ("unk_token", "continuing_subword_prefix", "end_of_word_suffix", "dropout", "type")
        document["model"][rng.choice(keys)] = odd_scalar(rng)
    else:
        document["padding"] = {
            "strategy": {"Fixed": rng.choice(INTEGERS)}, "direction": "Right", "pad_id": 0,
            "pad_to_multiple_of": rng.choice([None, 0]), "pad_type_id": 0, "pad_token": "x",
        }  # fmt: skip
    return document


def change_document(document: Any, rng: Random) -> Any:
    """The document with one place changed."""
    place = _place(document, rng)
    if place is None or rng.random() < 0.02:
        return odd_value(rng)
    parent, key = place
    kind = rng.randrange(12)
    if kind < 7:
        parent[key] = odd_value(rng)
    elif kind == 7:
        del parent[key]
    elif kind == 8 and isinstance(parent, dict):
        parent[rng.choice(TEXTS)] = parent.pop(key)
    elif kind == 9 and (other := _place(document, rng)) is not None:
        value = parent[key]
        parent[key] = json.loads(json.dumps(other[0][other[1]]))
        other[0][other[1]] = json.loads(json.dumps(value))
    elif kind == 10 and isinstance(parent, list):
        parent.extend(parent[key : key + 1] * rng.choice([1, 2, 100]))
    elif isinstance(parent[key], str):
        parent[key] = change_text(parent[key], rng)
    elif isinstance(parent[key], int | float):
        parent[key] = parent[key] * rng.choice([2, 0.5, -1]) + rng.choice([0, 1, -1])
    return document


def change_text(text: str, rng: Random) -> str:
    """The text with some characters dropped, doubled or put in."""
    at = rng.randrange(len(text) + 1)
    end = min(at + rng.choice([1, 1, 4, 100]), len(text))
    put = rng.choice([text[at:end] * 2, "", *TEXTS])
    return text[:at] + put + text[end:]


def change_bytes(data: bytes, rng: Random) -> bytes:
    """The bytes with bits flipped, a piece dropped, doubled, overwritten, or the end cut off."""
    found, at = bytearray(data), rng.randrange(len(data) + 1)
    end = min(at + rng.choice([1, 1, 2, 8, 100, len(data)]), len(data))
    match rng.randrange(7):
        case 0 | 1:
            for _ in range(rng.choice([1, 1, 4, 32])):
                if found:
                    found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
        case 2:
            del found[at:]
        case 3:
            del found[at:end]
        case 4:
            found[at:at] = found[at:end]
        case 5:
            found += rng.randbytes(rng.choice([1, 32, 4096]))
        case 6:
            found[at:end] = rng.choice([b"\0", b"\xff"]) * (end - at)
    return bytes(found)


def to_bytes(document: Any, rng: Random) -> bytes:
    """The document as a file: now and then with a key twice, in another encoding, or damaged."""
    text = json.dumps(document)
    match rng.randrange(20):
        case 0 if text.startswith("{") and len(text) > 2:
            return (text[:-1] + "," + text[1:]).encode()
        case 1:
            return text.encode(rng.choice(["utf-16", "utf-8-sig", "utf-32"]))
        case 2:
            return change_bytes(text.encode(), rng)
        case 3:
            return text.replace("}", ',"deep":' + "[" * 100_000 + "]" * 100_000 + "}", 1).encode()
    return text.encode()


def change_json(data: bytes, rng: Random) -> bytes:
    """A JSON file with some places changed."""
    document = json.loads(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        tokenizer = _is_tokenizer(document)
        change = change_tokenizer if tokenizer and rng.random() < 0.6 else change_document
        document = change(document, rng)
    return to_bytes(document, rng)
