"""Read SentencePiece's `tokenizer.model`, a protocol buffer (``sentencepiece_model.proto``)."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fewbit.errors import FileFormatError, UnsupportedError
from fewbit.tokenizer.pieces import NORMAL, Pieces

_UNIGRAM, _BPE = 1, 2
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
"""Fields of `ModelProto`."""
_PIECE, _SCORE, _TYPE = 1, 2, 3
"""Fields of `SentencePiece`."""
_MODEL_TYPE, _BYTE_FALLBACK, _UNK, _BOS, _EOS = 3, 35, 40, 41, 42
"""Fields of `TrainerSpec`."""
_CHARSMAP, _DUMMY_PREFIX, _EXTRA_SPACES = 2, 3, 4
"""Fields of `NormalizerSpec`."""
_TIKTOKEN = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n")
"""A line of tiktoken's files: a token in base64, and its rank."""
_Fields = dict[int, list[int | bytes]]


@dataclass(frozen=True)
class SentencePieceModel:
    """The vocabulary of a tokenizer.model; the ids are None for tokens that it does not have."""

    pieces: Pieces
    is_unigram: bool
    bos: int | None
    eos: int | None


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Read a tokenizer.model.

    Raises:
        FileFormatError: the file is damaged, or has no pieces.
        UnsupportedError: its model is of words or characters, not BPE or unigram.

    """
    data = path.read_bytes()
    if _TIKTOKEN.match(data):
        raise UnsupportedError(
            f"`{path}` is a vocabulary of tiktoken",
            hint="take a folder with tokenizer.json",
            path=str(path),
        )
    try:
        model = _fields(data)
        trainer, normalizer = (_message(model, field) for field in (_TRAINER, _NORMALIZER))
        found = [_piece(data) for data in model.get(_PIECES, []) if isinstance(data, bytes)]
        kind, charsmap = (
            _integer(trainer, _MODEL_TYPE, _UNIGRAM),
            normalizer.get(_CHARSMAP, [b""])[-1],
        )
        if not found or not isinstance(charsmap, bytes):
            raise ValueError("it has no pieces")
    except (ValueError, struct.error) as error:
        raise FileFormatError(
            f"`{path}` is not a SentencePiece model: {error}",
            hint="download it again; a file of Git LFS is a pointer of a few lines",
            path=str(path),
        ) from None
    if kind not in (_UNIGRAM, _BPE):
        raise UnsupportedError(
            f"`{path}`: SentencePiece's model type {kind} (words or characters) is not supported",
            hint="known: BPE, unigram",
        )
    unknown, bos, eos = (
        id_ if 0 <= id_ < len(found) else None
        for id_ in (
            _integer(trainer, key, default) for key, default in ((_UNK, 0), (_BOS, 1), (_EOS, 2))
        )
    )
    tokens, scores, types = (list(column) for column in zip(*found, strict=True))
    pieces = Pieces(
        tokens, scores, types, unknown,
        byte_fallback=bool(_integer(trainer, _BYTE_FALLBACK, 0)),
        adds_space=bool(_integer(normalizer, _DUMMY_PREFIX, 1)),
        trims_spaces=bool(_integer(normalizer, _EXTRA_SPACES, 1)),
        charsmap=charsmap,
    )  # fmt: skip
    return SentencePieceModel(pieces, kind == _UNIGRAM, bos, eos)


def _piece(data: bytes) -> tuple[str, float, int]:
    """Text, score and type of a piece."""
    fields = _fields(data)
    text, score = fields.get(_PIECE, [b""])[-1], fields.get(_SCORE, [0])[-1]
    if not isinstance(text, bytes) or isinstance(score, bytes):
        raise ValueError("a piece has fields of another kind")
    return (
        text.decode("utf-8"),
        struct.unpack("<f", struct.pack("<I", score))[0],
        _integer(fields, _TYPE, NORMAL),
    )


def _message(fields: _Fields, number: int) -> _Fields:
    """An inner message, whose parts are joined."""
    parts = [data for data in fields.get(number, []) if isinstance(data, bytes)]
    return _fields(b"".join(parts))


def _integer(fields: _Fields, number: int, default: int) -> int:
    """An integer, negative ones too; the last one counts."""
    value = fields.get(number, [default])[-1]
    if isinstance(value, bytes):
        raise ValueError(f"field {number} is no integer")
    return value - (1 << 64) if value >= 1 << 63 else value


def _fields(data: bytes) -> _Fields:
    """The fields of a message by their numbers: integers, or bytes of texts and messages.

    >>> _fields(b"\\x08\\x96\\x01\\x12\\x02ab")
    {1: [150], 2: [b'ab']}
    """
    found: _Fields = {}
    for number, value in _walk(data):
        found.setdefault(number, []).append(value)
    return found


def _walk(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind == 2:
            size, at = _varint(data, at)
        else:
            size = {1: 8, 5: 4}.get(kind, -1)
        if size < 0 or at + size > len(data):
            raise ValueError("it ends early" if size >= 0 else f"unknown wire type {kind}")
        part, at = data[at : at + size], at + size
        yield key >> 3, part if kind == 2 else int.from_bytes(part, "little")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """An integer of 7 bits a byte, and the place after it."""
    value = 0
    for i, byte in enumerate(data[at : at + 10]):
        value |= (byte & 127) << (7 * i)
        if byte < 128:
            return value, at + i + 1
    raise ValueError("it ends early")
