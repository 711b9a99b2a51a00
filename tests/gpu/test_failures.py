"""Errors of a card that refuses, is full, is lost or hangs; and that later work succeeds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from wgpu.classes import GPUOutOfMemoryError

import fewbit
from fewbit.errors import DeviceError, FewbitError, InputError, UnsupportedError
from fewbit.run.gpu import device as devices
from fewbit.run.gpu import guard
from fewbit.run.gpu.cache import Cache
from fewbit.run.gpu.decode import decode
from fewbit.run.gpu.device import Adapter, Device, open_device
from fewbit.run.gpu.executor import Executor
from fewbit.run.sampling import GREEDY
from tests.compare import within_bound
from tests.golden.loading import MODELS, NOISE, Golden, load
from tests.gpu.running import upload
from tests.gpu.test_models import bound_model, forward


@pytest.fixture
def own(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> Device:
    """A device for one test only; models are loaded on it."""
    found = Device(adapter)
    monkeypatch.setitem(devices._OPEN, adapter, found)
    return found


def running(own: Device) -> tuple[Golden, Executor, Cache]:
    g, executor = bound_model(own, "llama")
    cache = executor.cache(1, 64)
    forward(executor, cache, g.ids[:8])
    return g, executor, cache


def still_works(adapter: Adapter) -> None:
    """A model that is loaded now gives the golden logits."""
    ids, expected = (np.load(MODELS / "llama" / f"{name}.npy") for name in ("ids", "logits"))
    model = fewbit.load(MODELS / "llama", f"gpu:{adapter.index}")
    within_bound(model.logits(ids, acts="f32"), expected, NOISE)


LOST = {
    "forward": lambda executor, cache: forward(executor, cache, [1, 2, 3]),
    "predict": lambda executor, cache: executor.predict(
        cache, np.uint32([1]), np.uint32([0]), np.uint32([0]), "f32"
    ),
    "cache": lambda executor, cache: executor.cache(1, 8),
    "copy": lambda executor, cache: executor.device.read(
        executor.shared("no_input"), 0, 4, "reading"
    ),
    "upload": lambda executor, cache: executor.device.upload(np.zeros(9, np.float32)),
    "decode": lambda executor, cache: list(decode(executor, cache, 1, GREEDY, 0, "f32", 4)),
}


@pytest.mark.parametrize("name", LOST)
def test_a_lost_card(adapter: Adapter, own: Device, name: str) -> None:
    """Every call raises; the cache is as before; the next model gets a new device."""
    _, executor, cache = running(own)
    own.destroy()
    with pytest.raises(DeviceError, match="the card was lost\n\nhint: load the model again") as e:
        LOST[name](executor, cache)
    assert e.value.lost  # type: ignore[attr-defined]
    assert cache.length() == 8
    assert own.is_lost
    assert open_device(adapter) is not own
    still_works(adapter)


def test_a_card_that_is_lost_while_text_is_made(adapter: Adapter, own: Device) -> None:
    _, executor, cache = running(own)
    stream = decode(executor, cache, 1, GREEDY, 0, "f32", 40)
    assert len([next(stream) for _ in range(3)]) == 3
    own.destroy()
    with pytest.raises(DeviceError, match="failed in generation: the card was lost"):
        list(stream)
    still_works(adapter)


def fills_up(monkeypatch: pytest.MonkeyPatch, own: Device, room: int) -> None:
    """Limit the memory of the card to `room` more bytes."""
    make, start = own._device.create_buffer, own.allocated

    def create(size: int, **options: Any) -> Any:
        if own.allocated - start + size > room:
            raise GPUOutOfMemoryError("Not enough memory left")
        return make(size=size, **options)

    monkeypatch.setattr(own._device, "create_buffer", create)


def test_a_model_that_does_not_fit_is_refused_before_any_upload(
    adapter: Adapter, own: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fewbit.load(MODELS / "llama", f"gpu:{adapter.index}")
    monkeypatch.setattr(devices, "PROBE_BYTES", 1 << 16)
    monkeypatch.setattr(own, "upload", no_upload)
    with monkeypatch.context() as full:
        fills_up(full, own, 300_000)
        with pytest.raises(DeviceError) as e:
            model.logits([1])
    assert e.value.message == (
        f"{adapter.name} has no room for the weights: 3,544,064 bytes are needed, 262,144 are "
        "available"
    )
    assert e.value.hint == guard.FULL_HINT
    assert (e.value.needed, e.value.available) == (3_544_064, 262_144)  # type: ignore[attr-defined]
    assert own.allocated == 0
    monkeypatch.undo()
    still_works(adapter)


def no_upload(*_: Any) -> None:
    raise AssertionError("something was uploaded")


@pytest.mark.parametrize("quantized", [False, True], ids=["F32", "Q4_0"])
def test_a_card_that_fills_up_while_weights_come(
    adapter: Adapter, own: Device, monkeypatch: pytest.MonkeyPatch, quantized: bool
) -> None:
    """Another program may use memory that was free before; nothing of the model stays allocated."""
    model = fewbit.load(MODELS / "llama", f"gpu:{adapter.index}")
    if quantized:
        model = model.quantize("Q4_0")
    monkeypatch.setattr(own, "reserve", lambda *_: None)
    fills_up(monkeypatch, own, 181_000 if quantized else 1_000_000)
    with pytest.raises(DeviceError, match=r"has no room for .* bytes of `blk.*it is out of memory"):
        model.logits([1])
    assert own.allocated == 0
    monkeypatch.undo()
    still_works(adapter)


def test_logits_that_do_not_fit(own: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    g, executor, cache = running(own)
    before, ids = own.allocated, np.uint32(g.ids[8:])
    with monkeypatch.context() as full:
        fills_up(full, own, 1000)
        with pytest.raises(DeviceError, match=r"bytes of the logits of a text: .* out of memory"):
            executor.predict(cache, ids, 0 * ids, np.arange(16, dtype=np.uint32), "f32")
    assert own.allocated == before
    found = executor.predict(cache, ids, 0 * ids, np.arange(16, dtype=np.uint32), "f32")
    within_bound(found.logits(), g.logits[8:], NOISE)


def test_a_card_that_fills_up_while_matrices_are_joined(
    own: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors that were not joined are unchanged."""
    g = load("llama")
    held = upload(own, g.weights, g.plan)
    before = own.allocated
    with monkeypatch.context() as full:
        fills_up(full, own, 100_000)
        with pytest.raises(DeviceError, match=r"bytes of `blk.0.attn_q.weight\+blk.0.attn_k"):
            Executor(g.plan, held)
    assert own.allocated == before
    executor = Executor(g.plan, held)
    within_bound(forward(executor, executor.cache(1, 32), g.ids), g.logits, NOISE)


