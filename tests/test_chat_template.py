"""Chat templates in the style of the Hugging Face Hub, and templates that fail."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from fewbit.errors import InputError
from fewbit.files.checkpoint import open_checkpoint
from fewbit.tokenizer import template as child
from fewbit.tokenizer.load import tokenizer_of as load_tokenizer
from fewbit.tokenizer.template import render
from tests.golden.loading import MODELS

CHATML = (
    "{% for message in messages %}\n"
    "    {{- '<|im_start|>' + message['role'] + '\\n' }}\n"
    "    {{- message.content | trim + '<|im_end|>\\n' -}}\n"
    "{% endfor %}\n"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
MESSAGES = [{"role": "system", "content": "Be brief. "}, {"role": "user", "content": "Hello"}]


def rendered(template: str) -> str:
    tokenizer = load_tokenizer(open_checkpoint(MODELS / "llama"))
    return render(dataclasses.replace(tokenizer, chat_template=template), MESSAGES)


def test_a_template_of_the_hub() -> None:
    assert rendered(CHATML) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )


def test_functions_that_templates_use() -> None:
    assert rendered("{{ bos_token }}|{{ eos_token }}") == "<|begin_of_text|>|<|eot_id|>"
    assert len(rendered("{{ strftime_now('%Y') }}")) == 4
    assert rendered("{% for m in messages %}{% break %}{% endfor %}x") == "x"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('no system message') }}", "no system message"),
        ("{% if %}", "Expected an expression"),
        ("{{ messages[0].content + 1 }}", "can only concatenate str"),
        ("{{ ''.__class__.__mro__ }}{{ [].append(1) }}", "unsafe"),
    ],
)
def test_templates_that_fail(template: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        rendered(template)
    assert caught.value.message.startswith("the model's chat template fails: ")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ 'a' * 10**10 }}", "too much memory"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "without end"),
        ("{% for i in range(10**9) %}a{% endfor %}", "Range too big"),
        ("{% for i in range(10**5) %}{{ 'a' * 1000 }}{% endfor %}", "characters"),
        ("{{ [1]|tojson(indent=10**10) }}", "."),
        ("{{ 2.0 ** (messages|length * 1000) }}", "out of range"),
    ],
)
def test_templates_without_bounds(template: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        rendered(template)
    assert rendered("x") == "x"


@pytest.mark.parametrize("limit", ["_SECONDS", "_WAIT"])
def test_a_template_without_end(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    child._RENDERER.close()  # a process keeps the limits of its start
    monkeypatch.setattr(child, limit, 0.5)
    loop = "{% for i in range(99999) %}"
    with pytest.raises(InputError, match="no end in"):
        rendered(loop * 3 + "{% endfor %}" * 3)
    monkeypatch.undo()
    assert rendered("x") == "x"


def test_tags_and_filters_of_transformers() -> None:
    assert rendered("a{% generation %}{{ 1 + 1 }}{% endgeneration %}b") == "a2b"
    assert rendered("{{ {'b': 'é<', 'a': 1}|tojson(sort_keys=true) }}") == '{"a": 1, "b": "é<"}'
    assert rendered("{{ 'x' if tools is none and documents is none }}") == "x"


def test_options_and_tools_reach_the_template() -> None:
    tokenizer = load_tokenizer(open_checkpoint(MODELS / "llama"))
    template = "{{ 'no' if enable_thinking is false }} {{ tools[0].name }}"
    tokenizer = dataclasses.replace(tokenizer, chat_template=template)
    options = {"enable_thinking": False}
    written = render(tokenizer, MESSAGES, tools=[{"name": "clock"}], chat_template_kwargs=options)
    assert written == "no clock"
    with pytest.raises(InputError, match="must be JSON"):
        render(tokenizer, MESSAGES, chat_template_kwargs={"x": object()})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tools": ["x"]}, "tools are ['x'], expected a list of dicts"),
        ({"tools": {"name": "f"}}, "tools are {'name': 'f'}, expected a list of dicts"),
        ({"chat_template_kwargs": 3}, "chat_template_kwargs is 3, expected a dict"),
    ],
)
def test_shapes_of_options(options: dict[str, Any], message: str) -> None:
    tokenizer = load_tokenizer(open_checkpoint(MODELS / "llama"))
    with pytest.raises(InputError) as caught:
        render(dataclasses.replace(tokenizer, chat_template="x"), MESSAGES, **options)
    assert caught.value.message == message


@pytest.mark.parametrize(
    "part", ["{% if c['type'] == 'text' %}{{ c['text'] }}{% endif %}", "{{ c.type[:0] + c.text }}"]
)
def test_a_template_that_knows_only_lists_of_parts(part: str) -> None:
    """Templates of models with images may read no text that is not in a part."""
    loop = f"{{% for c in m.content %}}{part}{{% endfor %}}"
    template = f"{{% for m in messages %}}[{{{{ m.role }}}}]{loop}{{% endfor %}}"
    assert rendered(template) == "[system]Be brief. [user]Hello"


def test_a_template_that_writes_content_otherwise_has_it_as_text() -> None:
    template = "{% if messages[0].type is defined %}x{% endif %}{{ messages[1].content | upper }}"
    assert rendered(template) == "HELLO"
