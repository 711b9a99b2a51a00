"""Refuse to compare the predictions of models whose tokens are not the same."""

from __future__ import annotations

from fewbit.errors import FewbitError, InputError, shown
from fewbit.run.model import LoadedModel
from fewbit.tokenizer.tokenizer import Tokenizer


def check_vocabulary(model: LoadedModel, base: LoadedModel) -> None:
    """Refuse two models whose token ids do not mean the same texts.

    An id that only one of the tokenizers has is padding. An id that is special in both may have
    two names, as reserved tokens have that a fine-tuned model uses. A model whose tokenizer cannot
    be read is compared by the size of its vocabulary alone.

    Raises:
        InputError: the sizes of the vocabularies, or texts of tokens, differ.

    """
    if model.config.vocab != base.config.vocab:
        raise InputError(
            f"the models have {model.config.vocab} and {base.config.vocab} tokens",
            hint="a divergence needs two models with one vocabulary",
            vocab=model.config.vocab,
            base_vocab=base.config.vocab,
        )
    if model.checkpoint is base.checkpoint:
        return
    try:
        found, expected = model.tokenizer, base.tokenizer
    except FewbitError:
        return
    different = different_tokens(found, expected, model.config.vocab)
    if different:
        first = different[0]
        more = f", and {len(different) - 1:,} more differ" if len(different) > 1 else ""
        raise InputError(
            f"the models have different tokenizers: token {first} is "
            f"{shown(found.token(first))} in `{model.config.name}` and "
            f"{shown(expected.token(first))} in `{base.config.name}`{more}",
            hint="a divergence needs two models with the same tokens; bits per byte "
            "(`fewbit perplexity`) compare models with different ones",
            tokens=tuple(different),
        )


def different_tokens(one: Tokenizer, other: Tokenizer, vocab: int) -> list[int]:
    """The ids below `vocab` that have two texts; see `check_vocabulary` for the exceptions."""
    if one is other:
        return []
    reserved = one.special_ids & other.special_ids
    texts, others = ({i: text for text, i in t.vocab.items()} for t in (one, other))
    return sorted(
        i
        for i in texts.keys() & others.keys()
        if i < vocab and texts[i] != others[i] and i not in reserved
    )
