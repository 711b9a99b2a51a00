"""Chat templates in the style of the Hugging Face Hub, and templates that fail."""

from __future__ import annotations

import dataclasses

import pytest

from fewbit.errors import InputError
from fewbit.files.checkpoint import open_checkpoint
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
