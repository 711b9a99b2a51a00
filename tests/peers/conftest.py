"""Fixtures of the tests that run llama.cpp beside fewbit."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def quiet() -> Any:
    """Keeps llama.cpp from a line a tensor; what it logs with must live on."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="needs the extra `peers`: llama-cpp-python")

    @llama_cpp.llama_log_callback
    def drop(level: int, text: bytes, data: Any) -> None:
        pass

    llama_cpp.llama_log_set(drop, ctypes.c_void_p(0))
    return drop
