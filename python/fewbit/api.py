"""What users call: `load` a model, and everything that a `Model` can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from fewbit.callbacks import Progress
from fewbit.convert.quantization import Quantization, quantized
from fewbit.convert.split import split_of
from fewbit.demo import DEMO, demo_or
from fewbit.errors import InputError
from fewbit.files.checkpoint import Checkpoint, open_checkpoint
from fewbit.files.tensor_file import open_tensors
from fewbit.generation.conversation import Message, Reply, reply_to
from fewbit.generation.defaults import default_sampling, sampling_for
from fewbit.generation.text import Generation, Session, generate
from fewbit.improve.model import ImprovableModel
from fewbit.measure import base_files, collect, evaluate, speed
from fewbit.measure.base_files import Formula
from fewbit.measure.collect import CollectedImatrix
from fewbit.measure.many import BatchedModel
from fewbit.measure.results import Divergence, Perplexity
from fewbit.measure.speed import Bench
from fewbit.recipes.choose import Options
from fewbit.run.device import Device
from fewbit.run.limits import Activations, KvType
from fewbit.run.model import Importance, LoadedModel
from fewbit.run.sampling import Sampling


def load(
    path: str | PathLike[str],
    device: str = "auto",
    *,
    recipe: str | None = None,
    threads: int = 0,
    kv: KvType = "f32",
    progress: Progress | None = None,
) -> Model:
    """Load the model at `path`: a Hugging Face folder, a GGUF file, or a name on the hub.

    "demo" is the small model that comes with the package, unless a file or folder is called so.
    With `recipe` the model is quantized while it loads. `threads` 0 means all cores. `device` is
    "cpu", "gpu", "gpu:N" for the Nth adapter of `fewbit devices`, or "auto": a discrete card if
    there is one, else the CPU. `kv` is the element type of its KV caches: "f32", "f16" in half the
    memory, or "int8" in a quarter, with a scale for each head and token.

    Raises:
        InputError: there is no such model.
        FileFormatError: a file is damaged.
        UnsupportedError: fewbit does not know the architecture, a format, or the device.
        DeviceError: the card is not available.

    """
    chosen = Device(device)
    checkpoint = open_checkpoint(demo_or(path))
    model = Model(
        checkpoint, threads=threads, kv=kv, progress=None if recipe else progress, device=chosen
    )
    return model.quantize(recipe, progress=progress) if recipe else model


def quantize_file(
    source: str | PathLike[str],
    path: str | PathLike[str],
    recipe: str,
    imatrix: Importance | None = None,
    *,
    options: Options | None = None,
    requantize: bool = False,
    split_max_size: str | None = None,
    split_max_tensors: int | None = None,
    threads: int = 0,
    progress: Progress | None = None,
) -> list[Path]:
    """Write the model at `source` to the GGUF file `path`, its tensors stored as `recipe` says.

    `source` is what `load` takes, or any other GGUF file with matrices: of an architecture that
    fewbit does not run, a vision projector, an adapter. Tensors are chosen by name and shape, all
    metadata are kept. Options are those of `Model.quantize` and `Model.save`; returns the paths of
    the files.

    Raises:
        InputError: there is no such model, or it holds nothing to quantize.
        FileFormatError: a file is damaged.
        FormatError: the recipe is unknown, needs an importance matrix, or cannot hold a weight.
        UnsupportedError: the model is quantized already and `requantize` is False, or a folder has
            an unknown architecture.
        OSError: a file cannot be written.

    """
    split = split_of(split_max_size, split_max_tensors)
    made = quantized(
        open_tensors(demo_or(source)), recipe, imatrix,
        options=options, requantize=requantize, threads=threads,
    )  # fmt: skip
    return made.save(path, split=split, progress=progress)


class Model(ImprovableModel, BatchedModel):
    """A language model: quantize it, save it, measure it, write and talk with it.

    `load` makes one. `config` has its numbers, `plan` its ops, `formats` the format of each
    tensor, `sizes` its bytes; `tensor(name)` gives the values of one tensor. `improvement` is what
    `quantize` has gained with more effort than "fast", else None.
    """

    def save(
        self,
        path: str | PathLike[str],
        *,
        split_max_size: str | None = None,
        split_max_tensors: int | None = None,
        progress: Progress | None = None,
    ) -> list[Path]:
        """Write a GGUF file that fewbit and llama.cpp load; a failure leaves no file behind.

        With `split_max_size` ("500M", "2G") or `split_max_tensors` the model is written in pieces,
        NAME-00001-of-00003.gguf and so on. Returns the paths of the files. Warns of what GGUF
        cannot describe, if the file then predicts something slightly different.

        Raises:
            FormatError: GGUF cannot hold one of the formats.
            InputError: a size of pieces is not valid.
            UnsupportedError: GGUF cannot describe something that the model does not run without.
            OSError: the file cannot be written.

        """
        split = split_of(split_max_size, split_max_tensors)
        stored = Quantization(
            self.checkpoint, self.formats, self.recipe, self._importance, self._threads
        )
        return stored.save(path, split=split, progress=progress)

    def perplexity(
        self,
        text: str,
        *,
        ctx: int = 512,
        chunks: int | None = None,
        stride: int | None = None,
        acts: Activations = "int8",
        progress: Progress | None = None,
    ) -> Perplexity:
        """Measure the perplexity of `text`, as ``llama-perplexity`` does.

        The text is cut into windows of `ctx` tokens. The first `chunks` of them (default: all) are
        measured; the second half of each is scored. `acts` is what products do to their
        activations: "int8" rounds them, "f32" does not.

        With a `stride` windows overlap, each `stride` tokens behind the last, and every token of
        the text is scored once; a text that one window holds is scored as a whole.

        >>> import fewbit
        >>> model = fewbit.load("demo")
        >>> short = model.perplexity("Once upon a time there was a girl.", stride=256)
        >>> short.sample.tokens
        8

        Raises:
            InputError: the text is too short for two windows, with a `stride` for one token to
                score, or an option is out of range.

        """
        return evaluate.perplexity(self, text, ctx, chunks, acts, progress, stride)

    def divergence(
        self,
        base: LoadedModel | str | PathLike[str],
        text: str | None = None,
        *,
        ctx: int = 512,
        chunks: int | None = None,
        acts: Activations = "int8",
        base_acts: Activations = "f32",
        save_base: str | PathLike[str] | None = None,
        top: int | None = None,
        formula: Formula = "fewbit",
        progress: Progress | None = None,
    ) -> Divergence:
        """Compare predictions with `base`'s: KL divergence, perplexity ratio, same top token.

        Windows and options are those of `perplexity`; `base_acts` is the base's `acts`. With
        `save_base` the base's predictions are written into a file: llama.cpp's kind of base file,
        or, with `top` or a name that ends in `.fbkld`, a compact one of the `top` likeliest tokens
        of each row (default: a tenth of the full file).

        `base` may also be the path of such a file, or of one that ``llama-perplexity
        --kl-divergence-base`` wrote. Then there is no `text`: the file holds its tokens, and `ctx`
        and `base_acts` are the file's. `formula` "llama.cpp" takes its probabilities as stored.

        Raises:
            InputError: as `perplexity`, the vocabularies differ, or options contradict each other.
            FileFormatError: the base file is damaged.

        """
        if not isinstance(base, LoadedModel):
            return base_files.divergence_from_path(
                self, base, text, chunks, acts, save_base, top, formula, progress
            )
        if text is None:
            raise InputError("there is no text to measure on", hint="give one as `text`")
        return base_files.divergence_saving(
            self, base, text, ctx, chunks, acts, base_acts, save_base, top, progress
        )

    def imatrix(
        self,
        text: str,
        *,
        ctx: int = 512,
        chunks: int | None = None,
        output: bool = False,
        dataset: str = "",
        progress: Progress | None = None,
    ) -> CollectedImatrix:
        """Collect an importance matrix from `text`: how much each column of each tensor counts.

        It is a mapping that `quantize` takes. With `output` the output layer's columns count too;
        `dataset` names the text in a saved file.

        Raises:
            InputError: the text is too short for two windows.
            UnsupportedError: the model runs on a card, which collects none.

        """
        return collect.imatrix(
            self, text, ctx, chunks, output=output, dataset=dataset, progress=progress
        )

    @property
    def sampling(self) -> Sampling:
        """How `generate` and `chat` draw tokens unless told otherwise.

        It is what the model's files recommend (generation_config.json, or `general.sampling` keys
        of GGUF), with fewbit's defaults for the rest. `dataclasses.replace` changes some options.
        """
        return default_sampling(self.checkpoint)

    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int = 256,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repeat_penalty: float | None = None,
        presence_penalty: float | None = None,
        frequency_penalty: float | None = None,
        logit_bias: Mapping[int, float] | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        sampling: Sampling | None = None,
        acts: Activations = "int8",
        session: Session | None = None,
        skip_special: bool = True,
        prompt_cache: str | PathLike[str] | None = None,
    ) -> Generation:
        """Write text that continues `prompt`, a text or token ids.

        Iterate over the result for pieces of text as they are made, or take `str(...)` of it for
        all of it. The text ends at an end token, at one of the `stop` strings (left out of the
        text), after `max_tokens` tokens, or when the context is full. A `session` keeps its KV
        cache for the next call, the file `prompt_cache` that of the prompt. Without `skip_special`,
        special tokens show in the text.

        `temperature`, `top_k`, `top_p`, `min_p`, `repeat_penalty`, `presence_penalty`,
        `frequency_penalty`, `logit_bias` and `seed` say how a token is drawn; `Sampling` describes
        them and has more. They override those of `sampling`, which is by default what the model's
        files recommend (`Model.sampling`). `temperature=0` takes the likeliest token, and then
        no recommended penalty applies.

        Raises:
            InputError: the prompt is empty or longer than the context, or an option out of range.

        """
        drawn = sampling_for(
            self.checkpoint, sampling, temperature=temperature, top_k=top_k, top_p=top_p,
            min_p=min_p, repeat_penalty=repeat_penalty, presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty, logit_bias=logit_bias, seed=seed,
        )  # fmt: skip
        return generate(
            self, prompt, max_tokens=max_tokens, sampling=drawn, stop=stop, acts=acts,
            session=session, skip_special=skip_special, prompt_cache=prompt_cache,
        )  # fmt: skip

    def chat(
        self,
        messages: str | Sequence[Message],
        *,
        max_tokens: int = 512,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repeat_penalty: float | None = None,
        presence_penalty: float | None = None,
        frequency_penalty: float | None = None,
        logit_bias: Mapping[int, float] | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        sampling: Sampling | None = None,
        acts: Activations = "int8",
        session: Session | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        reasoning_budget: int | None = None,
    ) -> Reply:
        """Answer `messages`: OpenAI's list of `{"role": ..., "content": ...}`, or one user's text.

        The model's own chat template makes the prompt. Iterate over the result for pieces as they
        are made, or take `str(...)` of it for the whole answer; `reasoning` has what the model
        thinks before. The template sees `tools`, JSON schemas of functions, and each of
        `chat_template_kwargs`, such as `{"enable_thinking": False}`. Calls of tools that the model
        writes are `Reply.tool_calls` and no part of the answer. After `reasoning_budget` tokens of
        reasoning (None: no limit) its end is given. Options are those of `generate`.
        `Conversation` keeps messages and KV cache from turn to turn.

        Raises:
            InputError: a message has another shape, the template refuses the conversation, or it
                does not fit the context.

        """
        drawn = sampling_for(
            self.checkpoint, sampling, temperature=temperature, top_k=top_k, top_p=top_p,
            min_p=min_p, repeat_penalty=repeat_penalty, presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty, logit_bias=logit_bias, seed=seed,
        )  # fmt: skip
        return reply_to(
            self, messages, max_tokens=max_tokens, sampling=drawn, stop=stop, acts=acts,
            session=session, tools=tools, chat_template_kwargs=chat_template_kwargs,
            reasoning_budget=reasoning_budget,
        )  # fmt: skip


def is_from_demo(checkpoint: Checkpoint) -> bool:
    """Whether a model is the built-in one or was made from it, as by `save`: its name and sizes.

    The demo's text is then what it is measured on, unless another is given.
    """
    own = open_checkpoint(DEMO).config
    names = ("name", "architecture", "vocab", "layers", "width", "ffn", "heads", "context")
    return all(getattr(checkpoint.config, name) == getattr(own, name) for name in names)


def bench(
    model: Model | str | PathLike[str] = "demo",
    *,
    prompt: int = 512,
    generate: int = 128,
    depths: Sequence[int] = (0,),
    sequences: int = 1,
    repetitions: int = 5,
    acts: Activations = "int8",
    threads: int = 0,
    progress: Progress | None = None,
) -> Bench:
    """Measure tokens per second of a prompt and of generation, as ``llama-bench`` does.

    `model` is a `Model` or what `load` takes. A prompt of `prompt` tokens and `generate` tokens
    one by one (0 leaves one out) come behind each of `depths` tokens in the cache; `sequences`
    texts generate side by side. Each runs once unmeasured, then `repetitions` times. `threads` is
    for a model that is loaded here and for reading the memory.

    Raises:
        InputError: a length is beyond the model's context, or nothing is left to measure.

    """
    loaded = model if isinstance(model, Model) else load(model, threads=threads)
    return speed.bench(
        loaded, prompt=prompt, generate=generate, depths=depths, sequences=sequences,
        repetitions=repetitions, acts=acts, threads=threads, progress=progress,
    )  # fmt: skip
