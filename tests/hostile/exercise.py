"""Do with a hostile input what users do: load, plan, tokenize, run, save, inspect and verify it."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import fewbit
from fewbit.reports import contents
from tests.golden.loading import MODELS

ALLOWED = (fewbit.FewbitError, OSError)
TEXT = "Hello, world! 12345 \u00e9\u4e2d\U0001f600\0 <|endoftext|>\n\n  it's " + "a" * 300


def exercise(path: Path, work: Path, rng: Random) -> Iterator[str]:
    """Use the input at `path`; each exception that no caller expects is yielded as a text.

    `work` is an empty folder to write to.
    """
    warnings.simplefilter("ignore")
    for step in _steps(path, work, rng):
        try:
            step()
        except ALLOWED:
            continue
        except BaseException as error:
            trace = traceback.extract_tb(error.__traceback__)[-1]
            message = str(error)[:200].encode("ascii", "backslashreplace").decode()
            yield f"{type(error).__name__} in {Path(trace.filename).name}:{trace.lineno}: {message}"


def _steps(path: Path, work: Path, rng: Random) -> Iterator[Callable[[], Any]]:
    if path.stem == "imatrix":
        yield lambda: _importance(path, rng)
        yield lambda: fewbit.inspect(path)
        return
    found: list[fewbit.Model] = []
    yield lambda: found.append(fewbit.load(path, "cpu", threads=1))
    yield lambda: str(fewbit.inspect(path))
    if path.suffix == ".gguf":
        yield lambda: str(contents.metadata(path))
        if rng.random() < 0.3:
            yield lambda: str(fewbit.verify(path, threads=1))
    if not found:
        return
    model = found[0]
    yield lambda: (repr(model), model.plan.dump(), model.sizes)
    yield lambda: _tokenize(model)
    yield lambda: fewbit.Conversation(model, context=64).ask("Hi", max_tokens=2).text
    yield lambda: model.logits([0, 1, 2, model.config.vocab - 1])
    yield lambda: _write(model)
    if rng.random() < 0.5:
        yield lambda: model.save(work / "saved.gguf")
        yield lambda: _again(work / "saved.gguf")
        recipe = rng.choice(["Q8_0", "Q4_0", "Q4_K_M", "IQ4_XS", "asym4-g32"])
        yield lambda: model.quantize(recipe, requantize=True).save(work / "quantized.gguf")
        yield lambda: _again(work / "quantized.gguf")


def _tokenize(model: fewbit.Model) -> None:
    """Encode texts and decode ids; every id is one that the vocabulary may have."""
    tokenizer = model.tokenizer
    ids = tokenizer.encode(TEXT) + tokenizer.encode(TEXT, special=False, parse_special=True)
    assert all(isinstance(id_, int) and 0 <= id_ < 1 << 32 for id_ in ids)
    tokenizer.decode(ids)
    tokenizer.decode(range(50))
    str(tokenizer)
    for id_ in (tokenizer.bos, tokenizer.eos, *tokenizer.stop_ids):
        assert id_ is None or 0 <= id_ < 1 << 32, f"special id {id_}"


def _write(model: fewbit.Model) -> None:
    """Write some tokens after ids and after a text."""
    str(model.generate([0, 1], max_tokens=3, temperature=0))
    str(model.generate("Hi", max_tokens=2, seed=1))
    str(model.chat("Hi", max_tokens=2, seed=1))


def _again(path: Path) -> None:
    """Read what was written, if it was: each file that is written must load."""
    if path.exists():
        fewbit.load(path, "cpu", threads=1).logits([0])


def _importance(path: Path, rng: Random) -> None:
    """Read an importance matrix and quantize with it."""
    found = fewbit.read_imatrix(path)
    recipe = rng.choice(["Q4_K_M", "IQ2_XS", "Q4_0"])
    model = fewbit.load(MODELS / "llama", "cpu", threads=1).quantize(recipe, imatrix=found)
    for name in list(model.formats)[:4]:
        model.data(name)
