"""Commands that put questions to a model: benchmark, evaluate and next."""

from __future__ import annotations

import json as jsons
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fewbit.cli.options import (
    Device,
    FormatOptions,
    Json,
    Kv,
    ModelName,
    ModelOption,
    Threads,
    names_of,
    open_model,
)
from fewbit.cli.outputs import refuse_replacing
from fewbit.cli.progress import progress, stderr
from fewbit.cli.writing import RunActs
from fewbit.errors import InputError
from fewbit.files.replace import replacing
from fewbit.measure import harness, next_tokens
from fewbit.measure.multiple_choice.endpoint import Endpoint
from fewbit.measure.multiple_choice.results import Answers, Benchmark
from fewbit.measure.multiple_choice.run import BUDGET, ORIGINAL
from fewbit.measure.multiple_choice.run import benchmark as run_benchmark
from fewbit.reports import write as report
from fewbit.run.limits import activations_named

KEYS = ("FEWBIT_API_KEY", "OPENAI_API_KEY")


def benchmark(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Questions: CSV in GPQA's or MMLU's columns, or JSON lines.",
        ),
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", "-m", metavar="MODEL", show_default=False,
            help="A GGUF file, a Hugging Face folder or a hub name; several with one -m each. With "
            "--base-url the server's name of its model. The built-in demo if left out.",
        ),
    ] = None,
    format_: FormatOptions = None,
    base_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", show_default=False,
            help="Ask a server that speaks OpenAI's chat completions, such as "
            "http://127.0.0.1:8080/v1.",
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", show_default=False,
            help="File with the server's key (default: FEWBIT_API_KEY or OPENAI_API_KEY).",
        ),
    ] = None,
    answer_by: Annotated[
        str,
        typer.Option(
            metavar="WAY",
            help="text: read the letter that the model writes; likelihood: take the likeliest one.",
        ),
    ] = "text",
    prompt: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", show_default=False,
            help="zero-shot, cot (step by step), letter, or a file with a Jinja template of "
            "question, choices, letters, id and row (default: zero-shot; for likelihood letter).",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of the order of choices, and of answers above temperature 0.")
    ] = 0,
    keep_order: Annotated[
        bool, typer.Option("--keep-order", help="Leave the choices in the file's order.")
    ] = False,
    repeats: Annotated[
        int, typer.Option(metavar="N", help="Ask each question N times, in other orders.")
    ] = 1,
    temperature: Annotated[
        float, typer.Option(help="Randomness of answers; 0 always takes the likeliest token.")
    ] = 0.0,
    max_tokens: Annotated[
        int, typer.Option(metavar="N", help="Maximum number of tokens of an answer.")
    ] = 30000,
    reasoning_budget: Annotated[
        int | None,
        typer.Option(
            metavar="N", show_default=False,
            help=f"Tokens after which reasoning is ended; -1: never (default: {BUDGET:,}; sent to "
            "a server only if given).",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", show_default=False, help="Ask the first N questions only."),
    ] = None,
    parallel: Annotated[
        int | None,
        typer.Option(
            metavar="N", show_default=False,
            help="Answers written at once (default: as many as a quarter of the memory holds, at "
            "most 32; 8 requests to a server).",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", show_default=False,
            help="Folder that keeps each answer at once; the same command goes on from there.",
        ),
    ] = None,
    json_out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", show_default=False,
            help="Write all results as JSON, with the choices that were shown.",
        ),
    ] = None,
    show_questions: Annotated[
        bool,
        typer.Option(
            "--show-questions", help="Put the texts of questions and answers into the results."
        ),
    ] = False,
    acts: RunActs = "int8",
    threads: Threads = 0,
    device: Device = "auto",
    kv: Kv = "f32",
    json: Json = False,
) -> None:  # fmt: skip
    """Let a model answer multiple-choice questions, in one or several formats.

    Counts correct, incorrect and no answers with 95 % Wilson intervals, and compares formats
    question by question (McNemar's exact test). `-f original` is the model as it is. Choices are
    shuffled by seed and question, so that all formats see the same. An answer is what is stated
    last after the reasoning. Texts of questions leave the machine only for the server of
    --base-url, and are in no result without --show-questions.
    """
    kind, names = activations_named(acts), [_name(each) for each in names_of(format_ or ())]
    options = {
        "answer_by": answer_by, "prompt": prompt, "seed": seed, "keep_order": keep_order,
        "repeats": repeats, "temperature": temperature, "max_tokens": max_tokens,
        "reasoning_budget": reasoning_budget, "limit": limit, "parallel": parallel, "acts": kind,
        "out": out, "keep_texts": show_questions,
    }  # fmt: skip
    if json_out is not None:
        _check_output(json_out, file)
    found: list[Benchmark] = []
    named: Sequence[str | None] = model or [None]
    for name in named:
        asked = (
            _endpoint(base_url, name, api_key_file)
            if base_url is not None
            else open_model(name, None, threads, device, kv)
        )
        with progress("benchmark") as update:
            made = run_benchmark(asked, file, formats=names, progress=update, **options)  # type: ignore[arg-type]
        found.append(made if len(model or ()) < 2 else _named(made, str(name), bool(names)))
    result = Benchmark(tuple(a for each in found for a in each.answers), found[0].options)
    if json_out is not None:
        text = jsons.dumps(report.plain(result.facts(shown=True)), indent=1, ensure_ascii=False)
        with replacing(json_out) as temporary:
            temporary.write_text(text + "\n", "utf-8")
    if json:
        report.write_json(result.facts(shown=show_questions))
    else:
        report.show(*result.page(), *(result.listing() if show_questions else []))


