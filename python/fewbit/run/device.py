"""Choosing the device that a model runs on: the CPU, a graphics card, or whichever suits it."""

from __future__ import annotations

import contextlib
import glob
import sys

from fewbit.errors import UnsupportedError
from fewbit.plan.plan import Plan
from fewbit.run.cpu import CpuBackend
from fewbit.run.executor import Backend

CARD_FILES = ("/dev/dri/*", "/dev/nvidia*", "/proc/driver/nvidia", "/dev/dxg")
"""Files that a card's Linux driver makes (`dxg`: Windows' below WSL); no card without any."""


class Device:
    """A `device` option: "cpu", "gpu", "gpu:N", or "auto", decided when a model first runs.

    A model that never runs thus asks no graphics driver.

    Raises:
        UnsupportedError: no device is called so.
        DeviceError: the card is not available.

    """

    def __init__(self, name: str = "cpu") -> None:
        self.name = name
        self._backend: Backend | None = None if name == "auto" else _open(name)

    def backend(self, plan: Plan) -> Backend:
        """The backend for `plan`; "auto" takes a discrete card that has all its ops, or the CPU."""
        return self._backend or _suited(plan)


def _open(name: str) -> Backend:
    if name == "cpu":
        return CpuBackend()
    from fewbit.run.gpu.device import find_adapter  # imports wgpu

    adapter = find_adapter(name)
    return CpuBackend() if adapter is None else _on_card(adapter)


def _suited(plan: Plan) -> Backend:
    if not may_have_card():
        return CpuBackend()
    from fewbit.run.gpu.device import find_adapter
    from fewbit.run.gpu.ops import check_ops

    with contextlib.suppress(UnsupportedError):
        check_ops(plan.to_dicts())
        if (adapter := find_adapter("auto")) is not None:
            return _on_card(adapter)
    return CpuBackend()


def _on_card(adapter: object) -> Backend:
    from fewbit.run.gpu.backend import GpuBackend
    from fewbit.run.gpu.device import Adapter

    assert isinstance(adapter, Adapter)
    return GpuBackend(adapter)


def may_have_card() -> bool:
    """Whether to ask the graphics drivers, which takes a second of the first token."""
    return sys.platform != "linux" or any(map(glob.glob, CARD_FILES))
