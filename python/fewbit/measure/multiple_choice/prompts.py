"""Prompts of multiple-choice questions: those that fewbit has, or a Jinja template of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fewbit.errors import InputError, did_you_mean
from fewbit.measure.multiple_choice.questions import Asked

_QUESTION = """\
{{ question }}

{% for letter, text in choices.items() -%}
({{ letter }}) {{ text }}
{% endfor %}
"""
PROMPTS = {
    "zero-shot": _QUESTION
    + 'Which choice is correct? Reply with one line of the form "Answer: LETTER".',
    "cot": _QUESTION
    + "Which choice is correct? Work it out step by step, then give your choice on a last line of "
    'the form "Answer: LETTER".',
    "letter": "{{ question }}\n"
    "{% for letter, text in choices.items() %}{{ letter }}. {{ text }}\n{% endfor %}Answer:",
}
"""Templates by name; scoring by likelihood puts each letter behind "letter"."""
_MOST = 1_000_000


class Prompt:
    """A template of `question`, `choices` (texts by letter), `letters`, `id` and `row`."""

    def __init__(self, name: str) -> None:
        """Take the prompt called `name`, or the template in the file of that name.

        Raises:
            InputError: there is neither, or the template is not valid Jinja.

        """
        import jinja2
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        source = PROMPTS.get(name)
        if source is None:
            source = _read(name)
        environment = ImmutableSandboxedEnvironment(
            undefined=jinja2.StrictUndefined, keep_trailing_newline=False
        )
        self.name, self.source = name, source
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise InputError(f"the prompt `{name}` is not a template: {error}") from None

    def render(self, asked: Asked) -> str:
        """The prompt of one question.

        Raises:
            InputError: the template fails, or writes nothing or too much.

        """
        question = asked.question
        values: dict[str, Any] = {
            "question": question.text, "choices": asked.choices, "letters": list(asked.letters),
            "id": question.id, "row": dict(question.row),
        }  # fmt: skip
        try:
            text = self._template.render(values)
        except Exception as error:  # a template can raise anything
            raise InputError(
                f"the prompt `{self.name}` fails for question `{question.id}`: {error}",
                hint="it sees question, choices (texts by letter), letters, id and row",
            ) from None
        if not text.strip() or len(text) > _MOST:
            raise InputError(
                f"the prompt `{self.name}` of question `{question.id}` has {len(text)} characters"
            )
        return text


def _read(name: str) -> str:
    path = Path(name)
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise InputError(
            f"no prompt is called `{name}`, nor can a file of that name be read",
            hint=f"{did_you_mean(name, PROMPTS)}known: {', '.join(PROMPTS)}, or a template's file",
        ) from None
