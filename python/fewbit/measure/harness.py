"""Run tasks of lm-evaluation-harness in this process, in one or several formats."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from fewbit.callbacks import Progress
from fewbit.errors import FewbitError, InputError, UnsupportedError
from fewbit.measure.candidates import base_name
from fewbit.measure.multiple_choice.run import ORIGINAL
from fewbit.measure.proportions import mcnemar
from fewbit.measure.results import Estimate
from fewbit.run.limits import Activations
from fewbit.run.model import LoadedModel
from fewbit.tables import Page, Shown, Table


@dataclass(frozen=True)
class TaskScore:
    """A metric of a task in one format: its value and standard error as lm-eval computes them."""

    task: str
    metric: str
    format: str
    score: Estimate
    samples: int


@dataclass(frozen=True)
class TaskDifference:
    """Second minus first format on the same samples: mean difference with its standard error.

    For metrics of 0 and 1, `flips` counts the samples that differ, and `p` is the p value of
    McNemar's exact test; both are None for others.
    """

    task: str
    metric: str
    first: str
    second: str
    difference: Estimate
    flips: int | None
    p: float | None


@dataclass(frozen=True)
class Evaluation(Shown):
    """The scores of tasks in several formats, and their differences sample by sample.

    `rule` says how texts begin; `truncated` counts contexts that lost their beginning.
    """

    scores: tuple[TaskScore, ...]
    differences: tuple[TaskDifference, ...]
    rule: str
    truncated: int

    def page(self) -> Page:
        """As `fewbit evaluate` prints it."""
        table = Table(("task", "metric", "format", "score", "±", "samples"), text=3)
        for each in self.scores:
            error = "" if math.isnan(each.score.error) else f"{each.score.error:.4f}"
            cells = (f"{each.score.value:.4f}", error, str(each.samples))
            table.add_row(each.task, each.metric, each.format, *cells)
        lines = [self.rule]
        if self.truncated:
            lines.append(f"{self.truncated} contexts were too long and lost their beginning")
        paired: Page = ["", _difference_table(self.differences)] if self.differences else []
        return [table, "", *lines, *paired]


def _difference_table(differences: Sequence[TaskDifference]) -> Table:
    table = Table(
        ("task", "metric", "second - first", "difference", "±", "flips", "McNemar p"), text=3
    )
    for d in differences:
        exact = ("", "") if d.p is None else (str(d.flips), f"{d.p:.4g}")
        cells = (f"{d.difference.value:+.4f}", f"{d.difference.error:.4f}", *exact)
        table.add_row(d.task, d.metric, f"{d.second} - {d.first}", *cells)
    return table


def evaluate_tasks(
    model: LoadedModel,
    tasks: Sequence[str],
    *,
    formats: Sequence[str] = (),
    limit: int | None = None,
    num_fewshot: int | None = None,
    apply_chat_template: bool = False,
    include_path: Path | None = None,
    gen_kwargs: str | None = None,
    add_bos: bool | None = None,
    acts: Activations = "int8",
    parallel: int | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a model on lm-eval's `tasks`, in each of `formats` ("original": as it is).

    Options are those of `lm_eval.simple_evaluate`; `limit` takes the first samples of each task,
    `include_path` is a folder with tasks of one's own. Data sets are loaded by lm-eval. `add_bos`
    None begins texts as the tokenizer does.

    Raises:
        UnsupportedError: lm-eval is not installed.
        InputError: a task is unknown, or fails; the message is lm-eval's.
        FormatError: a format is unknown, or weights cannot be stored in it.

    """
    for name in ("lm_eval", "datasets"):
        if importlib.util.find_spec(name) is None:
            raise UnsupportedError(
                f"`{name}` is not installed", hint="pip install 'fewbit[eval]' brings lm-eval"
            )
    if not tasks:
        raise InputError("no task is named", hint="for example `--tasks hellaswag,arc_easy`")
    options = {
        "tasks": list(tasks), "limit": limit, "num_fewshot": num_fewshot,
        "apply_chat_template": apply_chat_template, "gen_kwargs": gen_kwargs,
    }  # fmt: skip
    found: dict[str, Mapping[str, Any]] = {}
    rule, truncated = "", 0
    names = list(formats) or [ORIGINAL]
    chosen = {name: model if name == ORIGINAL else model.quantize(name) for name in names}
    for done, (name, used) in enumerate(chosen.items()):
        if progress:
            progress(done, len(names), name)
        from fewbit.measure.harness_model import FewbitLM  # imports lm-eval

        harness = FewbitLM(used, acts=acts, add_bos=add_bos, parallel=parallel)
        label = base_name(used) if name == ORIGINAL else name
        found[label] = _simple_evaluate(harness, options, include_path)
        rule, truncated = harness.rule, truncated + harness.truncated
        if used is not model:
            used.close()
    return Evaluation(tuple(_scores(found)), tuple(_differences(found)), rule, truncated)


