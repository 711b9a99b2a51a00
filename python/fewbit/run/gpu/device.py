"""Graphics cards through wgpu: find one, open it, and make its buffers and pipelines.

Vulkan, Metal and DirectX 12 are searched. A software adapter (lavapipe) is used only if
it is named: the CPU executor is many times faster.
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

from fewbit.errors import DeviceError, UnsupportedError, did_you_mean
from fewbit.run.gpu.guard import FULL_HINT, guarded, is_lost, wait
from fewbit.run.gpu.source import source

FEATURES = ("subgroup", "shader-f16", "timestamp-query")
"""Optional WebGPU features that are requested where a device has them."""

UPLOAD_BYTES = 16 << 20
"""Bytes of an upload between submissions: pending copies stay in host memory."""

PROBE_BYTES = 256 << 20
"""Bytes of each buffer that `Device.reserve` allocates to see whether there is room."""

INSTALL = (
    "install the card's driver with Vulkan (containers: NVIDIA_DRIVER_CAPABILITIES=all), or "
    "mesa-vulkan-drivers for a software adapter; `fewbit devices` lists what is found"
)


@dataclass(frozen=True)
class Adapter:
    """A card behind one driver; `kind` is DiscreteGPU, IntegratedGPU, CPU (software) or Unknown."""

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
        """True if the CPU runs the shaders."""
        return self.kind == "CPU"


@cache
def adapters() -> tuple[Adapter, ...]:
    """All adapters of this machine: hardware first, then software, in the driver's order."""
    set_instance_extras(backends=["Primary"])
    with _runtime_folder(), guarded("cannot query the graphics drivers"):
        found = wgpu.gpu.enumerate_adapters_sync()
    found.sort(key=lambda handle: handle.info["adapter_type"] == "CPU")
    return tuple(_adapter(index, handle) for index, handle in enumerate(found))


@contextlib.contextmanager
def _runtime_folder() -> Iterator[None]:
    """Set XDG_RUNTIME_DIR if it is not set, as in containers: Mesa would warn on stderr."""
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
    """The adapter for a `--device` option, None for the CPU executor.

    "cpu" is the CPU. "gpu" is the first hardware adapter, or the adapter whose index or part of its
    name is in the environment variable FEWBIT_ADAPTER. "gpu:1" is the adapter with that index.
    "auto" is a discrete card if there is one, else the CPU.

    Raises:
        UnsupportedError: `device` is none of these.
        DeviceError: the adapter does not exist.

    """
    kind, _, index = device.partition(":")
    if device == "cpu":
        return None
    if device == "auto":
        return next((a for a in _found_quietly() if a.kind == "DiscreteGPU"), None)
    if kind != "gpu" or (index and not index.isdecimal()) or device == "gpu:":
        raise UnsupportedError(
            f"unknown device `{device}`",
            hint=f"{did_you_mean(device, ('auto', 'cpu', 'gpu'))}known: auto, cpu, gpu, gpu:N",
            device=device,
        )
    found = adapters()
    if not found:
        raise DeviceError("no graphics adapter was found", hint=INSTALL)
    wanted = index or os.environ.get("FEWBIT_ADAPTER", "")
    return _named(found, wanted) if wanted else _hardware(found)


def _found_quietly() -> tuple[Adapter, ...]:
    """The adapters for "auto", which ignores a broken driver."""
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


def _hardware(found: Sequence[Adapter]) -> Adapter:
    if found[0].is_software:
        raise DeviceError(
            f"the only adapter is software: {found[0].name}",
            hint=f"`--device cpu` is faster, `--device gpu:0` uses it anyway; else {INSTALL}",
        )
    return found[0]


