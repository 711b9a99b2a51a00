"""Options that say how tokens are drawn, shared by the commands that write text."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import secrets
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeAlias, get_type_hints

import typer

from fewbit.api import Model
from fewbit.cli.progress import stderr
from fewbit.errors import InputError
from fewbit.generation.defaults import recommended, sampling_for
from fewbit.run.sampling import Sampling, sampling_from

Given: TypeAlias = dict[str, Any]
"""Options of `Sampling` as the command line gives them; None where it does not."""

PENALTIES = "Penalties on repetition"


def _option(kind: Any, help_: str, panel: str | None = None, metavar: str | None = None) -> Any:
    option = typer.Option(help=help_, show_default=False, rich_help_panel=panel, metavar=metavar)
    return Annotated[kind | None, option]


_OPTIONS = {
    "temperature": _option(
        float,
        "Randomness of the choice; 0 always takes the likeliest token (default: the model's, or "
        "0.8).",
    ),
    "top_k": _option(
        int, "Choose among the k likeliest tokens; 0 means all (default: the model's, or 40)."
    ),
    "top_p": _option(
        float,
        "Choose among the fewest tokens whose probabilities reach p; 1 means all "
        "(default: the model's, or 0.95).",
    ),
    "min_p": _option(
        float,
        "Leave out tokens below this fraction of the likeliest one's probability "
        "(default: the model's, or 0.05).",
    ),
    "seed": _option(int, "Seed of the random choice; the same seed writes the same text."),
    "logit_bias": _option(
        list[str],
        "Add a number to the logit of a token: ID+N, ID-N, or ID-inf to forbid it; can be "
        "repeated.",
        metavar="ID+N",
    ),
    "repeat_penalty": _option(
        float,
        "Divide positive logits of tokens that occurred by this, multiply others (default: the "
        "model's, or 1, which is off).",
        PENALTIES,
    ),
    "repeat_last_n": _option(
        int,
        "Last tokens of prompt and text that the repeat, presence and frequency penalties see; -1 "
        "means all (default: 64).",
        PENALTIES,
    ),
    "presence_penalty": _option(
        float,
        "Subtract this once from logits of tokens that occurred (default: the model's, or 0).",
        PENALTIES,
    ),
    "frequency_penalty": _option(
        float,
        "Subtract this from a token's logit for each occurrence (default: the model's, or 0).",
        PENALTIES,
    ),
    "dry_multiplier": _option(
        float,
        "DRY: subtract this times base ^ (n - allowed length) from a token that continues a "
        "repetition of n tokens (default: 0, which is off; often 0.8).",
        PENALTIES,
    ),
    "dry_base": _option(float, "DRY: base of the penalty (default: 1.75).", PENALTIES),
    "dry_allowed_length": _option(
        int, "DRY: shortest repetition in tokens that costs something (default: 2).", PENALTIES
    ),
    "dry_penalty_last_n": _option(
        int, "DRY: last tokens that are searched; -1 means all (default).", PENALTIES
    ),
    "dry_sequence_breaker": _option(
        list[str],
        r'DRY: text that no repetition reaches across; can be repeated (default: \n, :, " and *); '
        "`none` means there is none.",
        PENALTIES,
        "TEXT",
    ),
}  # fmt: skip


def with_sampling(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` the options of `Sampling` in place of its parameter `given`.

    Options out of range are refused before the command begins.
    """
    signature = inspect.signature(command)
    own = get_type_hints(command, include_extras=True)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    added = [
        inspect.Parameter(name, kind, default=None, annotation=option)
        for name, option in _OPTIONS.items()
    ]

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        given = _read({name: arguments.pop(name, None) for name in _OPTIONS})
        sampling_from(None, **given)  # refuses before the model is loaded
        command(**arguments, given=given)

    parameters: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        parameters += added if name == "given" else [parameter.replace(annotation=own[name])]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def _read(options: Given) -> Given:
    """The options with those that are texts read."""
    breakers = options.pop("dry_sequence_breaker")
    if breakers:
        texts = tuple(text.replace("\\n", "\n").replace("\\t", "\t") for text in breakers)
        options["dry_sequence_breakers"] = () if texts == ("none",) else texts
    if options["logit_bias"]:
        options["logit_bias"] = dict(_bias(text) for text in options["logit_bias"])
    return options


def _bias(text: str) -> tuple[int, float]:
    found = re.fullmatch(r"\s*(\d+)\s*=?\s*([+-]?[\w.+-]+)\s*", text)
    if found is not None and (found[2][0] in "+-" or "=" in text):
        try:
            return int(found[1]), float(found[2])
        except ValueError:
            pass
    raise InputError(
        f"`--logit-bias {text}` is not an id with a number",
        hint="such as 15043+1, 15043-2.5 or 15043-inf",
    )


def sampling_of(model: Model, given: Given) -> Sampling:
    """The options given, else those the model's files recommend, told if not ours, else ours.

    A seed is drawn if none is given, so that it can be printed and reused.
    """
    seed = secrets.randbits(32) if given["seed"] is None else given["seed"]
    sampling = sampling_for(model.checkpoint, None, **{**given, "seed": seed})
    ours = dataclasses.asdict(Sampling())
    used = {
        name: value
        for name, value in recommended(model.checkpoint).items()
        if given[name] is None and getattr(sampling, name) == value != ours[name]
    }
    if used and not sampling.greedy:
        said = ", ".join(f"{name.replace('_', '-')} {value:g}" for name, value in used.items())
        stderr().print(f"sampling as the model recommends: {said}")
    return sampling


def facts_of(sampling: Sampling) -> Given:
    """The options of a sampling for JSON; a bias of -inf is the text "-inf", as JSON lacks it."""
    facts = dataclasses.asdict(sampling)
    bias: Sequence[tuple[int, float]] = tuple(sampling.logit_bias.items())
    facts["logit_bias"] = {token: f"{v:g}" if v == -float("inf") else v for token, v in bias}
    return facts
