"""Experts that a checkpoint stores as MXFP4 are run from those bytes."""

from __future__ import annotations

import fewbit
from tests.golden.loading import asset


def test_experts_stay_mxfp4() -> None:
    formats = fewbit.load(asset("gpt_oss-mxfp4").parent).formats
    assert {f for name, f in formats.items() if name.endswith("_exps.weight")} == {"MXFP4"}
