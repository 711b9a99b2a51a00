"""lm-eval's tasks in process: scores are those of the model, formats are compared in pairs."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fewbit
from fewbit.errors import UnsupportedError
from fewbit.measure import harness

HAS_LM_EVAL = all(importlib.util.find_spec(name) for name in ("lm_eval", "datasets"))
needs_lm_eval = pytest.mark.skipif(
    not HAS_LM_EVAL, reason="lm-eval is not installed: pip install 'fewbit[eval]'"
)
ENDS = [" stood on the hill.", " ran into the garden.", " blue the and and.", " it it it was."]
TASKS = {
    "choice": """\
task: choice
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/choice.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{context}}"
doc_to_choice: "{{choices}}"
doc_to_target: gold
target_delimiter: ""
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    "texts": """\
task: texts
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/choice.jsonl}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{context}}{{choices[0]}}"
metric_list: [{metric: byte_perplexity}]
""",
    "write": """\
task: write
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/choice.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{context}}"
doc_to_target: "{{greedy}}"
generation_kwargs: {until: ["."], max_gen_toks: 6}
metric_list: [{metric: exact_match}]
""",
}


def docs(model: fewbit.Model) -> list[dict[str, Any]]:
    contexts = ["The old house", "A small dog", "My brother", "Her letter"]
    return [
        {
            "context": context, "choices": ENDS[i:] + ENDS[:i], "gold": i,
            "greedy": str(model.generate(context, max_tokens=6, temperature=0, stop=".")),
        }
        for i, context in enumerate(contexts)
    ]  # fmt: skip


@needs_lm_eval
def test_scores_are_those_of_the_model(tmp_path: Path) -> None:
    model = fewbit.load("demo", "cpu")
    rows = docs(model)
    (tmp_path / "choice.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name, text in TASKS.items():
        (tmp_path / f"{name}.yaml").write_text(text.replace("FOLDER", str(tmp_path)))
    command = [
        sys.executable, "-m", "fewbit", "evaluate", "demo", "--tasks", "choice,texts", "--tasks",
        "write", "--include-path", str(tmp_path), "-f", "original,Q2_K", "--json",
    ]  # fmt: skip
    offline = {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    ended = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **offline}, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = json.loads(ended.stdout)
    scores = {(s["task"], s["metric"], s["format"]): s for s in found["scores"]}
    pairs = [(row["context"], end) for row in rows for end in row["choices"]]
    logprobs = [score.logprob for score in model.score(pairs)]
    groups = [logprobs[i : i + 4] for i in range(0, 16, 4)]
    right = [
        max(range(4), key=g.__getitem__) == r["gold"] for g, r in zip(groups, rows, strict=True)
    ]
    assert scores["choice", "acc", "BF16"]["score"]["value"] == sum(right) / 4
    assert scores["write", "exact_match", "BF16"]["score"]["value"] == 1
    assert scores["choice", "acc", "BF16"]["samples"] == 4
    texts = [row["context"] + row["choices"][0] for row in rows]
    begin = model.tokenizer.bos if model.tokenizer.bos is not None else model.tokenizer.eos
    total = sum(
        score.logprob
        for score in model.score([([begin], model.tokenizer.encode(text)) for text in texts])
    )
    size = sum(len(text.encode()) for text in texts)
    value = scores["texts", "byte_perplexity", "BF16"]["score"]["value"]
    assert value == pytest.approx(math.exp(-total / size), rel=1e-12)
    assert {(d["first"], d["second"]) for d in found["differences"]} == {("BF16", "Q2_K")}
    assert found["truncated"] == 0


@needs_lm_eval
def test_an_unknown_task_is_one_message() -> None:
    command = [sys.executable, "-m", "fewbit", "evaluate", "demo", "--tasks", "no_such_task"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "error: lm-eval fails" in ended.stderr
    assert "no_such_task" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_missing_lm_eval_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedError) as caught:
        harness.evaluate_tasks(fewbit.load("demo"), ["hellaswag"])
    assert "`lm_eval` is not installed" in caught.value.message
    assert caught.value.hint is not None
    assert "fewbit[eval]" in caught.value.hint


def results(values: list[float], other: list[float]) -> dict[str, Any]:
    samples = [
        {"doc_id": i, "filter": "none", "acc": a, "len": b, "metrics": ["acc", "len"]}
        for i, (a, b) in enumerate(zip(values, other, strict=True))
    ]
    mean = sum(values) / len(values)
    return {
        "results": {"t": {"alias": "t", "acc,none": mean, "acc_stderr,none": 0.25}},
        "samples": {"t": samples},
    }


def test_formats_are_compared_sample_by_sample() -> None:
    found = {
        "BF16": results([1, 1, 0, 0, 1.0], [2, 3, 4, 5, 6]),
        "Q4_0": results([1, 0, 0, 0, 0.0], [2, 3, 4, 5, 8]),
    }
    scores = list(harness._scores(found))
    assert [(s.metric, s.format, s.score.value, s.samples) for s in scores] == [
        ("acc", "BF16", 0.6, 5),
        ("acc", "Q4_0", 0.2, 5),
    ]
    acc, length = harness._differences(found)
    assert (acc.metric, acc.flips, acc.p) == ("acc", 2, pytest.approx(0.5))
    assert acc.difference.value == pytest.approx(-0.4)
    assert acc.difference.error == pytest.approx(math.sqrt(0.3 / 5))
    assert (length.metric, length.flips, length.p) == ("len", None, None)
    assert length.difference.value == pytest.approx(0.4)
