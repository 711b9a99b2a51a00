"""Base files between fewbit and llama-perplexity, each reading what the other wrote.

The tool is `llama-perplexity` on the path, or the program that LLAMA_PERPLEXITY names;
CONTRIBUTING.md says how to build it beside llama-cpp-python.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import fewbit

TOOL = os.environ.get("LLAMA_PERPLEXITY") or shutil.which("llama-perplexity")
pytestmark = pytest.mark.skipif(not TOOL, reason="needs llama-perplexity (LLAMA_PERPLEXITY)")
CHUNKS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo as F32 and Q4_0, and its text."""
    folder = tmp_path_factory.mktemp("base")
    model = fewbit.load("demo")
    model.quantize("F32").save(folder / "f32.gguf")
    model.quantize("Q4_0").save(folder / "q4.gguf")
    (folder / "text.txt").write_text(fewbit.demo_text(), "utf-8")
    return folder


def llama_perplexity(folder: Path, model: str, *options: str, wanted: str) -> str:
    """What the tool prints; it may lose its last lines, so it runs until they are there."""
    command = [
        str(TOOL), "-m", str(folder / model), "-f", str(folder / "text.txt"), "-c", "512",
        "-b", "512", "-t", "1", "--chunks", str(CHUNKS), *options,
    ]  # fmt: skip
    for _ in range(5):
        ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        if wanted in ended.stdout + ended.stderr:
            return ended.stdout + ended.stderr
    raise AssertionError(f"no `{wanted}` in five runs")


def printed(text: str, label: str) -> float:
    found = re.search(rf"{label}\s*[:=]\s*(-?[\d.]+)", text)
    assert found, text
    return float(found[1])


def test_llama_perplexity_reads_a_file_of_fewbit(folder: Path) -> None:
    """Its KLD of Q4_0 has int8 activations of its own kind: within 2 % of fewbit's with f32."""
    quantized, base, text = fewbit.load(folder / "q4.gguf"), fewbit.load("demo"), fewbit.demo_text()
    path = folder / "ours.kld"
    ours = quantized.divergence(base, text, chunks=CHUNKS, acts="f32", save_base=path)
    options = ("--kl-divergence", "--kl-divergence-base", str(path))
    text = llama_perplexity(folder, "q4.gguf", *options, wanted="Same top p:")
    assert abs(printed(text, r"Mean\s+KLD") / ours.kld.value - 1) < 0.02
    assert abs(printed(text, r"Mean PPL\(base\)") / ours.ppl_base.value - 1) < 1e-5


def test_fewbit_reads_a_file_of_llama_perplexity(folder: Path) -> None:
    """The same model in f32 arithmetic of both: nothing but the 16 bits of the file remains."""
    path, model = folder / "theirs.kld", fewbit.load("demo")
    text = llama_perplexity(
        folder, "f32.gguf", "--kl-divergence-base", str(path), wanted="Final estimate"
    )
    found = model.divergence(path, fewbit.demo_text(), acts="f32")
    assert found.sample.chunks == CHUNKS
    assert 0 <= found.kld.value < 2e-6
    assert abs(found.ppl.value / printed(text, "PPL") - 1) < 1e-5
    assert abs(found.ln_ratio.value) < 2e-5
    like = model.divergence(path, acts="f32", formula="llama.cpp")
    assert abs(like.kld.value) < 2e-5


def test_both_compute_the_same_statistics_from_one_file(folder: Path) -> None:
    """F32 weights in both programs: llama.cpp's formula gives its printed digits."""
    path, model = folder / "q4.kld", fewbit.load("demo")
    model.divergence(
        fewbit.load(folder / "q4.gguf"), fewbit.demo_text(), chunks=CHUNKS, save_base=path
    )
    options = ("--kl-divergence", "--kl-divergence-base", str(path))
    text = llama_perplexity(folder, "f32.gguf", *options, wanted="Same top p:")
    found = model.divergence(path, acts="f32", formula="llama.cpp")
    assert abs(printed(text, r"Mean\s+KLD") - found.kld.value) < 1e-5
    assert abs(printed(text, r"Maximum KLD") - found.kld_percentiles[100.0]) < 1e-3
    assert abs(printed(text, r"Median\s+KLD") - found.kld_percentiles[50.0]) < 1e-5
    assert abs(printed(text, "Same top p") - 100 * found.same_top.value) < 0.15
