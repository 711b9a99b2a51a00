"""The public API: full signatures, printed forms, and the life of a model."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from mypy import api as mypy

import fewbit
from fewbit import Model
from fewbit.errors import InputError
from fewbit.generation.conversation import texts_of
from tests.compare import same_bits

TEXT = "The old house was very quiet. " * 60


@pytest.fixture(scope="module")
def model() -> Model:
    return fewbit.load("demo", "cpu").quantize("Q4_0")


def public_callables() -> dict[str, Any]:
    """Functions of the package, and methods of its classes that are fewbit's own."""
    found: dict[str, Any] = {}
    for name in fewbit.__all__:
        value = getattr(fewbit, name)
        if inspect.isfunction(value):
            found[name] = value
        elif inspect.isclass(value) and not issubclass(value, BaseException):
            for key, method in inspect.getmembers(value, inspect.isfunction):
                if not key.startswith("_") and method.__module__.startswith("fewbit"):
                    found[f"{name}.{key}"] = method
    return found


@pytest.mark.parametrize("name", public_callables())
def test_signatures_name_every_option(name: str) -> None:
    function = public_callables()[name]
    signature = inspect.signature(function)
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD not in kinds
    assert signature.return_annotation is not inspect.Signature.empty
    assert function.__doc__


def test_mypy_catches_a_misspelled_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "program.py"
    lines = ['m.perplexity("x", chunk=3)', 'm.generate("x", maxtokens=3)', 'm.chat("x", stop=3)']
    program.write_text("import fewbit\nm = fewbit.load('demo')\n" + "\n".join(lines) + "\n")
    folder = Path(fewbit.__file__).parents[1]
    if folder.name != "site-packages":  # mypy finds what is installed by itself
        monkeypatch.setenv("MYPYPATH", str(folder))
    monkeypatch.chdir(tmp_path)
    out, _, code = mypy.run(["--strict", "--no-incremental", str(program)])
    assert code == 1
    for line, word in ((3, "chunk"), (4, "maxtokens"), (5, "stop")):
        assert f"program.py:{line}: error: " in out
        assert word in out


def test_no_public_name_is_shadowed_by_a_module() -> None:
    for info in pkgutil.walk_packages(fewbit.__path__, "fewbit."):
        if info.name not in ("fewbit.__main__", "fewbit.measure.harness_model"):  # needs lm-eval
            importlib.import_module(info.name)
    for name in fewbit.__all__:
        assert not isinstance(getattr(fewbit, name), ModuleType), name


def test_a_model_says_what_it_is(model: Model) -> None:
    loaded = fewbit.load("demo", "cpu")
    assert repr(loaded) == (
        "<fewbit.Model 'demo': llama, 4,196,608 weights, as stored, 16.00 bits per weight, cpu>"
    )
    assert "Q4_0, 5.03 bits per weight" in repr(model)


def test_closing_a_model_frees_its_weights() -> None:
    with fewbit.load("demo", "cpu") as model:
        before = model.logits([1, 2, 3])
        assert {"weights", "executor"} <= vars(model).keys()
    assert not {"weights", "executor"} & vars(model).keys(), "nothing else holds them"
    same_bits(model.logits([1, 2, 3]), before)


def test_a_tensor_has_its_shape_and_its_format_s_values(model: Model) -> None:
    name = "blk.0.attn_q.weight"
    values = model.tensor(name)
    assert values.shape == model.checkpoint.tensors[name].shape
    same_bits(values, fewbit.dequantize(model.data(name), model.formats[name], values.shape))
    with pytest.raises(InputError, match="the model has no tensor `attn_q`") as error:
        model.tensor("attn_q")
    assert "fewbit inspect" in str(error.value.hint)


