"""One table: a command line that cannot work, its exit code and its exact words."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewbit.cli import main as cli
from tests.golden.loading import MODELS

TABLE = [
    (
        "perplexity --text short.txt --ctx 8",
        1,
        "the text has 4 tokens, windows of 8 need at least 16",
        "use a longer text or a smaller window (`--ctx`), or `--stride` (`stride=`), which scores "
        "every token of any text",
    ),
    (
        "perplexity --ctx 20000",
        1,
        "the text has 24580 tokens, windows of 20000 need at least 40000",
        "use a longer text or a smaller window (`--ctx`), or `--stride` (`stride=`), which scores "
        "every token of any text",
    ),
    ("perplexity --ctx 3", 1, "a window of 3 tokens is too short", "use 4 or more"),
    (
        "perplexity --stride 512",
        1,
        "a stride of 512 tokens, expected 1 to 511",
        "the stride is shorter than the window (`--ctx`)",
    ),
    (
        "generate x --logit-bias 3",
        1,
        "`--logit-bias 3` is not an id with a number",
        "such as 15043+1, 15043-2.5 or 15043-inf",
    ),
    (
        "generate x -n 1 --logit-bias 4096+1",
        1,
        "logit bias of token 4096, the vocabulary has 4096 tokens",
        "ids run from 0 to 4095",
    ),
    ("generate x --dry-base 0.5", 1, "dry_base is 0.5, expected 1 or more", None),
    ("perplexity --chunks 0", 1, "cannot measure 0 chunks", "use 1 or more"),
    (
        "inspect --plan --tensor attn_q",
        1,
        "`--plan` cannot be combined with `--tensor` or `--block`",
        "use one of them",
    ),
    (
        "perplexity --acts int4",
        1,
        "unknown activations `int4`",
        "did you mean `int8`? known: f32, int8, both",
    ),
    (
        "perplexity --kv itn8",
        1,
        "unknown type of keys and values `itn8`",
        "did you mean `int8`? known: f32, f16, int8",
    ),
    (
        "perplexity --device cpuu",
        1,
        "unknown device `cpuu`",
        "did you mean `cpu`? known: auto, cpu, gpu, gpu:N",
    ),
    (
        "generate hi --acts in8",
        1,
        "unknown activations `in8`",
        "did you mean `int8`? known: f32, int8",
    ),
    (
        "inspect dem",
        1,
        "no model at `dem`",
        "did you mean `demo`? give a GGUF file, a Hugging Face folder, or a Hub repository as "
        "owner/repository",
    ),
    (
        "inspect empty/../jnk.gguf",
        1,
        "no model at `empty/../jnk.gguf`",
        "did you mean `empty/../junk.gguf`? give a GGUF file, a Hugging Face folder, or a Hub "
        "repository as owner/repository",
    ),
    (
        "bench --threads 1,x",
        1,
        "`--threads` takes comma-separated numbers, got `1,x`",
        "for example 1,2",
    ),
    (
        "bench --threads 1,-1",
        1,
        "the number of threads is -1, expected 0 to 1024",
        "0 takes one thread per core",
    ),
    (
        "perplexity --text latin1.txt",
        1,
        "`latin1.txt` is not UTF-8 text",
        "save the text as UTF-8",
    ),
    ("perplexity --text none.txt", 1, "no such file or directory: `none.txt`", "check the path"),
    (
        f"perplexity {MODELS / 'llama'}",
        1,
        "no text to measure on",
        "name a file with `--text FILE`, or `--text demo`",
    ),
    (
        "divergence",
        1,
        "nothing to compare with",
        "name a `--base MODEL`, a `--format` or a `--kv`",
    ),
    ("perplexity --kv f8", 1, "unknown type of keys and values `f8`", "known: f32, f16, int8"),
    ("compare --formats ,", 1, "`--format` names no format", "for example `--format Q8_0,Q4_0`"),
    ("generate hi -n 0", 1, "cannot make 0 tokens", "use 1 or more"),
    ("generate hi --temperature -1", 1, "temperature is -1.0, expected 0 or more", None),
    ("generate hi --top-p 2", 1, "top_p is 2.0, expected above 0, at most 1", None),
    (
        "chat --context 513",
        1,
        "a context of 513 tokens, expected 2 to 512",
        "the upper limit is the context that the model was trained with",
    ),
    (
        "bench -p 513",
        1,
        "cannot measure pp513: the model's context is 512 tokens",
        "use 0 to 512",
    ),
    (
        "inspect --tensor [",
        1,
        "`[` is not a regular expression: unterminated character set at position 0",
        "for example `--tensor 'blk.0.attn_q'`",
    ),
    (
        "quantize demo out.gguf -f Q4_0 --tensor-type attn_vv=Q8_0",
        1,
        "`--tensor-type attn_vv` matches no tensor",
        "did you mean `attn_v`? `fewbit inspect` lists the names",
    ),
    (
        "inspect --tensor blk.0.atn_q.weight",
        1,
        "no tensor matches `blk.0.atn_q.weight`",
        "did you mean `blk.0.attn_q.weight`? `fewbit inspect` lists the names",
    ),
    ("inspect --tensor nose", 1, "no tensor matches `nose`", "`fewbit inspect` lists the names"),
    (
        "inspect --block 3",
        1,
        "`--block 3` needs a tensor",
        "for example `--tensor 'blk.0.attn_q'`",
    ),
    (
        "inspect --tensor blk.0.attn_q --block 3",
        1,
        "`blk.0.attn_q.weight` is stored as BF16: single numbers, not blocks",
        "name a tensor that is stored in blocks; `fewbit inspect` lists the formats",
    ),
    (
        "inspect --format Q4_K --metadata",
        1,
        "`--metadata` goes with none of `--plan`, `--tensor`, `--block`, `--format`",
        "use one of them",
    ),
]


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("short.txt").write_text("Once upon a time")
    Path("latin1.txt").write_bytes(b"caf\xe9 " * 400)
    Path("empty").mkdir()
    Path("junk.gguf").write_bytes(b"junk" * 20)


@pytest.mark.parametrize(
    ("line", "code", "message", "hint"), TABLE, ids=[line for line, *_ in TABLE]
)
def test_what_cannot_work(
    line: str, code: int, message: str, hint: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    found = cli.run(line.split())
    captured = capsys.readouterr()
    expected = f"error: {message}\n" + (f"\nhint: {hint}\n" if hint else "")
    assert (captured.err, captured.out, found) == (expected, "", code)


@pytest.mark.parametrize("command", ["inspect", "perplexity --text short.txt", "bench"])
@pytest.mark.parametrize("file", ["none.gguf", "junk.gguf", "empty"])
def test_files_that_are_no_models_are_named(
    command: str, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *options = command.split()
    assert cli.run([name, file, *options]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert file in captured.err
    assert "\n\nhint: " in captured.err
    assert "unexpected" not in captured.err


@pytest.mark.parametrize(
    "line",
    [
        "perplexity --format Q9_9",
        "compare --formats Q8_0,Q9_9",
        "quantize demo out.gguf --format Q9_9",
    ],
)
def test_unknown_formats_are_named(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(line.split()) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: unknown ")
    assert "`Q9_9`\n\nhint: known: " in err
    assert not Path("out.gguf").exists()


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("bogus", "no such command 'bogus'", "`fewbit --help` lists the commands"),
        (
            "quantise demo",
            "no such command 'quantise'",
            "did you mean `quantize`? `fewbit --help` lists the commands",
        ),
        ("inspect --bogus", "no such option: --bogus", "`fewbit inspect --help` lists the options"),
        (
            "compare --detials",
            "no such option: --detials",
            "did you mean `--details`? `fewbit compare --help` lists the options",
        ),
        (
            "perplexity --ctx many",
            "invalid value for '--ctx'",
            "`fewbit perplexity --help` lists the options",
        ),
        (
            "perplexity --threads -1",
            "invalid value for '--threads'",
            "`fewbit perplexity --help` lists the options",
        ),
        ("generate", "missing argument 'PROMPT'", "`fewbit generate --help` lists the options"),
    ],
)
def test_wrong_command_lines_end_with_2(
    line: str, message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(line.split()) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {message}")
    assert err.endswith(f"\n\nhint: {hint}\n")


def test_a_prompt_beyond_the_context_leaves_stdout_empty(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.run(["generate", "word " * 3000]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "the context holds 512" in captured.err
