"""What goes wrong on a card, in fewbit's words: refused, full, lost, or not ending."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from wgpu.classes import GPUError, GPUOutOfMemoryError

from fewbit.errors import DeviceError, InputError

PATIENCE = 600.0
"""Seconds that a step may take; FEWBIT_GPU_TIMEOUT says otherwise."""

LOST = "load the model again; the system's log may say why its driver let go of the card"
LESS = "use fewer bits (`--format`), a shorter context, or `--device cpu`"


@contextlib.contextmanager
def guarded(message: str, hint: str | None = None) -> Iterator[None]:
    """What wgpu raises becomes a `DeviceError` that begins with `message`.

    Its `lost` says whether the card is gone with all that was on it, `full` that it is full.
    """
    try:
        yield
    except (GPUError, RuntimeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[-1] if lines else type(error).__name__
        full = isinstance(error, GPUOutOfMemoryError) or "out of memory" in reason.lower()
        lost = is_lost(error)
        if full:
            reason, hint = "it is out of memory", LESS
        if lost:
            reason, hint = "the card was lost", LOST
        raise DeviceError(f"{message}: {reason}", hint=hint, lost=lost, full=full) from error


def is_lost(error: Exception) -> bool:
    """Whether wgpu's error says that the device is gone."""
    return "device is lost" in str(error).lower() or "device lost" in str(error).lower()


def patience() -> float:
    """Seconds to wait for a card.

    Raises:
        InputError: FEWBIT_GPU_TIMEOUT is no positive number.

    """
    text = os.environ.get("FEWBIT_GPU_TIMEOUT", "")
    try:
        seconds = float(text) if text else PATIENCE
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise InputError(f"FEWBIT_GPU_TIMEOUT must be a number of seconds, found `{text}`")
    return seconds


def wait(promise: Any, message: str) -> None:
    """Wait for a promise of wgpu.

    Raises:
        DeviceError: it was broken, or not kept in time.

    """
    seconds = patience()
    # `sync_wait` has no limit; the event that it waits for is wgpu-py 0.32's own (pinned)
    event = getattr(promise, "_thread_event", None)
    if event is not None and not event.wait(seconds):
        raise DeviceError(
            f"{message}: no answer in {seconds:g} seconds",
            hint="the card hangs or is very slow; FEWBIT_GPU_TIMEOUT=SECONDS waits longer",
            seconds=seconds,
        )
    with guarded(message):
        promise.sync_wait()
