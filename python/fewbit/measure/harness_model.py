"""A model as lm-evaluation-harness wants it, in its own process; needs the extra `fewbit[eval]`.

Rules of tokens are those of lm-eval's `hf` model, so that scores can be compared: special tokens
written in a text are tokens, BOS is added if the tokenizer adds it, an empty context is BOS (EOS
where there is none), and a context that is too long loses its beginning. No torch is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from fewbit.demo import demo_or
from fewbit.errors import InputError
from fewbit.files.checkpoint import open_checkpoint
from fewbit.generation.many import Request, write_many
from fewbit.measure.score import Pair, score_ids
from fewbit.run.device import Device
from fewbit.run.limits import activations_named
from fewbit.run.model import LoadedModel
from fewbit.run.sampling import Sampling
from fewbit.tokenizer.template import render

MAX_TOKENS = 256
"""Tokens of an answer where a task does not say."""
_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


class FewbitLM(TemplateLM):
    """Scores and writes for lm-eval, several texts in each step.

    `truncated` counts the contexts that were too long.
    """

    def __init__(
        self,
        pretrained: LoadedModel | str,
        *,
        format: str | None = None,
        device: str = "auto",
        acts: str = "int8",
        threads: int | str = 0,
        add_bos: bool | None = None,
        parallel: int | None = None,
        **_: Any,
    ) -> None:
        """Take a model, or load the one at a path, quantized to `format` if one is given.

        `add_bos` None begins texts as the tokenizer does.
        """
        super().__init__()
        model = pretrained
        if not isinstance(model, LoadedModel):
            found = open_checkpoint(demo_or(model))
            model = LoadedModel(found, threads=int(threads), device=Device(device))
        self.model = model.quantize(format) if format else model
        self.tokens = self.model.tokenizer
        self.truncated = 0
        self.add_bos = self.tokens.adds_bos if add_bos is None else add_bos
        self._acts = activations_named(acts)
        self._parallel = parallel

    @property
    def eot_token_id(self) -> int:
        """The id that ends a text."""
        return self._required(self.tokens.eos, self.tokens.bos)

    @property
    def prefix_token_id(self) -> int:
        """The id behind which a text without context is scored."""
        return self._required(self.tokens.bos, self.tokens.eos)

    @property
    def max_length(self) -> int:
        """Tokens that the model was trained to see."""
        return self.model.config.context

    @property
    def tokenizer_name(self) -> str:
        """The model's name, by which lm-eval tells cached requests apart."""
        return str(self.model.checkpoint.path).replace("/", "__")

    @property
    def rule(self) -> str:
        """How texts begin, in words."""
        return "texts begin with BOS" if self.add_bos else "no BOS is added to texts"

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """The ids of a text; BOS comes first if it shall and does not stand there already."""
        ids = self.tokens.encode(string, special=False, parse_special=True)
        wanted = self.add_bos if add_special_tokens is None else add_special_tokens and self.add_bos
        bos = self.tokens.bos
        if wanted and bos is not None and ids[:1] != [bos]:
            ids.insert(0, bos)
        return ids

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The conversation as a text, without the end of its last message if that goes on."""
        options = None if add_generation_prompt else {"add_generation_prompt": False}
        text = render(self.tokens, chat_history, chat_template_kwargs=options)
        if add_generation_prompt:
            return text
        last = chat_history[-1]["content"].strip()
        return text[: text.rindex(last) + len(last)]

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The model's own template."""
        return self.tokens.chat_template if chat_template else None

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        pairs = [self._cut(context, ending) for _, context, ending in requests]
        found = score_ids(self.model, pairs, self._acts, self._parallel)
        answers = [(each.logprob, each.greedy) for each in found]
        for (texts, _ids, _more), answer in zip(requests, answers, strict=True):
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, answer)
        return answers

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """The log-likelihood of each whole text, in windows that do not overlap."""
        windows: list[Pair] = []
        owners: list[int] = []
        for owner, request in enumerate(requests):
            found = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]), prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length, context_len=1,
            )  # fmt: skip
            for context, ending in map(make_disjoint_window, found):
                windows.append((tuple(context), tuple(ending)))
                owners.append(owner)
        sums = [0.0] * len(requests)
        scores = score_ids(self.model, windows, self._acts, self._parallel)
        for owner, each in zip(owners, scores, strict=True):
            sums[owner] += each.logprob
        return sums

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """The text that continues each context, up to one of its stop strings."""
        asked = [self._request(*request.args) for request in requests]
        texts = [""] * len(asked)
        for index, written in write_many(self.model, asked, self._acts, self._parallel):
            texts[index] = written.text
        for request, text in zip(requests, texts, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, text)
        return texts

    def _request(self, context: str, options: Mapping[str, Any]) -> Request:
        until = options.get("until") or []
        ends = (until,) if isinstance(until, str) else tuple(until)
        limit = next((int(options[name]) for name in _LIMITS if name in options), MAX_TOKENS)
        room = self.max_length - limit
        if room < 1:
            raise InputError(
                f"a task asks for {limit} tokens, the context holds {self.max_length}",
                hint="name fewer with `--gen-kwargs max_gen_toks=N`",
            )
        ids = self.tok_encode(context) or [self.prefix_token_id]
        self.truncated += len(ids) > room
        return Request(ids[-room:], limit, _sampling(options), tuple(filter(None, ends)))

    def _cut(self, context: Sequence[int], ending: Sequence[int]) -> Pair:
        """The pair without the beginning of a context that is too long."""
        excess = len(context) + len(ending) - 1 - self.max_length
        if excess > 0:
            self.truncated += 1
            if excess >= len(context):
                raise InputError(
                    f"an ending has {len(ending)} tokens, the context holds {self.max_length}"
                )
            context = context[excess:]
        return tuple(context), tuple(ending)

    def _required(self, *ids: int | None) -> int:
        found = next((id_ for id_ in ids if id_ is not None), None)
        if found is None:
            raise InputError("the model has no token that begins or ends a text")
        return found


def _sampling(options: Mapping[str, Any]) -> Sampling:
    """As lm-eval means it: greedy unless `do_sample`, or a temperature, is given."""
    temperature = float(options.get("temperature") or 0.0)
    if options.get("do_sample") is False:
        temperature = 0.0
    elif options.get("do_sample") and not options.get("temperature"):
        temperature = 1.0
    return Sampling(
        temperature=temperature, top_k=int(options.get("top_k") or 0),
        top_p=float(options.get("top_p") or 1.0), min_p=float(options.get("min_p") or 0.0),
        seed=options.get("seed", 0),
    )  # fmt: skip
