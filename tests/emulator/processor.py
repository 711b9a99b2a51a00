"""Bochs as a processor that has AVX-512 with VNNI, VBMI and BF16, and AVX-VNNI."""

from __future__ import annotations

import ctypes
import mmap
import platform
import struct
import subprocess
import tempfile

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
PAGE = 1 << 12

# Newer symbols than the wheel's tag admits; https://sourceware.org/glibc/wiki/Release/2.38
NEWER_GLIBC = """
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
unsigned long long __isoc23_strtoull(const char *s, char **e, int b) { return strtoull(s, e, b); }
int __isoc23_sscanf(const char *s, const char *f, ...)
{ va_list a; va_start(a, f); int n = vsscanf(s, f, a); va_end(a); return n; }
"""


def provide_newer_glibc() -> None:
    """Define what bochscpu-python asks of glibc 2.38 where this machine's is older."""
    version = platform.libc_ver()[1]
    if tuple(map(int, version.split("."))) >= (2, 38):
        return
    with tempfile.TemporaryDirectory() as folder:
        library = f"{folder}/newer.so"
        command = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", library]
        subprocess.run(command, input=NEWER_GLIBC.encode(), check=True)
        ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)


provide_newer_glibc()
import bochscpu  # noqa: E402
import bochscpu.cpu  # noqa: E402
import bochscpu.memory  # noqa: E402

__all__ = ["LIBC", "PAGE", "bochscpu", "emulate_sapphire_rapids", "first_state"]


def emulate_sapphire_rapids() -> None:
    """Make Bochs' default processor, which has no VNNI, one that has all that is tested here.

    The package offers no choice, but exports what makes each model: one becomes a jump to another.
    """
    models = ctypes.CDLL(bochscpu._bochscpu.__file__)
    default = ctypes.cast(models._Z23create_corei3_cnl_cpuidP8BX_CPU_C, ctypes.c_void_p).value
    wanted = ctypes.cast(models._Z28create_sapphire_rapids_cpuidP8BX_CPU_C, ctypes.c_void_p).value
    assert default is not None
    assert wanted is not None
    everything = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    if LIBC.mprotect(ctypes.c_void_p(default & -PAGE), 2 * PAGE, everything):
        raise OSError(ctypes.get_errno(), "the emulated processor could not be chosen")
    ctypes.memmove(default, b"\x48\xb8" + struct.pack("<Q", wanted) + b"\xff\xe0", 12)


def first_state(entry: int, stack: int, tables: int, trap: int) -> bochscpu.State:
    """Long mode, ring 0, every register of AVX-512 enabled; system calls arrive at `trap`."""
    state = bochscpu.State()
    bochscpu.cpu.set_long_mode(state)
    state.cr0 = 0x80010033  # PG WP NE ET MP PE
    state.cr4 = 0x50620  # OSXSAVE FSGSBASE OSXMMEXCPT OSFXSR PAE
    state.xcr0 = 0xE7  # ZMM, masks, YMM, XMM, x87
    state.cr3 = tables
    state.mxcsr, state.mxcsr_mask, state.fpcw = 0x1F80, 0xFFFF, 0x37F
    state.rip, state.rsp, state.rflags = entry, stack, 2
    state.lstar, state.star = trap, 0x30 << 48 | 0x30 << 32
    code, data = bochscpu.Segment(), bochscpu.Segment()
    for segment, selector, attributes in ((code, 0x30, 0xA09B), (data, 0x38, 0xC093)):
        segment.present, segment.limit = True, 0xFFFFFFFF
        segment.selector, segment.attr = selector, attributes
    state.cs, state.ss, state.ds, state.es, state.fs, state.gs = code, *[data] * 5
    return state
