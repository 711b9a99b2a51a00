"""KV caches: copies by length, freed sequences, snapshots of states, and files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fewbit
from fewbit import _core
from fewbit.errors import FileFormatError, InputError
from fewbit.generation.prompt_cache import MAGIC
from fewbit.generation.text import Session
from fewbit.run.sampling import GREEDY
from tests.compare import same_bits
from tests.golden.loading import asset

ATTENTION, HYBRID = "qwen3", "qwen3_next"
IDS = [(7 * i + i * i) % 50 for i in range(100)]


def model_of(name: str, kv: str = "f32") -> fewbit.Model:
    return fewbit.load(asset(name).parent, "cpu", kv=kv)  # type: ignore[arg-type]


def read(model: fewbit.Model, cache: Any, ids: list[int], sequence: int) -> NDArray[np.float32]:
    return model.forward(cache, ids, [sequence] * len(ids), acts="f32")


@pytest.mark.parametrize("kv", ["f32", "f16", "int8"])
@pytest.mark.parametrize("name", [ATTENTION, HYBRID])
@pytest.mark.parametrize("length", [1, 16, 45])
def test_a_copy_goes_on_as_its_source(name: str, kv: str, length: int) -> None:
    model = model_of(name, kv)
    cache = model.cache(3, 100)
    read(model, cache, IDS[60:90], 2)
    read(model, cache, IDS[:length], 0)
    cache.copy(0, 2)
    expected = read(model, cache, IDS[length:], 0)
    assert cache.length(2) == length
    same_bits(read(model, cache, IDS[length:], 2), expected)
    cache.copy(1, 2)
    assert cache.length(2) == 0


@pytest.mark.parametrize("name", [ATTENTION, HYBRID])
def test_a_freed_sequence_takes_no_memory_and_starts_anew(name: str) -> None:
    model = model_of(name)
    cache = model.cache(2, 4000)
    assert cache.bytes() == 0
    expected = read(model, cache, IDS, 0)
    one = cache.bytes()
    assert one > 0
    other = read(model, cache, IDS[:50], 1)
    both = cache.bytes()
    cache.truncate(0, 0)
    assert cache.bytes() == both, "memory that is not given back counts"
    cache.free(0)
    assert (cache.length(0), cache.bytes()) == (0, both - one)
    same_bits(read(model, cache, IDS, 0), expected)
    cache.free(0)
    cache.free(0)
    same_bits(read(model, cache, IDS[50:], 1), expected[50:])
    same_bits(other, expected[:50])
    with pytest.raises(InputError, match="there is no sequence 2"):
        cache.free(2)


def resident() -> int:
    """Bytes of this process in memory (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux says what is resident")
def test_the_system_gets_memory_back() -> None:
    model = fewbit.load("demo", "cpu")
    cache = model.cache(16, 512)
    tokens = np.arange(300)
    for sequence in range(16):
        model.forward(cache, tokens, np.full(300, sequence), outputs=[299])
    full, taken = resident(), cache.bytes()
    for sequence in range(16):
        cache.free(sequence)
    assert full - resident() > 0.8 * taken


@pytest.mark.parametrize("name", [ATTENTION, HYBRID])
def test_a_snapshot_brings_a_sequence_back(name: str) -> None:
    model = model_of(name)
    cache = model.cache(2, 100)
    read(model, cache, IDS[:20], 0)
    kept = cache.snapshot(0)
    assert (kept.length, kept.nbytes > 0) == (20, name == HYBRID)
    expected = read(model, cache, IDS[20:], 0)
    cache.copy(0, 1)
    for sequence in (0, 1):
        cache.restore(kept, sequence)
        assert cache.length(sequence) == 20
        same_bits(read(model, cache, IDS[20:], sequence), expected)
    cache.free(1)
    with pytest.raises(InputError, match="sequence 1 has 0 tokens, the snapshot has 20"):
        cache.restore(kept, 1)


def test_a_snapshot_of_another_model_is_refused() -> None:
    models = [model_of(ATTENTION), model_of(HYBRID)]
    caches = [model.cache(1, 40) for model in models]
    for model, cache in zip(models, caches, strict=True):
        read(model, cache, IDS[:20], 0)
    with pytest.raises(InputError, match="the snapshot was made for another plan"):
        caches[0].restore(caches[1].snapshot(0), 0)


@pytest.mark.parametrize("kv", ["f32", "f16", "int8"])
@pytest.mark.parametrize("name", [ATTENTION, HYBRID])
def test_a_saved_session_goes_on_with_the_same_bits(name: str, kv: str, tmp_path: Path) -> None:
    model, path = model_of(name, kv), tmp_path / "cache"
    session = Session(model, 100)
    session.feed(IDS[:45])
    session.save(path)
    later = Session(model_of(name, kv), 90)  # another capacity
    assert later.load(path) == 45
    for token in IDS[45:60]:
        same_bits(later.step(token), session.step(token))
    assert later.ids == IDS[:60]


def test_generation_reads_a_prompt_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, path = model_of(HYBRID), tmp_path / "cache"
    read_tokens = []
    forward = type(model).forward

    def counted(self: Any, cache: Any, tokens: Any, *rest: Any, **more: Any) -> Any:
        read_tokens.append(len(tokens))
        return forward(self, cache, tokens, *rest, **more)

    monkeypatch.setattr(type(model), "forward", counted)
    plain = model.generate(IDS[:40], max_tokens=5, sampling=GREEDY)
    list(plain)
    counts = []
    for prompt in (IDS[:40], IDS[:40], IDS[:50]):
        read_tokens.clear()
        made = model.generate(prompt, max_tokens=5, sampling=GREEDY, prompt_cache=path)
        list(made)
        counts.append(read_tokens[0])
        if prompt == IDS[:40]:
            assert made.tokens == plain.tokens
    assert counts == [40, 1, 10]


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    session = Session(model_of(ATTENTION), 100)
    session.feed(IDS[:30])
    session.save(path)
    for other, message in (
        (Session(model_of(HYBRID), 100), "another model or format"),
        (Session(model_of(ATTENTION, "f16"), 100), "another type of KV cache: 'f32', not 'f16'"),
        (Session(model_of(ATTENTION), 100, "f32"), "another type of activations: 'int8', not"),
        (Session(model_of(ATTENTION).quantize("Q8_0", options=None), 100), "another model or form"),
        (Session(model_of(ATTENTION), 29), "has 30 tokens, the context holds 29"),
    ):
        with pytest.raises(InputError, match=message):
            other.load(path)
        assert other.ids == []


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    session = Session(model_of(ATTENTION), 100)
    session.feed(IDS[:30])
    session.save(path)
    data = path.read_bytes()
    start = len(MAGIC) + 8
    size = int.from_bytes(data[len(MAGIC) : start], "little")
    header = json.loads(data[start : start + size])

    def with_header(**changed: Any) -> bytes:
        text = json.dumps(header | changed).encode()
        return MAGIC + len(text).to_bytes(8, "little") + text + data[start + size :]

    cases = [
        b"", data[:10], data[:start], data[: start + 9], data[:-1], data + b"x",
        data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], b"GGUF" + data,
        MAGIC + (2**63).to_bytes(8, "little") + data[start:],
        MAGIC + (2).to_bytes(8, "little") + b"[]" + data[start:],
        with_header(tokens=31), with_header(tokens=-1), with_header(bytes=2**60),
        with_header(tokens="30"), with_header(digest=None),
    ]  # fmt: skip
    fresh = Session(model_of(ATTENTION), 100)
    for case in cases:
        path.write_bytes(case)
        with pytest.raises(FileFormatError):
            fresh.load(path)
    assert fresh.ids == []
    path.write_bytes(with_header(version="0.0.0"))
    with pytest.raises(InputError, match=r"another version of fewbit: .0\.0\.0., not"):
        fresh.load(path)
    path.write_bytes(data)
    assert fresh.load(path) == 30


def test_bytes_of_another_cache_are_refused() -> None:
    model = model_of(ATTENTION)
    cache = model.cache(1, 100)
    assert isinstance(cache, _core.Cache)
    read(model, cache, IDS[:20], 0)
    data = cache.export(0)
    with pytest.raises(InputError, match="a sequence of 40 tokens has"):
        cache.import_(0, 40, data)
    with pytest.raises(InputError, match="a sequence of 101 tokens, the cache holds 100"):
        cache.import_(0, 101, data)
    wrong = data.copy()
    wrong[:8] = 255
    with pytest.raises(InputError, match="the state of token"):
        cache.import_(0, 20, wrong)
    assert cache.length() == 20
