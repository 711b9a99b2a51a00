"""Graphics cards: which there are, which one is meant, and what it can do.

Only Vulkan, Metal and DirectX 12 are asked. A software adapter (lavapipe) is taken where it is
named, never by itself: the CPU executor is many times faster.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import wgpu
from numpy.typing import NDArray
from wgpu.backends.wgpu_native.extras import set_instance_extras
from wgpu.classes import GPUError

from fewbit.errors import DeviceError, UnsupportedError
from fewbit.run.gpu.guard import LESS, guarded, is_lost, wait
from fewbit.run.gpu.source import source

FEATURES = ("subgroup", "shader-f16", "timestamp-query")
"""What is used where a device has it; nothing of it is needed."""

PIECE = 16 << 20
"""Bytes of an upload after which it is submitted: with more pending, copies queue up in memory."""

ROOM = 256 << 20
"""Bytes of a piece of memory that is taken to see whether there is room."""

INSTALL = (
    "install the card's driver with Vulkan (containers: NVIDIA_DRIVER_CAPABILITIES=all), or "
    "mesa-vulkan-drivers for a software adapter; `fewbit devices` lists what is found"
)


@dataclass(frozen=True)
class Adapter:
    """One way to a card: `kind` is DiscreteGPU, IntegratedGPU, CPU (software) or Unknown."""

    index: int
    name: str
    kind: str
    backend: str
    driver: str
    features: tuple[str, ...]
    max_buffer: int
    max_binding: int
    handle: Any

    @property
    def is_software(self) -> bool:
        """Whether the CPU does the work."""
        return self.kind == "CPU"


@cache
def adapters() -> tuple[Adapter, ...]:
    """All adapters of this machine, real ones first, in the driver's order."""
    set_instance_extras(backends=["Primary"])
    with _runtime_folder(), guarded("the graphics drivers cannot be asked"):
        found = wgpu.gpu.enumerate_adapters_sync()
    found.sort(key=lambda handle: handle.info["adapter_type"] == "CPU")
    return tuple(_adapter(index, handle) for index, handle in enumerate(found))


@contextlib.contextmanager
def _runtime_folder() -> Iterator[None]:
    """Mesa writes to stderr where XDG_RUNTIME_DIR is not set, as in containers."""
    name = "XDG_RUNTIME_DIR"
    if name in os.environ:
        yield
        return
    os.environ[name] = tempfile.gettempdir()
    try:
        yield
    finally:
        del os.environ[name]


def _adapter(index: int, handle: Any) -> Adapter:
    info, limits = handle.info, handle.limits
    return Adapter(
        index,
        info["device"],
        info["adapter_type"],
        info["backend_type"],
        info["description"],
        tuple(name for name in FEATURES if name in handle.features),
        limits["max-buffer-size"],
        limits["max-storage-buffer-binding-size"],
        handle,
    )


def find_adapter(device: str) -> Adapter | None:
    """The adapter that a `device` option means, None for the CPU executor.

    "cpu" is the CPU; "gpu" the first real card, or the one whose index or part of a name stands in
    the environment's FEWBIT_ADAPTER; "gpu:1" the adapter of that index; "auto" a discrete card if
    there is one, else the CPU.

    Raises:
        UnsupportedError: `device` is none of these.
        DeviceError: there is no such adapter.

    """
    kind, _, index = device.partition(":")
    if device == "cpu":
        return None
    if device == "auto":
        return next((a for a in _found_quietly() if a.kind == "DiscreteGPU"), None)
    if kind != "gpu" or (index and not index.isdecimal()) or device == "gpu:":
        raise UnsupportedError(
            f"unknown device `{device}`", hint="known: auto, cpu, gpu, gpu:N", device=device
        )
    found = adapters()
    if not found:
        raise DeviceError("no graphics adapter was found", hint=INSTALL)
    wanted = index or os.environ.get("FEWBIT_ADAPTER", "")
    return _named(found, wanted) if wanted else _real(found)


def _found_quietly() -> tuple[Adapter, ...]:
    """The adapters for "auto", which takes a broken driver for none."""
    try:
        return adapters()
    except (DeviceError, OSError):
        return ()


def _named(found: Sequence[Adapter], wanted: str) -> Adapter:
    for adapter in found:
        if wanted == str(adapter.index) or (
            not wanted.isdecimal() and wanted.lower() in adapter.name.lower()
        ):
            return adapter
    known = ", ".join(f"{a.index} ({a.name})" for a in found)
    raise DeviceError(f"there is no adapter `{wanted}`", hint=f"known: {known}", wanted=wanted)


