"""`fewbit inspect --plan`: each op with its weights and their bytes, and totals that add up."""

from __future__ import annotations

from pathlib import Path

import pytest

import fewbit
from fewbit.files.checkpoint import open_checkpoint
from fewbit.plan.sizes import sizes_of
from fewbit.reports.plan_listing import Listing, list_plan
from tests.golden.loading import NAMES, asset


@pytest.mark.parametrize("name", NAMES)
def test_the_listing_is_the_plan_and_its_bytes_add_up(name: str) -> None:
    model = fewbit.load(asset(name).parent)
    found = list_plan(model.checkpoint)
    assert [(step.op, list(step.inputs), step.width) for step in found.steps] == [
        (op["op"], op["inputs"], op["width"]) for op in model.plan.to_dicts()
    ]
    weights = {weight.name: weight for step in found.steps for weight in step.weights}
    data = {name: model.checkpoint.read(name).data for name in weights}
    assert {name: weight.bytes for name, weight in weights.items()} == {
        name: array.nbytes for name, array in data.items()
    }
    assert found.sizes == sizes_of(model.plan, model.formats)
    assert found.sizes.bytes == sum(array.nbytes for array in data.values())


def listed(name: str) -> Listing:
    return list_plan(open_checkpoint(asset(name).parent))


def test_of_experts_a_token_reads_the_routed_ones() -> None:
    listing = listed("gpt_oss-mxfp4")
    config = open_checkpoint(asset("gpt_oss-mxfp4").parent).config
    assert config.routing is not None
    stacks = [w for step in listing.steps for w in step.weights if "_exps.weight" in w.name]
    assert stacks
    for weight in stacks:
        assert (weight.format, weight.shape[0]) == ("MXFP4", config.experts)
        assert weight.bytes_per_token == weight.bytes * config.routing.used // config.experts


def test_of_an_embedding_a_token_reads_a_row_and_a_tied_table_counts_once() -> None:
    listing = listed("gpt2")
    embed, position = listing.steps[:2]
    assert (embed.op, embed.bytes_per_token) == ("embed", 4 * embed.width)
    assert (position.op, position.bytes_per_token) == ("embed_position", 4 * position.width)
    head = listing.steps[-1]
    assert [weight.name for weight in head.weights] == ["token_embd.weight"]
    assert head.bytes == head.bytes_per_token == embed.bytes
    assert listing.sizes.bytes == sum(step.bytes for step in listing.steps) - embed.bytes


def test_a_file_of_an_unknown_architecture_names_the_nearest(tmp_path: Path) -> None:
    fewbit.load(fewbit.DEMO).save(tmp_path / "m.gguf")
    data = (tmp_path / "m.gguf").read_bytes()
    (tmp_path / "m.gguf").write_bytes(data.replace(b"llama", b"llame", 1))
    with pytest.raises(fewbit.UnsupportedError) as caught:
        open_checkpoint(tmp_path / "m.gguf")
    assert caught.value.message == "unknown architecture `llame`"
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("did you mean `llama`? known: llama, qwen2, ")