def test_generation_takes_its_options_by_name(model: Model) -> None:
    def write(**options: Any) -> fewbit.Generation:
        made = model.generate("The old house", max_tokens=12, **options)
        assert str(made) == made.text
        return made

    greedy = write(temperature=0)
    assert greedy.text == write(sampling=fewbit.Sampling(temperature=0)).text
    assert write(temperature=1.5, seed=3).tokens == write(temperature=1.5, seed=3).tokens
    assert write(temperature=1.5, seed=3).tokens != write(temperature=1.5, seed=4).tokens
    base = fewbit.Sampling(temperature=1.5, seed=3)
    assert write(sampling=base, top_k=1).tokens == greedy.tokens, "options override a sampling"
    word = greedy.text.split()[2]
    assert write(temperature=0, stop=word).text == greedy.text[: greedy.text.index(word)]
    assert write(temperature=0, stop=["zzz", word]).finish == "stop"
    assert repr(greedy) == f"<fewbit Generation: 12 tokens, length: {greedy.text!r}>"


@pytest.mark.parametrize("token", [-1, 1 << 32, 4096])
def test_ids_out_of_range_are_refused(model: Model, token: int) -> None:
    with pytest.raises(InputError, match=r"ids must be|is not in the vocabulary"):
        str(model.generate([1, token], max_tokens=2))


def test_bytes_are_no_prompt(model: Model) -> None:
    with pytest.raises(InputError, match="the prompt is bytes, expected text or token ids"):
        model.generate(b"abc")  # type: ignore[arg-type]


def test_chat_takes_openai_s_messages(model: Model) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}],
        },
    ]
    reply = model.chat(messages, max_tokens=6, temperature=0)
    joined = [messages[0], {"role": "user", "content": "Hello"}]
    assert str(reply) == str(model.chat(joined, max_tokens=6, temperature=0)) == reply.text
    alone = [{"role": "user", "content": "Hello"}]
    assert str(model.chat("Hello", max_tokens=6, temperature=0)) == str(
        model.chat(alone, max_tokens=6, temperature=0)
    )
    assert reply.made.finish == "length"


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "there are no messages"),
        (["Hello"], "message 1 is 'Hello', expected a dict with `role` and `content`"),
        ([{"content": "x"}], "message 1 is {'content': 'x'}, expected a dict"),
        ([{"role": "user", "content": 7}], "the content of message 1 is 7, expected text"),
        (
            [
                {"role": "user", "content": "x"},
                {"role": "user", "content": [{"type": "image_url"}]},
            ],
            "message 2 has content of type `image_url`, expected `text`",
        ),
    ],
)
def test_messages_of_another_shape_are_refused(messages: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        texts_of(messages)
    assert message in error.value.message


def test_results_print_as_tables_and_show_as_html(model: Model) -> None:
    base = fewbit.load("demo", "cpu")
    results = [
        model.perplexity(TEXT, ctx=64, chunks=2),
        model.divergence(base, TEXT, ctx=64, chunks=2),
        fewbit.compare(base, ["Q4_0"], TEXT, ctx=64, chunks=2),
        fewbit.bench(model, prompt=8, generate=4, repetitions=1),
        fewbit.inspect("demo"),
    ]
    for result in results:
        text, html = str(result), result._repr_html_()
        assert len(text.splitlines()) > 2
        assert html.startswith(("<table>", "<pre>"))
        for cell in result.tables()[0].rows[0]:
            assert cell in text
    assert f"{results[0].ppl.value:.4f}" in str(results[0])


def test_the_built_in_model_has_a_name_and_a_text() -> None:
    assert fewbit.load("demo", "cpu").checkpoint.path == fewbit.DEMO
    assert fewbit.inspect("demo") == fewbit.inspect(fewbit.DEMO)
    with pytest.raises(InputError, match="there is no text to measure on"):
        fewbit.compare(fewbit.load(Path(__file__).parent / "golden" / "models" / "llama"), ["Q4_0"])


def test_a_file_named_demo_is_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("demo").write_bytes(b"junk" * 20)
    with pytest.raises(fewbit.FewbitError):
        fewbit.load("demo", "cpu")


def test_version() -> None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        assert fewbit.__version__ == version("fewbit")
    except PackageNotFoundError:
        pytest.skip("fewbit is run from its source folder, not installed")
    assert np.all([part.isdigit() for part in fewbit.__version__.split(".")])