def _real(found: Sequence[Adapter]) -> Adapter:
    if found[0].is_software:
        raise DeviceError(
            f"the only adapter is software: {found[0].name}",
            hint=f"`--device cpu` is faster, `--device gpu:0` takes it still; else {INSTALL}",
        )
    return found[0]


class Device:
    """An open card: its limits, buffers, and pipelines by what they are made of."""

    def __init__(self, adapter: Adapter, max_binding: int | None = None) -> None:
        """`max_binding` lowers the bytes that a shader may see of one buffer."""
        self.adapter = adapter
        with guarded(f"cannot open {adapter.name}"):
            self._device = adapter.handle.request_device_sync(
                required_features=list(adapter.features)
            )
        limits = self._device.limits
        most = min(limits["max-storage-buffer-binding-size"], limits["max-buffer-size"])
        self.max_binding: int = min(most, (1 << 31) - 4, max_binding or most) // 256 * 256
        self.max_groups: int = limits["max-compute-workgroups-per-dimension"]
        self.features = frozenset(f for f in FEATURES if f in self._device.features)
        self.queue = self._device.queue
        self.allocated = 0
        self._layouts: dict[tuple[tuple[int, bool], ...], tuple[Any, Any]] = {}
        self._modules: dict[str, Any] = {}
        self._pipelines: dict[Any, Any] = {}

    def buffer(self, size: int, what: str = "working memory") -> Any:
        """A zeroed buffer of at least `size` bytes.

        Raises:
            DeviceError: it does not fit the card, or a shader could not see all of it.

        """
        size = max(-(-size // 16) * 16, 16)
        if size > self.max_binding:
            raise DeviceError(
                f"{what} takes {size:,} bytes in one piece, {self.adapter.name} binds at most "
                f"{self.max_binding:,}",
                hint="use a shorter context, fewer sequences, or `--device cpu`",
                needed=size,
                limit=self.max_binding,
            )
        usage = wgpu.BufferUsage
        with guarded(
            f"{self.adapter.name} has no room for {size:,} more bytes of {what}: "
            f"{self.allocated:,} are taken",
            hint=LESS,
        ):
            made = self._device.create_buffer(
                size=size, usage=usage.STORAGE | usage.COPY_DST | usage.COPY_SRC
            )
        self.allocated += size
        return made

    def upload(self, data: NDArray[np.generic], what: str = "working memory") -> Any:
        """A buffer that holds `data`."""
        flat = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        if flat.size % 4:
            flat = np.concatenate([flat, np.zeros(-flat.size % 4, np.uint8)])
        made = self.buffer(flat.size, what)
        with guarded(f"cannot upload {what} to {self.adapter.name}"):
            for start in range(0, flat.size, PIECE):
                self.queue.write_buffer(made, start, flat[start : start + PIECE])
                if flat.size > PIECE:
                    self.queue.submit([])
        return made

    def read(self, buffer: Any, offset: int, size: int, what: str) -> memoryview:
        """`size` bytes of a buffer, after all that was submitted before; `what` failed if not.

        Raises:
            DeviceError: the card is lost, or does not answer in time.

        """
        between = self.staging(size)
        with guarded(what):
            encoder = self.encoder()
            encoder.copy_buffer_to_buffer(buffer, offset, between, 0, size)
            self.queue.submit([encoder.finish()])
            promise = between.map_async(wgpu.MapMode.READ)
        wait(promise, what)
        with guarded(what):
            data: memoryview = between.read_mapped()
            between.destroy()
        return data

    def reserve(self, size: int, what: str) -> None:
        """Make sure that the card has room for `size` bytes, by taking them and giving them back.

        No interface says how much is free; memory that nothing was written to is cheap to take.

        Raises:
            DeviceError: it has not; `needed` and `available` are bytes.

        """
        taken: list[Any] = []
        piece = min(ROOM, self.max_binding)
        try:
            for start in range(0, size, piece):
                taken.append(self.buffer(min(piece, size - start), what))
        except DeviceError as error:
            had = sum(buffer.size for buffer in taken)
            if not getattr(error, "full", False):
                raise
            raise DeviceError(
                f"{self.adapter.name} has no room for {what}: {size:,} bytes are needed, "
                f"{had:,} could be had",
                hint=LESS, needed=size, available=had, full=True, lost=False,
            ) from error  # fmt: skip
        finally:
            for buffer in taken:
                self.release(buffer)

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be done on it any more."""
        try:
            self.encoder().finish()
        except (GPUError, RuntimeError) as error:
            return is_lost(error)
        return False

    def staging(self, size: int) -> Any:
        """A buffer that the host can read."""
        usage = wgpu.BufferUsage
        with guarded(f"{self.adapter.name} has no room for {size:,} bytes to read back"):
            return self._device.create_buffer(size=size, usage=usage.COPY_DST | usage.MAP_READ)

    def encoder(self) -> Any:
        """A new list of commands."""
        return self._device.create_command_encoder()

    def pipeline(
        self,
        files: tuple[str, ...],
        bindings: Mapping[int, bool],
        constants: Mapping[str, float],
    ) -> Any:
        """The shader that the last of `files` holds under its own name, with these constants.

        `bindings` say which bindings there are, and whether the shader writes to them. Each file
        brings the others that it includes.
        """
        key = (files, tuple(sorted(bindings.items())), tuple(sorted(constants.items())))
        if key not in self._pipelines:
            layout, _ = self._layout(bindings)
            with guarded(f"cannot build the shader `{files[-1]}` on {self.adapter.name}"):
                self._pipelines[key] = self._device.create_compute_pipeline(
                    layout=layout,
                    compute={
                        "module": self._module(files),
                        "entry_point": files[-1],
                        "constants": dict(constants),
                    },
                )
        return self._pipelines[key]

    def bind(self, buffers: Mapping[int, tuple[Any, bool]]) -> Any:
        """A group of buffers by binding; True for those that the shader writes to."""
        _, layout = self._layout({at: writes for at, (_, writes) in buffers.items()})
        entries = [
            {"binding": at, "resource": {"buffer": buffer, "offset": 0, "size": buffer.size}}
            for at, (buffer, _) in sorted(buffers.items())
        ]
        return self._device.create_bind_group(layout=layout, entries=entries)

    def _layout(self, bindings: Mapping[int, bool]) -> tuple[Any, Any]:
        key = tuple(sorted(bindings.items()))
        if key not in self._layouts:
            entries = [
                {
                    "binding": at,
                    "visibility": wgpu.ShaderStage.COMPUTE,
                    "buffer": {"type": "storage" if writes else "read-only-storage"},
                }
                for at, writes in key
            ]
            group = self._device.create_bind_group_layout(entries=entries)
            whole = self._device.create_pipeline_layout(bind_group_layouts=[group])
            self._layouts[key] = whole, group
        return self._layouts[key]

    def _module(self, files: tuple[str, ...]) -> Any:
        code = self.source(files)
        if code not in self._modules:
            self._modules[code] = self._device.create_shader_module(code=code)
        return self._modules[code]

    def source(self, files: Sequence[str]) -> str:
        """The text of a module of these files: behind common.wgsl, what they include, once each."""
        return source(("common", *files), {"reduce": self._reduction})

    @property
    def _reduction(self) -> str:
        """The file that ``include reduce`` means on this card."""
        return "reduce_subgroup" if "subgroup" in self.features else "reduce_shared"

    def copy_rate(self, size: int = 256 << 20, repetitions: int = 8) -> float:
        """GB/s (10^9 bytes) that a copy within the card's memory reads and writes, the best run."""
        size = min(size, self.max_binding)
        source, target = self.buffer(size), self.buffer(size)
        best = 0.0
        for _ in range(3):
            encoder = self.encoder()
            for _ in range(repetitions):
                encoder.copy_buffer_to_buffer(source, 0, target, 0, size)
            start = time.perf_counter()
            self.queue.submit([encoder.finish()])
            self.read(target, 0, 4, f"cannot time {self.adapter.name}")
            best = max(best, 2 * size * repetitions / (time.perf_counter() - start) / 1e9)
        for buffer in (source, target):
            self.release(buffer)
        return best

    def release(self, buffer: Any) -> None:
        """Free a buffer that nothing uses any more."""
        self.allocated -= buffer.size
        buffer.destroy()

    def destroy(self) -> None:
        """Give the card back; what was made on it is lost."""
        self._device.destroy()


_OPEN: dict[Adapter, Device] = {}


def open_device(adapter: Adapter) -> Device:
    """The one open `Device` of an adapter in this process; a new one if that was lost."""
    found = _OPEN.get(adapter)
    if found is None or found.is_lost:
        found = _OPEN[adapter] = Device(adapter)
    return found
