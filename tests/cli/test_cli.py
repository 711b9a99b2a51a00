"""Each subcommand on the built-in model: what goes to stdout, to stderr, and the exit code."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fewbit.cli import main as cli
from fewbit.cli.options import complete_format
from fewbit.demo import DEMO
from fewbit.recipes.mixtures import FILE_TYPES
from tests.cli.running import Fewbit
from tests.golden.loading import asset

COMMANDS = (
    "inspect", "formats", "explain", "float", "round", "quantize", "calibrate", "verify",
    "perplexity", "divergence", "compare", "sweep", "imatrix", "outliers", "sensitivity",
    "benchmark", "evaluate", "next", "generate", "chat", "plot", "bench", "report", "devices",
)  # fmt: skip
SHORT = ("--ctx", "64", "--chunks", "2")


def process(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "fewbit", *arguments],
        stdout=options.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_inspect_shows_what_is_in_the_file(fewbit: Fewbit) -> None:
    ended = fewbit("inspect")
    assert (ended.code, ended.err) == (0, "")
    lines = [line.rstrip() for line in ended.out.splitlines()]
    assert lines[:6] == [
        f"path           {DEMO}",
        "architecture   llama",
        "shape          4 layers, width 256, ffn 768, 4/2 heads of 64",
        "vocabulary     4096 tokens, BOS 0, EOS 0, BOS added: no, chat template: no",
        "context        512 tokens, rope base 10000, scaling none",
        "weights        4,196,608 in 8,393,216 bytes, 16.000 bits per weight",
    ]
    assert "blk.3.ffn_down.weight     256 x 768   BF16             16.000" in lines
    assert "BF16         38  4,196,608  8,393,216" in lines


def test_inspect_shows_how_values_lie(fewbit: Fewbit) -> None:
    ended = fewbit("inspect", "--tensor", "blk.0.attn_q.weight")
    assert ended.out.splitlines()[:4] == [
        "blk.0.attn_q.weight  [256 x 256]  BF16",
        "  min -0.58594  max 0.60547  mean 0.0005181  deviation 0.12339",
        "  percentiles  0.1 %: -0.4082  1 %: -0.2949  5 %: -0.2012  25 %: -0.08008  "
        "50 %: 0.0005493  75 %: 0.08105  95 %: 0.2041  99 %: 0.2949  99.9 %: 0.416",
        "  outliers beyond  3σ: 0.467 %  4σ: 0.0259 %  6σ: 0 %  10σ: 0 %",
    ]
    (found,) = fewbit("inspect", "--tensor", "blk.0.attn_q.weight", "--json").json
    assert sum(found["counts"]) == 65_536


def test_inspect_json(fewbit: Fewbit) -> None:
    found = fewbit("inspect", "--json").json
    assert found["config"]["kv_heads"] == 2
    assert found["formats"] == [
        {"format": "BF16", "tensors": 38, "weights": 4_196_608, "bytes": 8_393_216}
    ]
    assert len(found["tensors"]) == 38


def test_inspect_lists_the_plan(fewbit: Fewbit) -> None:
    ended = fewbit("inspect", "--plan")
    assert (ended.code, ended.err) == (0, "")
    lines = [" ".join(line.split()) for line in ended.out.splitlines()]
    assert lines[0] == f"{DEMO}: llama, 64 ops, for n new tokens"
    assert lines[2] == "value op of shape bytes bytes/token"
    assert "%0 embed token_embd.weight (4096 x 256 BF16) [n, 256] 2,097,152 512" in lines
    assert "%7 attend %5, %6, %4, layer=0, heads=4, kv_heads=2, scale=0.125, window=0 [n, 256]" in (
        lines
    )
    assert "%63 linear %62, token_embd.weight (4096 x 256 BF16) [n, 4096] 2,097,152 2,097,152" in (
        lines
    )
    assert lines[-1].startswith("4,196,608 weights in 8,393,216 bytes; a token reads 8,3")
    found = fewbit("inspect", "--plan", "--json").json
    assert found["sizes"]["bytes"] == 8_393_216
    assert found["steps"][63]["weights"][0]["shape"] == [4096, 256]
    assert found["steps"][63]["bytes"] == 2_097_152


def test_quantize_writes_what_format_encodes_in_memory(fewbit: Fewbit, tmp_path: Path) -> None:
    file = tmp_path / "q.gguf"
    ended = fewbit("quantize", "demo", str(file), "--format", "Q8_0")
    assert ended.code == 0
    summary = "tensors: 8,393,216 to 4,465,664 bytes (53.2%), 16.00 to 8.51 bits per weight, in "
    assert re.fullmatch(re.escape(summary) + r"\d+\.\d\d s\n", ended.err)
    assert ended.out.startswith(f"{file}: {file.stat().st_size:,} bytes, 4,196,608 weights, 8.5")
    assert list(tmp_path.iterdir()) == [file]
    text = str(DEMO / "demo.txt")
    (stored,) = fewbit("perplexity", str(file), "--text", text, *SHORT, "--json").json
    (encoded,) = fewbit("perplexity", "--format", "Q8_0", *SHORT, "--json").json
    assert stored["ppl"] == encoded["ppl"]
    assert fewbit("quantize", "demo", str(file), "-f", "Q4_0", "--json").json["bytes"] == (
        file.stat().st_size
    )


@pytest.mark.skipif(os.name == "nt", reason="limits of POSIX")
def test_a_file_that_cannot_be_whole_is_not_left_behind(tmp_path: Path) -> None:
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    arguments = ("quantize", "demo", str(tmp_path / "q.gguf"), "--format", "Q8_0")
    with process(*arguments, preexec_fn=limit) as running:
        assert running.stderr is not None
        text = running.stderr.read()
    assert running.returncode == 1
    assert text.startswith("error: file too large")
    assert list(tmp_path.iterdir()) == []


def test_perplexity_has_a_line_per_kind_of_activations(fewbit: Fewbit) -> None:
    ended = fewbit("perplexity", *SHORT, "--acts", "both", "--format", "Q8_0")
    assert (ended.code, ended.err) == (0, "")
    lines = [line.split() for line in ended.out.splitlines() if line.strip()]
    assert lines[0] == ["acts", "PPL", "±", "ln", "PPL", "±", "bits/byte", "tokens/s"]
    assert [line[0] for line in lines[2:4]] == ["f32", "int8"]
    assert lines[2][1] != lines[3][1]
    assert ended.out.splitlines()[-1] == "2 windows of 64 tokens, 62 tokens scored"


def test_perplexity_json_and_text(fewbit: Fewbit, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_bytes((DEMO / "demo.txt").read_bytes() + b"\n")
    (own,) = fewbit("perplexity", *SHORT, "--json").json
    (same,) = fewbit("perplexity", str(DEMO), "--text", str(text), *SHORT, "--json").json
    assert own["ppl"] == same["ppl"]
    assert own["sample"]["tokens"] == 62


def test_the_demo_s_text_by_name(fewbit: Fewbit, tmp_path: Path) -> None:
    file = tmp_path / "small.gguf"
    assert fewbit("quantize", "demo", str(file), "-f", "Q8_0").code == 0
    (named,) = fewbit("perplexity", str(file), "--text", "demo", *SHORT, "--json").json
    (own,) = fewbit("perplexity", "demo", "-f", "Q8_0", *SHORT, "--json").json
    (found,) = fewbit("perplexity", str(file), *SHORT, "--json").json
    assert named["ppl"] == own["ppl"] == found["ppl"]
    assert fewbit("divergence", str(file), "--base", "demo", *SHORT).code == 0
    (folder,) = fewbit("perplexity", str(DEMO), "-f", "Q8_0", *SHORT, "--json").json
    assert folder["ppl"] == own["ppl"]


def test_formats_lists_formats_and_mixtures(fewbit: Fewbit) -> None:
    found = fewbit("formats", "--json").json["recipes"]
    recipes = {recipe["name"]: recipe for recipe in found}
    assert set(FILE_TYPES) <= set(recipes)
    assert recipes["Q4_K_M"]["main_format"] == "Q4_K"
    assert recipes["Q4_K_M"]["format_bits"] == 4.5
    # llama-quantize --help gives 4.58 GiB of Llama 3 8B, which has 8,030,261,248 weights
    assert recipes["Q4_K_M"]["model_bits"] == pytest.approx(4.58 * 2**33 / 8_030_261_248, abs=0.01)
    assert recipes["IQ2_XXS"]["needs_imatrix"]
    assert not recipes["IQ4_XS"]["needs_imatrix"]
    shown = fewbit("formats").out
    assert all(name in shown for name in recipes)


def test_divergence_of_a_format_from_the_model_itself(fewbit: Fewbit) -> None:
    found = fewbit("divergence", "--format", "Q4_0", *SHORT, "--json").json
    assert [result["acts"] for result in found] == ["f32", "int8"]
    assert all(result["base_acts"] == "f32" for result in found)
    assert 0.01 < found[0]["kld"]["value"] < 0.1
    assert list(found[0]["kld_percentiles"]) == [
        "100", "99.9", "99", "95", "90", "50", "10", "5", "1", "0.1", "0",
    ]  # fmt: skip
    against = fewbit(
        "divergence", "--base", str(DEMO), "--format", "Q4_0", *SHORT, "--acts", "f32", "--json"
    ).json
    assert against[0]["kld"] == found[0]["kld"]


def test_compare_has_a_row_per_format(fewbit: Fewbit) -> None:
    ended = fewbit("compare", "--formats", "Q8_0, q4_0", *SHORT)
    assert (ended.code, ended.err) == (0, "")
    rows = [line.split() for line in ended.out.splitlines() if line.startswith(("BF16", "Q"))]
    *rows, paired = rows
    assert [row[0] for row in rows] == ["BF16", "Q8_0", "Q4_0"]
    assert paired[::2][:2] == ["Q4_0", "Q8_0"], "each is compared with the one before"
    assert rows[0][4:6] == ["0.00000", "100.00"]
    assert float(rows[1][4]) < float(rows[2][4]), "4 bits lose more than 8"
    assert ended.out.splitlines()[-1] == "2 windows of 64 tokens, 62 tokens scored"


def test_imatrix_is_collected_written_and_used(fewbit: Fewbit, tmp_path: Path) -> None:
    found = tmp_path / "i.gguf"
    ended = fewbit("imatrix", "-o", str(found), *SHORT)
    assert ended.code == 0
    assert ended.out == f"{found}: 28 entries of 128 tokens\n"
    assert ended.err == "warning: 128 tokens are few: 10,000 and more tell columns apart\n"
    small = tmp_path / "m.gguf"
    assert fewbit("quantize", "demo", str(small), "-f", "IQ2_XS", "--imatrix", str(found)).code == 0
    again = fewbit("imatrix", str(small), "-o", str(found), "-t", __file__, "--json", *SHORT)
    assert again.json == {
        "path": str(found), "entries": 28, "chunks": 2, "tokens": 128, "unseen": [],
    }  # fmt: skip


def test_generate_streams_the_prompt_and_its_continuation(fewbit: Fewbit) -> None:
    ended = fewbit("generate", "The king", "--temperature", "0", "-n", "12", "--acts", "f32")
    assert ended.code == 0
    assert ended.out == "The king of the kingdom was the king of the kingdom of\n"
    assert ended.err.startswith("2 tokens read (")
    assert ", 12 written (" in ended.err


def test_generate_repeats_itself_by_seed(fewbit: Fewbit) -> None:
    texts = {
        seed: fewbit("generate", "Once", "--seed", seed, "-n", "20").out for seed in ("1", "2")
    }
    assert fewbit("generate", "Once", "--seed", "1", "-n", "20").out == texts["1"] != texts["2"]
    assert ", seed 1\n" in fewbit("generate", "Once", "--seed", "1", "-n", "2").err


def test_generate_json(fewbit: Fewbit) -> None:
    found = fewbit(
        "generate", "The king", "--temperature", "0", "-n", "12", "--acts", "f32", "--json"
    ).json
    assert found["text"] == " of the kingdom was the king of the kingdom of"
    assert (found["finish"], found["tokens"], found["prompt_tokens"]) == ("length", 12, 2)


def test_generate_says_when_the_context_is_full(fewbit: Fewbit) -> None:
    ended = fewbit("generate", "The king", "--temperature", "0", "-n", "9999", "--acts", "f32")
    assert ended.code == 0
    assert ", 511 written (" in ended.err, "510 fit after the prompt, one more needs no room"
    assert ended.err.endswith("\nthe text ends here because the context is full\n")


def test_quantize_warns_of_what_the_file_cannot_describe(fewbit: Fewbit, tmp_path: Path) -> None:
    folder, file = str(asset("gpt_oss-mxfp4").parent), tmp_path / "q.gguf"
    ended = fewbit("quantize", folder, str(file), "--format", "MXFP4_MOE")
    assert ended.code == 0
    assert ended.err.startswith(
        "warning: GGUF cannot describe a YaRN range that is not rounded: llama.cpp rounds it, so "
        "its results differ slightly from those of the folder\ntensors: 190,872 to 131,824 bytes "
    )
    assert file.exists()


def test_chat_answers_each_line(fewbit: Fewbit, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "Hello\n\n/reset\nHello\nAgain\n/exit\nnever read\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    ended = fewbit("chat", "--temperature", "0", "-n", "8", "--json")
    answers = [json.loads(line) for line in ended.out.splitlines()]
    assert ended.err == "forgotten\n"
    assert len(answers) == 3
    assert [answer["reasoning"] for answer in answers] == ["", "", ""]
    assert answers[0]["text"] == answers[1]["text"], "after /reset all is as at the start"
    assert answers[2]["prompt_tokens"] > answers[1]["prompt_tokens"] + answers[1]["tokens"]


def test_bench_measures_both_and_the_memory(fewbit: Fewbit) -> None:
    found = fewbit("bench", "-p", "16", "-n", "4", "-r", "2", "--json").json
    assert [(rate["name"], len(rate["samples"])) for rate in found["rates"]] == [
        ("pp16", 2),
        ("tg4", 2),
    ]
    assert found["read_rate"] > 0.1
    assert found["rates"][0]["gb_per_second"] is None
    assert found["rates"][1]["gb_per_second"] > 0


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(fewbit: Fewbit, command: str) -> None:
    ended = fewbit(command, "--help")
    assert fewbit(command, "-h") == ended
    assert (ended.code, ended.err) == (0, "")
    assert f"fewbit {command}" in ended.out
    assert "--json" in ended.out


def test_help_without_arguments(fewbit: Fewbit) -> None:
    ended = fewbit()
    assert (ended.code, ended.err) == (2, "")
    assert all(command in ended.out for command in COMMANDS)


def test_shells_complete_commands() -> None:
    words = {"_FEWBIT_COMPLETE": "complete_bash", "COMP_WORDS": "fewbit q", "COMP_CWORD": "1"}
    with process(env={**os.environ, **words}) as running:
        assert running.stdout is not None
        assert running.stdout.read().split() == ["quantize"]


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("q4_k", ["Q4_K_S", "Q4_K_M"]),
        ("Q8_0,TQ", ["Q8_0,TQ1_0", "Q8_0,TQ2_0"]),
        ("X", []),
    ],
)
def test_shells_complete_formats(typed: str, found: list[str]) -> None:
    assert complete_format(typed) == found


def test_a_closed_pipe_ends_quietly() -> None:
    with process("inspect", "--json") as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == ""
    assert running.returncode == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_said() -> None:
    with Path("/dev/full").open("w") as full, process("inspect", "--json", stdout=full) as running:
        assert running.stderr is not None
        text = running.stderr.read()
    assert text == (
        "error: no space left on device\n\n"
        "hint: free some space or write elsewhere; nothing was left behind\n"
    )
    assert running.returncode == 1


@pytest.mark.skipif(os.name == "nt", reason="descriptors of POSIX")
def test_closed_streams_have_messages_of_their_own(tmp_path: Path) -> None:
    def ends(line: str) -> tuple[int, str]:
        command = f'exec "$0" -m fewbit {line}'
        done = subprocess.run(["sh", "-c", command, sys.executable], capture_output=True, text=True)
        return done.returncode, done.stderr

    code, err = ends("formats Q4_0 >&-")
    assert code == 1
    assert err == (
        "error: bad file descriptor\n\n"
        "hint: stdout is closed: redirect it to a file or to the null device\n"
    )
    assert ends("chat -n 2 <&-") == (0, "")
    assert ends(f"quantize demo '{tmp_path}/out.gguf' -f Q8_0 2>&-") == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["out.gguf"]


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_an_interrupt_is_one_line(tmp_path: Path) -> None:
    """The text comes through a pipe that stays open until the signal is on its way.

    A signal that comes just before a read is seen only when the read ends, hence the end.
    """
    text = tmp_path / "text"
    os.mkfifo(text)
    with process("perplexity", "--text", str(text)) as running, text.open("w") as endless:
        assert running.stderr is not None
        endless.write("Once upon a time")
        endless.flush()
        running.send_signal(signal.SIGINT)
        endless.close()
        assert running.stderr.read() == "interrupted\n"
    assert running.returncode == 130


def test_a_defect_asks_to_be_reported(fewbit: Fewbit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewbit.reports.write.write_json", lambda value: 1 / 0)
    ended = fewbit("inspect", "--json")
    assert ended.code == 1
    assert ended.err == (
        "error: unexpected ZeroDivisionError: division by zero\n\n"
        "hint: this is a defect; FEWBIT_DEBUG=1 shows where it comes from\n"
    )
    monkeypatch.setenv("FEWBIT_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        cli.run(["inspect", "--json"])


def test_windows_beyond_the_model_s_context_are_noted(fewbit: Fewbit) -> None:
    ended = fewbit("perplexity", "--ctx", "600", "--chunks", "1", "--json")
    assert ended.err == "note: windows of 600 tokens, the model was made for 512\n"
    assert ended.json[0]["sample"]["tokens"] == 299