def test_working_memory_that_does_not_fit(own: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    g = load("llama")
    held = upload(own, g.weights, g.plan)
    executor = Executor(g.plan, held)  # joins tensors and uploads vectors
    executor.release()
    before = own.allocated
    fills_up(monkeypatch, own, 1_000_000)
    with pytest.raises(DeviceError, match=r"bytes of working memory: .* out of memory"):
        Executor(g.plan, held)
    assert own.allocated == before


def test_a_cache_that_does_not_fit(own: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing stays allocated, and a smaller cache fits."""
    g, executor, _ = running(own)
    before = own.allocated
    fills_up(monkeypatch, own, 200_000)
    with pytest.raises(DeviceError, match=r"bytes of the KV cache: .* it is out of memory"):
        executor.cache(1, 512)
    assert own.allocated == before
    within_bound(forward(executor, executor.cache(1, 32), g.ids), g.logits, NOISE)


class Never:
    """A promise that is never fulfilled."""

    def __init__(self) -> None:
        self._thread_event = threading.Event()


def test_a_card_that_does_not_answer(
    adapter: Adapter, own: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    g, executor, cache = running(own)
    make: Callable[[int], Any] = own.staging

    def silent(size: int) -> Any:
        buffer = make(size)
        buffer.map_async = lambda *_: Never()
        return buffer

    with monkeypatch.context() as hangs:
        hangs.setenv("FEWBIT_GPU_TIMEOUT", "0.05")
        hangs.setattr(own, "staging", silent)
        with pytest.raises(DeviceError) as e:
            forward(executor, cache, g.ids[8:])
        assert e.value.message == (
            f"cannot read logits back from {adapter.name}: no answer in 0.05 seconds"
        )
        assert "FEWBIT_GPU_TIMEOUT=SECONDS waits longer" in (e.value.hint or "")
    assert cache.length() == 8
    within_bound(forward(executor, cache, g.ids[8:]), g.logits[8:], NOISE)


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan"])
def test_the_timeout_is_a_number(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("FEWBIT_GPU_TIMEOUT", text)
    with pytest.raises(InputError, match=f"must be a number of seconds, found `{text}`"):
        guard.timeout_seconds()


def test_formats_are_refused_before_any_upload(
    adapter: Adapter, own: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "upload", no_upload)
    model = fewbit.load(MODELS / "llama", f"gpu:{adapter.index}").quantize("sym4-g5")
    with pytest.raises(UnsupportedError, match="no sym4-g5: groups must be a multiple of 4"):
        model.logits([1])


def test_ops_are_refused_before_any_upload(
    adapter: Adapter, own: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "upload", no_upload)
    model = fewbit.load(MODELS / "llama", f"gpu:{adapter.index}")
    model.plan.ops[3] = replace(model.plan.ops[3], kind="convolve")
    with pytest.raises(UnsupportedError, match="op 3: the GPU executor has no `convolve`"):
        model.logits([1])


@pytest.mark.parametrize("text", ["Not enough memory left", "Device out of memory (2)"])
def test_what_is_said_of_a_full_card(text: str) -> None:
    error = GPUOutOfMemoryError(text) if "left" in text else RuntimeError(text)
    with (
        pytest.raises(FewbitError, match="no room: it is out of memory") as e,
        guard.guarded("no room"),
    ):
        raise error
    assert (e.value.full, e.value.lost) == (True, False)  # type: ignore[attr-defined]
