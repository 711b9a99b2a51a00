"""Build a tokenizer from the files that folders have beside or before tokenizer.json.

They are SentencePiece's `tokenizer.model`, or `vocab.json` with `merges.txt` for byte-level BPE,
each with the tokens that `tokenizer_config.json`, `added_tokens.json` or `special_tokens_map.json`
add.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers

from fewbit.errors import FileFormatError, UnsupportedError
from fewbit.files.json_file import read_json
from fewbit.tokenizer.pieces import wrap
from fewbit.tokenizer.sentencepiece import read_sentencepiece
from fewbit.tokenizer.splittings import SPLITTINGS, Splitting
from fewbit.tokenizer.tokenizer import backend_of_json

_CLASSES = {
    "GPT2Tokenizer": "gpt-2", "CodeGenTokenizer": "gpt-2",
    "Qwen2Tokenizer": "qwen2", "Qwen2_5Tokenizer": "qwen2", "Qwen3Tokenizer": "qwen2",
    "Qwen3_5Tokenizer": "qwen35",
}  # fmt: skip
"""How transformers' classes with `vocab.json` split text, in GGUF's words."""
_ANY_CLASS = ("PreTrainedTokenizer", "TokenizersBackend")
_ROLES = ("bos", "eos", "unk", "pad", "sep", "cls", "mask")
_ALPHABET = pre_tokenizers.ByteLevel.alphabet()


def backend_of_files(
    path: Path, settings: Mapping[str, Any], kind: str
) -> tuple[tokenizers.Tokenizer, dict[str, str]]:
    """Build the tokenizer of a folder without tokenizer.json; `bos_token` and `eos_token` of it.

    `settings` is its tokenizer_config.json, `kind` the `model_type` of its config.json. The files
    name begin and end tokens where the settings may not.

    Raises:
        FileFormatError: the folder has no tokenizer, or a file of it is damaged.
        UnsupportedError: the tokenizer is of a class that fewbit does not know.

    """
    if (path / "tokenizer.model").exists():
        return _of_pieces(path, settings)
    if (path / "vocab.json").exists() and (path / "merges.txt").exists():
        return _byte_level(path, settings, kind), {}
    raise FileFormatError(
        f"`{path}` has no tokenizer.json",
        hint="download the folder again, with tokenizer.json, with tokenizer.model, or with "
        "vocab.json and merges.txt",
        path=str(path / "tokenizer.json"),
    )


def _of_pieces(
    path: Path, settings: Mapping[str, Any]
) -> tuple[tokenizers.Tokenizer, dict[str, str]]:
    found = read_sentencepiece(path / "tokenizer.model")
    backend = found.pieces.unigram() if found.is_unigram else found.pieces.bpe()
    backend = _with_added(backend, path, settings)
    ids = {"bos": found.bos, "eos": found.eos}
    named = {
        f"{role}_token": found.pieces.tokens[id_] for role, id_ in ids.items() if id_ is not None
    }
    t5 = str(settings.get("tokenizer_class")).startswith("T5")
    _wrap(backend, {**named, **settings}, begins=not t5, ends=t5)
    return backend, named


def _wrap(
    backend: tokenizers.Tokenizer, settings: Mapping[str, Any], begins: bool, ends: bool
) -> None:
    """Put the begin and end token around a text; the settings go before the defaults."""
    found: list[int | None] = []
    for role, default in (("bos", begins), ("eos", ends)):
        adds = settings.get(f"add_{role}_token")
        token = _content(settings.get(f"{role}_token"))
        adds = default if adds is None else bool(adds)
        found.append(backend.token_to_id(token) if adds and token is not None else None)
    wrap(backend, *found)


def _byte_level(path: Path, settings: Mapping[str, Any], kind: str) -> tokenizers.Tokenizer:
    splitting = _splitting(path, settings, kind)
    vocab, merges = _vocab(path / "vocab.json"), _merges(path / "merges.txt")
    if 2 * len(set(_ALPHABET) - vocab.keys()) > len(_ALPHABET):
        raise UnsupportedError(
            f"`{path / 'vocab.json'}` has no tokens of bytes: it is not byte-level BPE",
            hint="take a folder with tokenizer.json",
        )
    if unknown := next((m for m in merges if not {*m, "".join(m)} <= vocab.keys()), None):
        raise FileFormatError(
            f"`{path / 'merges.txt'}` merges `{unknown[0]}` and `{unknown[1]}`, "
            "which vocab.json does not have",
            hint="download both files again",
            path=str(path / "merges.txt"),
        )
    model = models.BPE(vocab=vocab, merges=merges, ignore_merges=splitting.ignores_merges)
    backend = tokenizers.Tokenizer(model)
    if splitting.normal_form:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(p), "isolated") for p in splitting.patterns),
            pre_tokenizers.ByteLevel(
                add_prefix_space=bool(settings.get("add_prefix_space")), use_regex=False
            ),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend = _with_added(backend, path, settings)
    _wrap(backend, settings, begins=False, ends=False)
    return backend


def _splitting(path: Path, settings: Mapping[str, Any], kind: str) -> Splitting:
    own = settings.get("tokenizer_class")
    if isinstance(own, str) and (plain := own.removesuffix("Fast")) not in _ANY_CLASS:
        name = _CLASSES.get(plain)
    else:
        name = "qwen35" if kind.startswith("qwen3_5") else "qwen2"
        name = name if kind.startswith("qwen") else "gpt-2"
    for splitting in SPLITTINGS:
        if name in splitting.names:
            return splitting
    raise UnsupportedError(
        f"`{path}`: `{own}` with vocab.json and merges.txt is not supported",
        hint=f"known: {', '.join(sorted(_CLASSES))}; or take a folder with tokenizer.json",
    )


def _vocab(path: Path) -> dict[str, int]:
    found = read_json(path)
    ids = {id_ for id_ in found.values() if type(id_) is int and 0 <= id_ < 1 << 31}
    if len(ids) != len(found):
        raise FileFormatError(
            f"`{path}` must give each token an id of its own",
            hint="download it again",
            path=str(path),
        )
    return found


def _merges(path: Path) -> list[tuple[str, str]]:
    lines = path.read_text("utf-8", errors="replace").split("\n")
    if lines[0].startswith("#version"):
        lines = lines[1:]
    merges: list[tuple[str, str]] = []
    for line in lines:
        if not line.strip("\r"):
            continue
        left, _, right = line.rstrip("\r").partition(" ")
        if not left or not right or " " in right:
            raise FileFormatError(
                f"`{path}`: `{line[:80]}` is not two tokens with a space between",
                hint="download it again",
                path=str(path),
            )
        merges.append((left, right))
    return merges


def _with_added(
    backend: tokenizers.Tokenizer, path: Path, settings: Mapping[str, Any]
) -> tokenizers.Tokenizer:
    """The tokenizer with the tokens that the folder's JSON files add, under their ids."""
    facts = json.loads(backend.to_str())
    vocab, added = facts["model"]["vocab"], {t["content"]: t for t in facts["added_tokens"]}
    known = {token: i for i, (token, _) in enumerate(vocab)} if isinstance(vocab, list) else vocab
    for content, id_, flags in _declared(path, settings):
        id_ = known.get(content, id_)
        if id_ is not None:
            added[content] = {**_PLAIN, **flags, "content": content, "id": id_}
    taken = {id_: token for token, id_ in known.items()}
    for content, token in added.items():
        if taken.setdefault(token["id"], content) != content:
            raise FileFormatError(
                f"`{path}`: the added token `{content}` has the id {token['id']} of "
                f"`{taken[token['id']]}`",
                hint="take the tokenizer's files from one version of the model",
                path=str(path),
            )
        if isinstance(vocab, dict):  # the library numbers tokens that the vocabulary lacks itself
            vocab[content] = token["id"]
    facts["added_tokens"] = sorted(added.values(), key=lambda token: token["id"])
    return backend_of_json(json.dumps(facts), f"`{path}`")


