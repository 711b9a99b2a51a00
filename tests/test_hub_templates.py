"""Chat templates in the manner of families on the hub: tools, several systems, lists, reasoning.

Each is a short one of our own that uses the constructs of its family's: macros, namespaces, slices,
tests, filters, methods of texts, loop controls, the date, and `raise_exception`.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from fewbit.errors import InputError
from fewbit.files.checkpoint import open_checkpoint
from fewbit.generation.conversation import Message, texts_of
from fewbit.tokenizer.load import tokenizer_of
from fewbit.tokenizer.template import render
from tests.golden.loading import MODELS

FOLDER = Path(__file__).parent / "templates"
QWEN3, LLAMA3, GEMMA3, MISTRAL, SMOLLM3, PHI4, GPT_OSS = (
    (FOLDER / f"{name}.jinja").read_text("utf-8").removesuffix("\n")
    for name in ("qwen3", "llama3", "gemma3", "mistral", "smollm3", "phi4", "gpt_oss")
)
TOKENIZER = tokenizer_of(open_checkpoint(MODELS / "llama"))
BOS = "<|begin_of_text|>"

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "units": {"type": "array", "items": {"enum": ["°C", "°F"]}},
            },
            "required": ["city"],
        },
    },
}
SYSTEM = {"role": "system", "content": "Be brief."}
USER = {
    "role": "user",
    "content": [{"type": "text", "text": "Rain in "}, {"type": "text", "text": "Oslo?"}],
}
CALLED = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {
            "id": "000000001",
            "type": "function",
            "function": {"name": "weather", "arguments": '{"city": "Ås"}'},
        }
    ],
}
RESULT = {"role": "tool", "tool_call_id": "000000001", "content": "dry"}
ANSWER = {"role": "assistant", "content": "No."}


def written(
    template: str,
    messages: list[Message],
    tools: list[dict[str, Any]] | None = None,
    **options: Any,
) -> str:
    tokenizer = dataclasses.replace(TOKENIZER, chat_template=template)
    return render(tokenizer, texts_of(messages), tools=tools, chat_template_kwargs=options)


def test_qwen_3() -> None:
    start, end = "<|im_start|>", "<|im_end|>\n"
    asked = f"{start}user\nRain in Oslo?{end}"
    again = {"role": "system", "content": "And kind."}
    assert written(QWEN3, [SYSTEM, again, USER], enable_thinking=False) == (
        f"{start}system\nBe brief.{end}{start}system\nAnd kind.{end}{asked}"
        f"{start}assistant\n<think>\n\n</think>\n\n"
    )
    thinking = {**CALLED, "reasoning": "Hm."}
    assert written(QWEN3, [USER, thinking, RESULT, RESULT], [TOOL]) == (
        f"{start}system\n<tools>\n{json.dumps(TOOL, ensure_ascii=False)}\n</tools>{end}{asked}"
        f"{start}assistant\n<think>\nHm.\n</think>\n\n"
        f'\n<tool_call>\n{{"name": "weather", "arguments": {{"city": "Ås"}}}}\n</tool_call>{end}'
        f"{start}user\n<tool_response>\ndry\n</tool_response>\n<tool_response>\ndry"
        f"\n</tool_response>{end}{start}assistant\n"
    )
    past = {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nNo."}
    assert f"{start}assistant\nNo.{end}" in written(QWEN3, [USER, past, USER])


def test_llama_3() -> None:
    def turn(role: str, text: str) -> str:
        return f"<|start_header_id|>{role}<|end_header_id|>\n\n{text}"

    asked, result = turn("user", "Rain in Oslo?<|eot_id|>"), '"dry"<|eot_id|>'
    found = written(LLAMA3, [SYSTEM, USER, CALLED, RESULT], [TOOL])
    assert found == (
        f"{BOS}{turn('system', 'TTrueBe brief.<|eot_id|>')}{asked}"
        '{"name": "weather", "parameters": {"city": "Ås"}}<|eot_id|>'
        f"{turn('ipython', result)}{turn('assistant', '')}"
    )
    assert written(LLAMA3, [USER], date_string="today").startswith(
        f"{BOS}{turn('system', 'False<')}"
    )
    two = {**CALLED, "tool_calls": CALLED["tool_calls"] * 2}  # type: ignore[operator]
    with pytest.raises(InputError) as caught:
        written(LLAMA3, [USER, two])
    assert caught.value.message == "the model's chat template fails: one call at a time"


def test_gemma_3() -> None:
    assert written(GEMMA3, [SYSTEM, USER, ANSWER, USER]) == (
        f"{BOS}<start_of_turn>user\nBe brief.\n\nRain in Oslo?<end_of_turn>\n"
        "<start_of_turn>model\nNo.<end_of_turn>\n"
        "<start_of_turn>user\nRain in Oslo?<end_of_turn>\n<start_of_turn>model\n"
    )
    for wrong in ([USER, USER], [ANSWER], [SYSTEM, SYSTEM, USER]):
        with pytest.raises(InputError, match="fails: roles must alternate"):
            written(GEMMA3, list(wrong))


def test_mistral() -> None:
    more = {"role": "user", "content": "Snow?"}
    assert written(MISTRAL, [SYSTEM, USER, CALLED, RESULT, ANSWER, more], [TOOL]) == (
        f"{BOS}[INST]Rain in Oslo?[/INST]"
        '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Ås"}, "id": "000000001"}]'
        '<|eot_id|>[TOOL_RESULTS]{"content": dry, "call_id": "000000001"}[/TOOL_RESULTS]No.'
        '<|eot_id|>[AVAILABLE_TOOLS]["weather"][/AVAILABLE_TOOLS][INST]Be brief.\n\nSnow?[/INST]'
    )
    with pytest.raises(InputError, match="fails: unknown role"):
        written(MISTRAL, [SYSTEM, SYSTEM, USER])


def test_smollm_3() -> None:
    quiet = {"role": "system", "content": "Be brief. /no_think"}
    assert written(SMOLLM3, [quiet, USER, ANSWER, USER]) == (
        "<|im_start|>system\nMode: /no_think\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nRain in Oslo?<|im_end|>\n<|im_start|>assistant\nNo.<|im_end|>\n"
        "<|im_start|>user\nRain in Oslo?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n"
    )
    assert written(SMOLLM3, [USER]).endswith("<|im_start|>assistant\n")
    assert written(SMOLLM3, [USER], enable_thinking=False).endswith("</think>\n")


def test_phi_4() -> None:
    told = {**SYSTEM, "tools": '[{"name": "weather"}]'}
    assert written(PHI4, [told, SYSTEM, USER]) == (
        '<|system|>Be brief.<|tool|>[{"name": "weather"}]<|/tool|><|end|>'
        "<|system|>Be brief.<|end|><|user|>Rain in Oslo?<|end|><|assistant|>"
    )


def test_gpt_oss() -> None:
    thinking = {**CALLED, "reasoning_content": "Hm."}
    found = written(GPT_OSS, [SYSTEM, USER, thinking, RESULT], [TOOL], reasoning_effort="high")
    assert found == (
        "<|start|>system<|message|>Reasoning: high<|end|><|start|>developer<|message|>Be brief."
        '\ntype weather = (_: {city: string, units?: "°C" | "°F"[]}) => any;<|end|>'
        "<|start|>user<|message|>Rain in Oslo?<|end|>"
        "<|start|>assistant<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
        ' to=functions.weather<|channel|>commentary json<|message|>{"city": "Ås"}<|call|>'
        '<|start|>functions.weather to=assistant<|channel|>commentary<|message|>"dry"<|end|>'
        "<|start|>assistant"
    )
    with pytest.raises(InputError, match="fails: a result without a call"):
        written(GPT_OSS, [USER, RESULT])


def test_no_messages() -> None:
    with pytest.raises(InputError, match="there are no messages"):
        written(QWEN3, [])
    for template in (QWEN3, LLAMA3, GEMMA3, MISTRAL, SMOLLM3, PHI4, GPT_OSS):
        assert written(template, [{"role": "user", "content": ""}])
