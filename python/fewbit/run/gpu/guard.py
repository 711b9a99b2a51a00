"""Turns the errors of wgpu into `DeviceError`: the card refuses, is full, is lost, or hangs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from wgpu.classes import GPUError, GPUOutOfMemoryError

from fewbit.errors import DeviceError, InputError

TIMEOUT = 600.0
"""Seconds to wait for a step, unless FEWBIT_GPU_TIMEOUT gives another number."""

LOST_HINT = "load the model again; the system log may say why the driver reset the card"
FULL_HINT = "use fewer bits (`--format`), a shorter context, or `--device cpu`"


@contextlib.contextmanager
def guarded(message: str, hint: str | None = None) -> Iterator[None]:
    """Raise a `DeviceError` that begins with `message` in place of an error of wgpu.

    Its field `lost` is True if the device and its buffers are gone, `full` if memory ran out.
    """
    try:
        yield
    except (GPUError, RuntimeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[-1] if lines else type(error).__name__
        full = isinstance(error, GPUOutOfMemoryError) or "out of memory" in reason.lower()
        lost = is_lost(error)
        if full:
            reason, hint = "it is out of memory", FULL_HINT
        if lost:
            reason, hint = "the card was lost", LOST_HINT
        raise DeviceError(f"{message}: {reason}", hint=hint, lost=lost, full=full) from error


def is_lost(error: Exception) -> bool:
    """True if an error of wgpu says that the device is lost."""
    return "device is lost" in str(error).lower() or "device lost" in str(error).lower()


def timeout_seconds() -> float:
    """Seconds to wait for a card.

    Raises:
        InputError: FEWBIT_GPU_TIMEOUT is not a positive number.

    """
    text = os.environ.get("FEWBIT_GPU_TIMEOUT", "")
    try:
        seconds = float(text) if text else TIMEOUT
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise InputError(f"FEWBIT_GPU_TIMEOUT must be a number of seconds, found `{text}`")
    return seconds


def wait(promise: Any, message: str) -> None:
    """Wait for a promise of wgpu.

    Raises:
        DeviceError: the promise fails, or takes longer than `timeout_seconds`.

    """
    seconds = timeout_seconds()
    # `sync_wait` has no timeout, so this waits for its event: private in wgpu-py 0.32 (pinned)
    event = getattr(promise, "_thread_event", None)
    if event is not None and not event.wait(seconds):
        raise DeviceError(
            f"{message}: no answer in {seconds:g} seconds",
            hint="the card hangs or is very slow; FEWBIT_GPU_TIMEOUT=SECONDS waits longer",
            seconds=seconds,
        )
    with guarded(message):
        promise.sync_wait()
