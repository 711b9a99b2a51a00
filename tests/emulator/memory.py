"""The memory of an emulated program, and what lies in it when the program begins."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from pathlib import Path

from processor import LIBC, PAGE, bochscpu

GIB = 1 << 30
SIZE = 8 * GIB  # of memory, most of it never touched
PHYSICAL = 4 * GIB  # where it begins for the processor: above what PCs keep for devices
STACK = 8 << 20


class Memory:
    """The program's memory: a mapping of this process, and the page tables that say the same."""

    def __init__(self) -> None:
        # Kept for as long as the process lives; whole GiB, because a page of the tables is one.
        no_reserve = 0x4000  # in mmap from Python 3.13
        self.mapping = mmap.mmap(-1, SIZE + GIB, flags=mmap.MAP_PRIVATE | no_reserve)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.mapping))
        self.base = (start + GIB - 1) & -GIB
        self.trap = self.base + 3 * PAGE
        self.next = self.base + 4 * PAGE
        self.freed: dict[int, list[int]] = {}
        present_writable, huge = 3, 0x80
        for i in range(SIZE // GIB):
            address = self.base + i * GIB
            below = 1 + (address >> 39) - (self.base >> 39)  # a table holds 512 GiB: two may do
            top = self.base + 8 * (address >> 39 & 511)
            self.write(top, PHYSICAL + below * PAGE | present_writable)
            entry = self.base + below * PAGE + 8 * (address >> 30 & 511)
            self.write(entry, PHYSICAL + i * GIB | present_writable | huge)
        ctypes.memmove(self.trap, b"\xeb\xfe", 2)  # jump to itself: where system calls arrive

    def write(self, address: int, word: int) -> None:
        """Store 64 bits at `address`."""
        ctypes.memmove(address, struct.pack("<Q", word), 8)

    def take(self, size: int) -> int:
        """The address of `size` bytes of zeros, or MemoryError."""
        size = (size + PAGE - 1) & -PAGE
        if self.freed.get(size):
            address = self.freed[size].pop()
            LIBC.madvise(ctypes.c_void_p(address), ctypes.c_size_t(size), mmap.MADV_DONTNEED)
            return address
        if self.next + size > self.base + SIZE:
            raise MemoryError("the emulated program takes more memory than it was given")
        self.next += size
        return self.next - size

    def free(self, address: int, size: int) -> None:
        """Give back what `take` gave, or a part of it."""
        self.freed.setdefault((size + PAGE - 1) & -PAGE, []).append(address)

    def insert(self, physical: int) -> None:
        """Tell Bochs where the page at `physical` lies, when it first asks."""
        page = physical & -PAGE
        bochscpu.memory.page_insert(page, self.base + page - PHYSICAL)


def load(memory: Memory, program: Path) -> tuple[int, list[tuple[int, int]]]:
    """Put a static, position-independent ELF file into memory: its entry, its auxiliary vector."""
    data = program.read_bytes()
    head = struct.unpack_from("<16sHHIQQQIHHHHHH", data)
    entry, table, size, count = head[4], head[5], head[9], head[10]
    segments = [struct.unpack_from("<IIQQQQQQ", data, table + i * size) for i in range(count)]
    loaded = [s for s in segments if s[0] == 1]  # PT_LOAD
    if head[1] != 3 or any(s[0] == 3 for s in segments):  # not ET_DYN, or a PT_INTERP
        raise ValueError(f"{program}: not static-pie; build with -C target-feature=+crt-static")
    base = memory.take(max(s[3] + s[6] for s in loaded))
    for _, _, offset, address, _, stored, _, _ in loaded:
        ctypes.memmove(base + address, data[offset : offset + stored], stored)
    phdr, phent, phnum, pagesz, at_entry = 3, 4, 5, 6, 9  # AT_ of elf.h
    vector = [(phdr, base + table), (phent, size), (phnum, count)]
    return base + entry, [*vector, (pagesz, PAGE), (at_entry, base + entry)]


def fill_stack(memory: Memory, arguments: list[str], vector: list[tuple[int, int]]) -> int:
    """Arguments, environment and auxiliary vector as _start expects them: the stack pointer."""
    top = memory.take(STACK) + STACK

    def push(data: bytes) -> int:
        nonlocal top
        top = (top - len(data)) & -16
        ctypes.memmove(top, data, len(data))
        return top

    words = [len(arguments), *(push(a.encode() + b"\0") for a in arguments), 0]
    words += [*(push(f"{k}={v}".encode() + b"\0") for k, v in os.environ.items()), 0]
    at_random, at_execfn = 25, 31
    for pair in [*vector, (at_random, push(os.urandom(16))), (at_execfn, words[1]), (0, 0)]:
        words += pair
    return push(struct.pack(f"<{len(words)}Q", *words))