_PLAIN = {
    "special": True, "lstrip": False, "rstrip": False, "single_word": False, "normalized": False,
}  # fmt: skip


def _declared(
    path: Path, settings: Mapping[str, Any]
) -> Iterator[tuple[str, int | None, dict[str, bool]]]:
    """Added tokens of a folder: text, id if it is given, flags."""
    listed = path / "added_tokens.json"
    for content, id_ in (read_json(listed) if listed.exists() else {}).items():
        if type(id_) is int and 0 <= id_ < 1 << 31:
            yield content, id_, {"special": False}
    roles = path / "special_tokens_map.json"
    for source in (read_json(roles) if roles.exists() else {}, settings):
        roles_of = [source.get(f"{role}_token") for role in _ROLES]
        further = source.get("additional_special_tokens")
        for token in [*roles_of, *(further if isinstance(further, list) else [])]:
            if (named := _content(token)) is not None:
                yield named, None, {}
    decoder = settings.get("added_tokens_decoder")
    for text, token in (decoder if isinstance(decoder, dict) else {}).items():
        if (named := _content(token)) and isinstance(token, dict) and _is_id(text):
            yield named, int(text), {key: bool(token.get(key, _PLAIN[key])) for key in _PLAIN}


def _is_id(text: str) -> bool:
    return text.isdecimal() and len(text) < 10


def _content(token: Any) -> str | None:
    """The text of a token that is a string, or an object with `content`."""
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) and found else None
