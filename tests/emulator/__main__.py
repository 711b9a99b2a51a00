"""Run a static Linux program on an emulated x86-64 that has AVX-512, VNNI, BF16 and AVX-VNNI.

    python tests/emulator PROGRAM [ARGUMENT ...]

What qemu-user is to aarch64, for sets of instructions that it lacks. The processor is Bochs', by
way of bochscpu-python (`processor.py`), and runs everything in ring 0; this file is the operating
system. The program's memory is one mapping of this process at its own addresses (`memory.py`), so
most system calls pass through as they are. Threads take turns: one runs until it waits, yields or
ends.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from memory import PHYSICAL, Memory, fill_stack, load
from processor import LIBC, bochscpu, emulate_sapphire_rapids, first_state

HEAP = 64 << 20
KEPT = ("rax", "rbx", "rdx", "rsi", "rdi", "rbp", "rsp", "rip", "rflags")
KEPT += ("r8", "r9", "r10", "r12", "r13", "r14", "r15")


@dataclass(eq=False)
class Thread:
    """One that does not run: its registers, and what it waits for.

    Vectors and masks are the caller's to keep in all functions of C that enter the system.
    """

    number: int
    tls: int = 0
    registers: dict[str, int] = field(default_factory=dict)
    tid_address: int = 0
    futex: int = 0
    timed: bool = False


class ProgramEnd(Exception):  # noqa: N818
    """The program has ended; its status."""


# Numbers of asm/unistd_64.h. Signals, protection and advice change nothing here.
IGNORED = {10, 13, 14, 28, 131, 273}
REFUSED = {56, 57, 58, 59, 334}  # processes, and restartable sequences


class System:
    """The processor, and the part of Linux that a test program asks for."""

    def __init__(self, program: Path, arguments: list[str]) -> None:
        self.memory = Memory()
        entry, vector = load(self.memory, program)
        self.heap = self.memory.take(HEAP)
        self.end_of_heap = self.heap
        self.session = bochscpu.Session()
        self.session.missing_page_handler = self.memory.insert
        stack = fill_stack(self.memory, [str(program), *arguments], vector)
        self.session.cpu.state = first_state(entry, stack, PHYSICAL, self.memory.trap)
        self.hook = bochscpu.Hook()
        self.hook.far_branch = lambda session, *_: session.stop()
        self.hook.exception = self.on_exception
        self.fault: str | None = None
        self.process = os.getpid()
        self.current = Thread(self.process)
        self.ready: deque[Thread] = deque()
        self.waiting: list[Thread] = []
        self.started = 0
        self.calls: dict[int, Callable[..., int | None]] = {
            9: self.mmap,
            11: self.munmap,
            12: self.brk,
            24: self.sched_yield,
            25: self.mremap,
            35: self.sched_yield,  # nanosleep: to sleep is to let others run
            60: self.exit,
            158: self.arch_prctl,
            186: self.gettid,
            202: self.futex,
            218: self.set_tid_address,
            230: self.sched_yield,  # clock_nanosleep
            231: self.exit_group,
            435: self.clone3,
        }

    def on_exception(self, session: bochscpu.Session, _: int, vector: int, error: int) -> None:
        """Stop where a processor would signal: 6 is an instruction it lacks, 14 a wild address."""
        place = session.cpu.rip - self.memory.base
        self.fault = f"exception {vector}, code {error:#x}, before {place:#x} of its memory"
        session.stop()

    def run(self) -> int:
        """Until the program ends: its status."""
        cpu = self.session.cpu
        while True:
            self.session.run([self.hook])
            if self.fault:
                raise RuntimeError(self.fault)
            arguments = [cpu.rdi, cpu.rsi, cpu.rdx, cpu.r10, cpu.r8, cpu.r9]
            number = cpu.rax
            cpu.rip, cpu.rflags = cpu.rcx, cpu.r11
            try:
                result = self.call(number, arguments)
            except ProgramEnd as end:
                return int(end.args[0])
            if result is not None:
                cpu.rax = result & (1 << 64) - 1

    def call(self, number: int, a: list[int]) -> int | None:
        """One system call: its result, or None where another thread runs now."""
        if own := self.calls.get(number):
            return own(*a)
        if number in IGNORED:
            return 0
        if number in REFUSED:
            return -errno.ENOSYS
        result = LIBC.syscall(ctypes.c_long(number), *(ctypes.c_ulong(word) for word in a))
        return result if result >= 0 else -ctypes.get_errno()

    def mmap(self, _: int, size: int, protection: int, flags: int, *rest: int) -> int:
        """Memory of no file; glibc never asks for a place."""
        if not flags & mmap.MAP_ANONYMOUS:
            return -errno.ENODEV
        return self.memory.take(size)

    def munmap(self, address: int, size: int, *rest: int) -> int:
        self.memory.free(address, size)
        return 0

    def mremap(self, address: int, old: int, new: int, *rest: int) -> int:
        to = self.memory.take(new)
        ctypes.memmove(to, address, min(old, new))
        self.memory.free(address, old)
        return to

    def brk(self, address: int, *rest: int) -> int:
        if self.heap <= address <= self.heap + HEAP:
            self.end_of_heap = address
        return self.end_of_heap

    def arch_prctl(self, code: int, address: int, *rest: int) -> int:
        if code != 0x1002:  # ARCH_SET_FS
            return -errno.EINVAL
        self.set_tls(address)
        return 0

    def set_tid_address(self, address: int, *rest: int) -> int:
        self.current.tid_address = address
        return self.current.number

    def gettid(self, *rest: int) -> int:
        return self.current.number

    def set_tls(self, address: int) -> None:
        segment = self.session.cpu.fs
        segment.base = address
        self.session.cpu.fs = segment
        self.current.tls = address

    def exit_group(self, status: int, *rest: int) -> int:
        raise ProgramEnd(status & 255)

    def clone3(self, at: int, *rest: int) -> int:
        """A thread; struct clone_args of linux/sched.h."""
        words = struct.unpack("<8Q", ctypes.string_at(at, 64))
        _, _, child, parent, _, stack, size, tls = words
        self.started += 1
        thread = Thread(self.process + self.started, tls, self.registers(), child)
        thread.registers |= {"rsp": stack + size, "rax": 0}
        if parent:
            ctypes.memmove(parent, struct.pack("<I", thread.number), 4)
        self.ready.append(thread)
        return thread.number

    def registers(self) -> dict[str, int]:
        return {name: getattr(self.session.cpu, name) for name in KEPT}

    def exit(self, status: int, *rest: int) -> None:
        """The end of one thread: whoever joins it waits for a word to become 0."""
        if not self.ready and not self.waiting:
            raise ProgramEnd(status & 255)
        if self.current.tid_address:
            ctypes.memmove(self.current.tid_address, bytes(4), 4)
            self.wake(self.current.tid_address, 1)
        self.resume()

    def futex(self, address: int, op: int, value: int, timeout: int, *rest: int) -> int | None:
        """FUTEX_WAIT and FUTEX_WAKE, with or without a set of bits."""
        kind = op & 15
        if kind in (1, 10):
            return self.wake(address, value)
        if kind not in (0, 9):
            return -errno.ENOSYS
        if struct.unpack("<I", ctypes.string_at(address, 4))[0] != value & 0xFFFFFFFF:
            return -errno.EAGAIN
        self.current.futex, self.current.timed = address, timeout != 0
        self.suspend(self.waiting, 0)
        return None

    def wake(self, address: int, most: int) -> int:
        woken = [t for t in self.waiting if t.futex == address][:most]
        for thread in woken:
            self.waiting.remove(thread)
            self.ready.append(thread)
        return len(woken)

    def sched_yield(self, *rest: int) -> None:
        self.suspend(self.ready, 0)

    def suspend(self, queue: list[Thread] | deque[Thread], result: int) -> None:
        """Put the current thread into `queue`, to go on with `result`, and run another."""
        self.current.registers = self.registers() | {"rax": result}
        queue.append(self.current)
        self.resume()

    def resume(self) -> None:
        """Run the next thread; with none ready, one whose time to wait ends."""
        if not self.ready:
            late = next((t for t in self.waiting if t.timed), None)
            if late is None:
                raise RuntimeError("all threads wait for each other")
            self.waiting.remove(late)
            late.registers["rax"] = -errno.ETIMEDOUT & (1 << 64) - 1
            self.ready.append(late)
        self.current = self.ready.popleft()
        for name, value in self.current.registers.items():
            setattr(self.session.cpu, name, value)
        self.set_tls(self.current.tls)


def main() -> int:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    emulate_sapphire_rapids()
    try:
        return System(Path(sys.argv[1]), sys.argv[2:]).run()
    except (ValueError, RuntimeError, MemoryError) as error:
        sys.stderr.write(f"{sys.argv[1]}: {error}\n")
        return 1


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # Bochs does not survive the interpreter's own end