def next_(
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help="Text after which tokens are predicted.")
    ],
    model: ModelOption = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format", "-f", "--formats", metavar="FORMAT", show_default=False,
            help="Formats beside the model as it is, for example Q8_0,Q4_0: with commas or one -f "
            "each.",
        ),
    ] = None,
    top: Annotated[int, typer.Option("--top", "-n", metavar="N", help="Tokens to list.")] = 10,
    acts: RunActs = "int8",
    threads: Threads = 0,
    device: Device = "auto",
    kv: Kv = "f32",
    json: Json = False,
) -> None:  # fmt: skip
    """Show the likeliest next tokens after a prompt, in several formats beside each other.

    Each format has its KL divergence from the model as it is, which runs with f32 activations.
    """
    names = [_name(name) for name in names_of(formats or ())]
    loaded = open_model(model, None, threads, device, kv)
    found = next_tokens.next_tokens(loaded, prompt, names, top, activations_named(acts))
    if json:
        report.write_json(found)
    else:
        report.show(*found.page())


def evaluate(
    model: ModelName = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            "--tasks", metavar="TASK,...", show_default=False,
            help="Tasks of lm-eval, with commas or one --tasks each, for example "
            "hellaswag,arc_easy.",
        ),
    ] = None,
    format_: FormatOptions = None,
    limit: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, show_default=False, help="Score the first N samples of each task."
        ),
    ] = None,
    num_fewshot: Annotated[
        int | None,
        typer.Option(
            metavar="K", min=0, show_default=False,
            help="Examples before each sample (default: the task's).",
        ),
    ] = None,
    apply_chat_template: Annotated[
        bool, typer.Option("--apply-chat-template", help="Ask by the model's chat template.")
    ] = False,
    include_path: Annotated[
        Path | None,
        typer.Option(metavar="DIR", show_default=False, help="Folder with tasks of your own."),
    ] = None,
    gen_kwargs: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=VALUE,...", show_default=False,
            help="Options of generation in place of the tasks' own.",
        ),
    ] = None,
    bos: Annotated[
        bool | None,
        typer.Option(
            "--bos/--no-bos", show_default=False,
            help="Begin texts with BOS or not (default: as the tokenizer does).",
        ),
    ] = None,
    parallel: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, show_default=False,
            help="Texts in each step (default: as many as a quarter of the memory holds, at most "
            "32).",
        ),
    ] = None,
    acts: RunActs = "int8",
    threads: Threads = 0,
    device: Device = "auto",
    kv: Kv = "f32",
    json: Json = False,
) -> None:  # fmt: skip
    """Score a model on tasks of lm-evaluation-harness, in one or several formats.

    Needs `pip install 'fewbit[eval]'`; neither torch nor transformers. Formats are compared sample
    by sample. `-f original` is the model as it is.
    """
    names = [_name(each) for each in names_of(format_ or ())]
    listed = [each.strip() for text in tasks or () for each in text.split(",") if each.strip()]
    loaded = open_model(model, None, threads, device, kv)
    with progress("evaluate") as update:
        found = harness.evaluate_tasks(
            loaded, listed, formats=names, limit=limit, num_fewshot=num_fewshot,
            apply_chat_template=apply_chat_template, include_path=include_path,
            gen_kwargs=gen_kwargs, add_bos=bos, acts=activations_named(acts), parallel=parallel,
            progress=update,
        )  # fmt: skip
    if json:
        report.write_json(found)
    else:
        report.show(*found.page())


def _name(format_: str) -> str:
    if format_.lower() == ORIGINAL:
        return ORIGINAL
    return format_.lower() if "sym" in format_.lower() else format_.upper()


def _check_output(output: Path, questions: Path) -> None:
    """Refuse a file that cannot be written before hours of work, and the file of questions."""
    refuse_replacing(output, [questions], force=False)
    if not output.absolute().parent.is_dir():
        raise InputError(
            f"there is no folder `{output.parent}`", hint="make it first", path=str(output)
        )


def _endpoint(url: str, name: str | None, key_file: Path | None) -> Endpoint:
    if name is None:
        raise InputError(
            "`--base-url` needs the server's name of its model", hint="name it with `--model`"
        )
    key = next((os.environ[each] for each in KEYS if os.environ.get(each)), None)
    if key_file is not None:
        key = key_file.read_text("utf-8").strip()
    found = Endpoint(url, name, key)
    if not found.local:
        stderr().print(f"note: the questions are sent to {url}", markup=False)
    return found


def _named(found: Benchmark, model: str, has_formats: bool) -> Benchmark:
    """The answers of one of several models, called by the model's name."""
    names: Sequence[Answers] = [
        Answers(f"{model} {each.name}" if has_formats else model, each.outcomes)
        for each in found.answers
    ]
    return Benchmark(tuple(names), found.options)
