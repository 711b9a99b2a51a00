"""The commands that encode on the fly: bench of several cases, inspect with `--format`."""

from __future__ import annotations

from pathlib import Path

from tests.cli.running import Fewbit


def test_bench_of_models_formats_and_threads_is_one_table(fewbit: Fewbit, tmp_path: Path) -> None:
    file = tmp_path / "small.gguf"
    assert fewbit("quantize", "demo", str(file), "-f", "Q4_0").code == 0
    line = ("bench", "demo", "-f", "Q8_0,Q4_0", "--threads", "1,2", "-p", "4", "-n", "2", "-r", "1")
    found = fewbit(*line, "--json").json
    assert [(b["model"], b["format"], b["threads"]) for b in found] == [
        ("demo", "Q8_0", 1), ("demo", "Q8_0", 2), ("demo", "Q4_0", 1), ("demo", "Q4_0", 2),
    ]  # fmt: skip
    assert all(rate["limit"] and rate["of_read_rate"] > 0 for b in found for rate in b["rates"])
    shown = fewbit("bench", "demo", str(file), *line[6:])
    rows = [row.split() for row in shown.out.splitlines() if " pp4 " in row or " tg2 " in row]
    assert [row[:3] for row in rows] == [
        ["demo", "BF16", "pp4"], ["demo", "BF16", "tg2"],
        ["small.gguf", "Q4_0", "pp4"], ["small.gguf", "Q4_0", "tg2"],
    ]  # fmt: skip


def test_inspect_encodes_first(fewbit: Fewbit, tmp_path: Path) -> None:
    """What `-f` shows is what a file quantized so holds."""
    file = tmp_path / "small.gguf"
    assert fewbit("quantize", "demo", str(file), "-f", "Q4_K_M").code == 0
    for options in (["--tensor", "attn_v", "--block", "3"], ["--tensor", "ffn_up.weight"]):
        stored = fewbit("inspect", str(file), *options, "--json").json
        assert fewbit("inspect", "-f", "q4_k_m", *options, "--json").json == stored
    tensors = {t["name"]: t for t in fewbit("inspect", str(file), "--json").json["tensors"]}
    encoded = fewbit("inspect", "-f", "Q4_K_M", "--json").json["tensors"]
    assert {t["name"]: t for t in encoded} == tensors
    assert (
        fewbit("inspect", "-f", "Q4_K_M", "--plan", "--json").json["sizes"]
        == (fewbit("inspect", str(file), "--plan", "--json").json["sizes"])
    )
