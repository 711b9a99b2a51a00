"""What a model does with many texts at once: score them, continue them, predict what follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fewbit.callbacks import Progress
from fewbit.generation import many
from fewbit.generation.defaults import sampling_for
from fewbit.generation.many import Written
from fewbit.measure import next_tokens
from fewbit.measure.next_tokens import NextTokens
from fewbit.measure.score import Score, score
from fewbit.run.limits import Activations
from fewbit.run.model import LoadedModel
from fewbit.run.sampling import Sampling


class BatchedModel(LoadedModel):
    """A model whose steps take tokens of several texts, so that weights are read once for all."""

    def score(
        self,
        pairs: Sequence[tuple[str | Sequence[int], str | Sequence[int]]],
        *,
        acts: Activations = "int8",
        parallel: int | None = None,
        progress: Progress | None = None,
    ) -> list[Score]:
        """Score each pair of a context and an ending by the ending's probability.

        Both are texts or token ids. Two texts are split into tokens as one, spaces at the end of
        the context counted to the ending. A context is computed once for all its endings;
        `parallel` sequences share each step (default: what a quarter of the memory holds, at most
        32). On the CPU the result does not depend on it, to the bit.

        >>> import fewbit
        >>> model = fewbit.load("demo")
        >>> good, bad = model.score([("The old", " house"), ("The old", " of the")])
        >>> good.logprob > bad.logprob
        True

        Raises:
            InputError: a pair has another shape, an ending is empty, or a pair is longer than the
                context.

        """
        return score(self, pairs, acts, parallel, progress)

    def generate_many(
        self,
        prompts: Sequence[str | Sequence[int]],
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
        parallel: int | None = None,
        skip_special: bool = True,
        progress: Progress | None = None,
    ) -> list[Written]:
        """Write texts that continue each of `prompts`, several in each step.

        On the CPU each is what `generate` alone writes with the same options, to the bit; the
        seed is that of every text. A text that ends makes room for the next one. Options are those
        of `generate`; `parallel` is as in `score`.

        Raises:
            InputError: a prompt is empty or longer than the context, or an option out of range.

        """
        drawn = sampling_for(
            self.checkpoint, sampling, temperature=temperature, top_k=top_k, top_p=top_p,
            min_p=min_p, repeat_penalty=repeat_penalty, presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty, logit_bias=logit_bias, seed=seed,
        )  # fmt: skip
        return many.generate_many(
            self, prompts, max_tokens=max_tokens, sampling=drawn, stop=stop, acts=acts,
            parallel=parallel, progress=progress, skip_special=skip_special,
        )  # fmt: skip

    def next_tokens(
        self,
        prompt: str | Sequence[int],
        *,
        formats: Sequence[str] = (),
        top: int = 10,
        acts: Activations = "int8",
    ) -> NextTokens:
        """List the `top` likeliest tokens after `prompt`, a text or token ids.

        With `formats` each is a further column beside the model as it is, with its KL divergence.
        The model as it is then runs with f32 activations, the formats with `acts`.

        >>> import fewbit
        >>> found = fewbit.load("demo").next_tokens("The old house", formats=["Q4_0"], top=3)
        >>> found.formats
        ('BF16', 'Q4_0')

        Raises:
            InputError: the prompt is empty or longer than the context, or `top` below 1.
            FormatError: a format is unknown, or weights cannot be stored in it.

        """
        return next_tokens.next_tokens(self, prompt, formats, top, acts)