def _simple_evaluate(
    harness: object, options: Mapping[str, Any], include_path: Path | None
) -> Mapping[str, Any]:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
            manager = TaskManager(include_path=None if include_path is None else str(include_path))
            found: Mapping[str, Any] | None = simple_evaluate(
                model=harness, task_manager=manager, bootstrap_iters=1000, log_samples=True,
                **options,
            )  # fmt: skip
    except (FewbitError, OSError, MemoryError):
        raise
    except Exception as error:  # tasks are programs, which can raise anything
        raise InputError(
            f"lm-eval fails with {type(error).__name__}: {error}",
            hint="`lm_eval ls tasks` lists the tasks; data sets need the network once",
        ) from error
    assert found is not None
    return found


def _scores(found: Mapping[str, Mapping[str, Any]]) -> Iterator[TaskScore]:
    first = next(iter(found.values()))
    for task, metrics in first["results"].items():
        for key in metrics:
            name, _, filter_ = key.partition(",")
            if not filter_ or name.endswith("_stderr"):
                continue
            for format_, results in found.items():
                values = results["results"][task]
                error = values.get(f"{name}_stderr,{filter_}")
                error = float(error) if isinstance(error, int | float) else math.nan
                count = len(results.get("samples", {}).get(task, ()))
                metric = name if filter_ == "none" else f"{name} ({filter_})"
                estimate = Estimate(float(values[key]), error)
                yield TaskScore(task, metric, format_, estimate, count)


def _differences(found: Mapping[str, Mapping[str, Any]]) -> Iterator[TaskDifference]:
    for first, second in combinations(found, 2):
        for task, samples in found[first]["samples"].items():
            others = found[second]["samples"][task]
            for metric in samples[0]["metrics"] if samples else ():
                pairs = _pairs(samples, others, metric)
                if pairs:
                    yield _difference(task, metric, first, second, pairs)


def _pairs(
    samples: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]], metric: str
) -> list[tuple[float, float]]:
    """The values of a metric for each sample, where they are numbers."""

    def key(sample: Mapping[str, Any]) -> tuple[object, object]:
        return sample["doc_id"], sample.get("filter")

    known = {key(sample): sample.get(metric) for sample in others}
    pairs = [(sample.get(metric), known.get(key(sample))) for sample in samples]
    return [
        (float(a), float(b))
        for a, b in pairs
        if isinstance(a, int | float) and isinstance(b, int | float)
    ]


def _difference(
    task: str, metric: str, first: str, second: str, pairs: Sequence[tuple[float, float]]
) -> TaskDifference:
    changes = [b - a for a, b in pairs]
    count = len(changes)
    mean = sum(changes) / count
    variance = sum((each - mean) ** 2 for each in changes) / max(count - 1, 1)
    estimate = Estimate(mean, math.sqrt(variance / count) if count > 1 else math.nan)
    if any(value not in (0, 1) for pair in pairs for value in pair):
        return TaskDifference(task, metric, first, second, estimate, None, None)
    lost, won = sum(each < 0 for each in changes), sum(each > 0 for each in changes)
    return TaskDifference(
        task, metric, first, second, estimate, lost + won, mcnemar(lost, won)
    )  # fmt: skip
