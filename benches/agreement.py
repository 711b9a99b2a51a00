"""Compare perplexity and KL divergence of a real model with llama-perplexity, and their time.

    python benches/agreement.py MODEL.gguf TEXT TOOL [CHUNKS] [FORMAT,...] > RUN.json

TOOL is llama-perplexity (CONTRIBUTING.md says how to build it). The model is widened to f32, so
that both programs compute in f32: what remains is the order of sums, and the 16 bits of the base
file that llama-perplexity writes and both read. Both then measure the quantized model against it,
each with its own int8 activations. With FORMATs, `fewbit compare` of the widened model over all of
them is timed, against one run of llama-perplexity on the model as it is. Times are wall
clock and processor seconds.
"""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fewbit

CTX = 512
LIST = "F16,Q8_0,Q6_K,Q5_1,Q5_0,Q4_1,Q4_0,Q4_K_M,Q3_K_M,IQ4_NL"


def timed(command: Sequence[str]) -> tuple[str, float, float]:
    """What a command prints, its wall clock and its processor seconds."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return ended.stdout + ended.stderr, time.perf_counter() - start, used


def printed(text: str, label: str) -> float | None:
    found = re.search(rf"{label}\s*[:=]\s*(-?[\d.]+)", text)
    return float(found[1]) if found else None


def main(model: str, text: str, tool: str, chunks: str = "4", formats: str = LIST) -> None:
    """Measure and print one JSON document."""
    with tempfile.TemporaryDirectory() as folder:
        wide, base = Path(folder, "f32.gguf"), Path(folder, "base.kld")
        fewbit.load(model).quantize("F32", requantize=True).save(wide)
        peer = [
            tool, "-f", text, "-c", str(CTX), "-b", str(CTX), "-t", "2", "--chunks", chunks,
            "-ctk", "f32", "-ctv", "f32", "-fa", "off", "--kl-divergence-base", str(base),
        ]  # fmt: skip
        out, *seconds = timed([*peer, "-m", str(wide)])
        result: dict[str, Any] = {
            "model": Path(model).name, "chunks": int(chunks), "ctx": CTX,
            "llama_cpp": {"ppl_f32": printed(out, "Final estimate: PPL"), "seconds_f32": seconds},
        }  # fmt: skip
        out, *seconds = timed([*peer, "-m", model, "--kl-divergence"])
        result["llama_cpp"] |= {
            "ppl": printed(out, r"Mean PPL\(Q\)"), "ppl_base": printed(out, r"Mean PPL\(base\)"),
            "kld": printed(out, r"Mean\s+KLD"), "kld_99": printed(out, r"99.0%\s+KLD"),
            "seconds": seconds,
        }  # fmt: skip
        own = fewbit.load(model)
        words = Path(text).read_text("utf-8")
        result["fewbit"] = {"ppl_f32": own.perplexity(words, chunks=int(chunks), acts="f32").ppl}
        for acts in ("f32", "int8"):
            for formula in ("fewbit", "llama.cpp"):
                found = own.divergence(base, acts=acts, formula=formula)
                result["fewbit"][f"{acts}, {formula}"] = {
                    "ppl": found.ppl.value, "ppl_base": found.ppl_base.value,
                    "kld": found.kld.value, "kld_99": found.kld_percentiles[99.0],
                    "kld_max": found.kld_percentiles[100.0], "same_top": found.same_top.value,
                }  # fmt: skip
        command = [
            sys.executable, "-m", "fewbit", "compare", str(wide), "-f", formats, "-t", text,
            "--chunks", chunks, "--json",
        ]  # fmt: skip
        if formats:
            _, *seconds = timed(command)
            result["compare"] = {"formats": formats.split(","), "seconds": seconds}
    result["fewbit"]["ppl_f32"] = result["fewbit"]["ppl_f32"].value
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main(*sys.argv[1:])
