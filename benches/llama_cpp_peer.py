"""Measure llama.cpp through llama-cpp-python's C interface, as ``llama-bench`` does."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path

import llama_cpp
import numpy as np
from numpy.typing import NDArray


class Peer:
    """A model and a context of llama.cpp, with default settings otherwise."""

    def __init__(self, file: Path, threads: int, context: int = 1024) -> None:
        llama_cpp.llama_log_set(_silent, None)
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(
            str(file).encode(), llama_cpp.llama_model_default_params()
        )
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = context
        params.n_batch = params.n_ubatch = 512
        params.n_threads = params.n_threads_batch = threads
        self.depth = 0
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        if not self.context:
            raise RuntimeError(f"llama.cpp cannot load {file}")

    def fill(self, tokens: NDArray[np.int32]) -> None:
        """Clear the KV cache and put `tokens` into it."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        self.depth = len(tokens)
        self._decode(tokens, 512)

    def measure(self, tokens: NDArray[np.int32], batch: int) -> float:
        """Return tokens/s of `tokens`, `batch` at a time, after the tokens of `fill`."""
        memory = llama_cpp.llama_get_memory(self.context)
        llama_cpp.llama_memory_seq_rm(memory, 0, self.depth, -1)
        start = time.perf_counter()
        self._decode(tokens, batch)
        return len(tokens) / (time.perf_counter() - start)

    def _decode(self, tokens: NDArray[np.int32], batch: int) -> None:
        for at in range(0, len(tokens), batch):
            chunk = np.ascontiguousarray(tokens[at : at + batch])
            pointer = chunk.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token))
            if llama_cpp.llama_decode(
                self.context, llama_cpp.llama_batch_get_one(pointer, len(chunk))
            ):
                raise RuntimeError("llama_decode failed")
            llama_cpp.llama_synchronize(self.context)

    def measure_scored(self, tokens: NDArray[np.int32], first: int) -> float:
        """Return tokens/s of a window whose tokens from `first` on give logits.

        Includes only the computation of logits, not what ``llama-perplexity`` computes from them.
        """
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for at, token in enumerate(tokens.tolist()):
            batch.token[at], batch.pos[at], batch.logits[at] = token, at, at >= first
            batch.n_seq_id[at], batch.seq_id[at][0] = 1, 0
        start = time.perf_counter()
        if llama_cpp.llama_decode(self.context, batch):
            raise RuntimeError("llama_decode failed")
        llama_cpp.llama_synchronize(self.context)
        seconds = time.perf_counter() - start
        llama_cpp.llama_batch_free(batch)
        return len(tokens) / seconds

    def close(self) -> None:
        """Free the context and the model."""
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)


@llama_cpp.llama_log_callback
def _silent(level: int, text: bytes, data: object) -> None:
    """Discard llama.cpp's log messages."""