class Device:
    """An open card: its limits, its buffers, and a cache of its pipelines."""

    def __init__(self, adapter: Adapter, max_binding: int | None = None) -> None:
        """Open the card; `max_binding` lowers the bytes of a buffer that a shader can bind."""
        self.adapter = adapter
        with guarded(f"cannot open {adapter.name}"):
            self._device = adapter.handle.request_device_sync(
                required_features=list(adapter.features)
            )
        limits = self._device.limits
        bytes_ = min(limits["max-storage-buffer-binding-size"], limits["max-buffer-size"])
        self.max_binding: int = min(bytes_, (1 << 31) - 4, max_binding or bytes_) // 256 * 256
        self.max_groups: int = limits["max-compute-workgroups-per-dimension"]
        self.features = frozenset(f for f in FEATURES if f in self._device.features)
        self.queue = self._device.queue
        self.allocated = 0
        self._layouts: dict[tuple[tuple[int, bool], ...], tuple[Any, Any]] = {}
        self._modules: dict[str, Any] = {}
        self._pipelines: dict[Any, Any] = {}

    def buffer(self, size: int, label: str = "working memory") -> Any:
        """A zeroed buffer of at least `size` bytes.

        Raises:
            DeviceError: the card is full, or the buffer is larger than a shader can bind.

        """
        size = max(-(-size // 16) * 16, 16)
        if size > self.max_binding:
            raise DeviceError(
                f"{label} takes {size:,} bytes in one buffer, {self.adapter.name} binds at most "
                f"{self.max_binding:,}",
                hint="use a shorter context, fewer sequences, or `--device cpu`",
                needed=size,
                limit=self.max_binding,
            )
        usage = wgpu.BufferUsage
        with guarded(
            f"{self.adapter.name} has no room for {size:,} more bytes of {label}: "
            f"{self.allocated:,} are taken",
            hint=FULL_HINT,
        ):
            made = self._device.create_buffer(
                size=size, usage=usage.STORAGE | usage.COPY_DST | usage.COPY_SRC
            )
        self.allocated += size
        return made

    def upload(self, data: NDArray[np.generic], label: str = "working memory") -> Any:
        """A buffer that holds `data`."""
        flat = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        if flat.size % 4:
            flat = np.concatenate([flat, np.zeros(-flat.size % 4, np.uint8)])
        made = self.buffer(flat.size, label)
        with guarded(f"cannot upload {label} to {self.adapter.name}"):
            for start in range(0, flat.size, UPLOAD_BYTES):
                self.queue.write_buffer(made, start, flat[start : start + UPLOAD_BYTES])
                if flat.size > UPLOAD_BYTES:
                    self.queue.submit([])
        return made

    def read(self, buffer: Any, offset: int, size: int, message: str) -> memoryview:
        """Read `size` bytes of a buffer after all earlier submissions; errors begin with `message`.

        Raises:
            DeviceError: the card is lost, or does not answer in time.

        """
        staging = self.staging(size)
        with guarded(message):
            encoder = self.encoder()
            encoder.copy_buffer_to_buffer(buffer, offset, staging, 0, size)
            self.queue.submit([encoder.finish()])
            promise = staging.map_async(wgpu.MapMode.READ)
        wait(promise, message)
        with guarded(message):
            data: memoryview = staging.read_mapped()
            staging.destroy()
        return data

    def reserve(self, size: int, label: str) -> None:
        """Check that the card has room for `size` bytes, by allocating and freeing them.

        WebGPU does not report free memory. Buffers that are never written are cheap to allocate.

        Raises:
            DeviceError: the card has less room; `needed` and `available` are in bytes.

        """
        taken: list[Any] = []
        probe = min(PROBE_BYTES, self.max_binding)
        try:
            for start in range(0, size, probe):
                taken.append(self.buffer(min(probe, size - start), label))
        except DeviceError as error:
            available = sum(buffer.size for buffer in taken)
            if not getattr(error, "full", False):
                raise
            raise DeviceError(
                f"{self.adapter.name} has no room for {label}: {size:,} bytes are needed, "
                f"{available:,} are available",
                hint=FULL_HINT, needed=size, available=available, full=True, lost=False,
            ) from error  # fmt: skip
        finally:
            for buffer in taken:
                self.release(buffer)

    @property
    def is_lost(self) -> bool:
        """True if the device was lost: every further call would fail."""
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
        """The compute pipeline of a shader, compiled once for each set of `constants`.

        The entry point is the function named like the last of `files`. `bindings` are the binding
        numbers; True means that the shader writes to the buffer.
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
        """A bind group of buffers by binding number; True for those that the shader writes to."""
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
            group_layout = self._device.create_bind_group_layout(entries=entries)
            pipeline_layout = self._device.create_pipeline_layout(bind_group_layouts=[group_layout])
            self._layouts[key] = pipeline_layout, group_layout
        return self._layouts[key]

    def _module(self, files: tuple[str, ...]) -> Any:
        code = self.source(files)
        if code not in self._modules:
            self._modules[code] = self._device.create_shader_module(code=code)
        return self._modules[code]

    def source(self, files: Sequence[str]) -> str:
        """The WGSL of a module: common.wgsl, these files, and each file that they include, once."""
        return source(("common", *files), {"reduce": self._reduction})

    @property
    def _reduction(self) -> str:
        """The file that ``include reduce`` stands for on this card."""
        return "reduce_subgroup" if "subgroup" in self.features else "reduce_shared"

    def copy_rate(self, size: int = 256 << 20, repetitions: int = 8) -> float:
        """GB/s (10^9 bytes) that copies in the card's memory read and write: the best of 3 runs."""
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
        """Free a buffer."""
        self.allocated -= buffer.size
        buffer.destroy()

    def destroy(self) -> None:
        """Close the device; its buffers and pipelines become invalid."""
        self._device.destroy()


_OPEN: dict[Adapter, Device] = {}


def open_device(adapter: Adapter) -> Device:
    """The `Device` of an adapter: one per process, and a new one if it was lost."""
    found = _OPEN.get(adapter)
    if found is None or found.is_lost:
        found = _OPEN[adapter] = Device(adapter)
    return found
