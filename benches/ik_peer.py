"""Run ik_llama.cpp's ``llama-bench``; the environment variable FEWBIT_BENCH_IK is its path.

The binary wheel on PyPI has no AVX-512 code, so build the source for this machine. The source lacks
two files that a git checkout creates:
``common/cmake/build-info-gen-cpp.cmake`` (it may be empty) and ``common/build-info.cpp`` (define
the variables of ``build-info.cpp.in``).

    pip download --no-deps --no-binary ik_llama_cpp_python ik_llama_cpp_python
    tar xf ik_llama_cpp_python-*.tar.gz
    cmake -S ik_llama_cpp_python-*/vendor/ik_llama.cpp -B build -DGGML_NATIVE=ON
    cmake --build build -t llama-bench
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

PROGRAM = os.environ.get("FEWBIT_BENCH_IK")


def measure(file: Path, threads: int, prompt: int, generated: int) -> float:
    """Return tokens/s of a prompt or of generation, the better of with and without repacking.

    0 for formats that it cannot run, such as TQ1_0.
    """
    return max(_run(file, threads, prompt, generated, repack) for repack in (0, 1))


def _run(file: Path, threads: int, prompt: int, generated: int, repack: int) -> float:
    options = {"-m": file, "-t": threads, "-p": prompt, "-n": generated, "-r": 1, "-rtr": repack}
    words = [str(word) for option in options.items() for word in option]
    done = subprocess.run([str(PROGRAM), *words, "-o", "json"], capture_output=True, text=True)
    if done.returncode:
        return 0.0
    return float(json.loads(done.stdout)[0]["avg_ts"])
