"""A compact base file gives each format's divergence within 0.5 % of that of the full rows."""

from __future__ import annotations

import pytest

import fewbit
from fewbit.measure import evaluate
from fewbit.measure.base_files import divergences_from, open_base, saving
from fewbit.measure.evaluate import Variant
from fewbit.measure.results import Divergence

FORMATS = (
    "F16", "Q8_0", "Q6_K", "Q5_1", "Q5_0", "Q5_K_S", "Q4_1", "Q4_0", "Q4_K_M", "IQ4_NL", "IQ4_XS",
    "MXFP4_MOE", "Q3_K_M", "Q2_K", "TQ1_0", "asym4-g32",
)  # fmt: skip

Results = dict[str, dict[str, Divergence]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The demo in each format: side by side, and from files of all tokens and of a tenth."""
    folder, base = tmp_path_factory.mktemp("bases"), fewbit.load("demo")
    text, models = fewbit.demo_text(), [base.quantize(name) for name in FORMATS]
    variants = [Variant(model, "f32") for model in models]
    found = {}
    for name in ("a.kld", "a.fbkld"):
        windows = evaluate.windows(base, text, 512, 4)
        with saving(folder / name, base, windows) as on_base:
            side_by_side = evaluate.divergences(
                variants, Variant(base, "f32"), text, 512, 4, on_base=on_base
            )
        found[name] = divergences_from(variants, open_base(folder / name))
    found["both"] = side_by_side
    full, small = ((folder / name).stat().st_size for name in ("a.kld", "a.fbkld"))
    assert small < 0.102 * full, "a tenth, and the tokens"
    return {kind: dict(zip(FORMATS, each, strict=True)) for kind, each in found.items()}


@pytest.mark.parametrize("name", FORMATS)
def test_kld(name: str, results: Results) -> None:
    """1,020 rows, a twelfth of the probability left out: what `fewbit.measure.top_k` predicts."""
    expected, small = results["both"][name], results["a.fbkld"][name]
    note = small.base_file
    assert note is not None
    assert note.kld_low is not None
    assert note.kld_high is not None
    assert note.kld_low <= expected.kld.value * (1 + 1e-4) + 1e-8
    assert note.kld_high >= expected.kld.value
    assert abs(small.kld.value / expected.kld.value - 1) < 0.005 or expected.kld.value < 1e-6
    cut = results["a.kld"][name].base_file.cut  # type: ignore[union-attr]
    assert cut is not None
    low = -cut - 2e-4 * expected.kld.value
    assert low <= results["a.kld"][name].kld.value - expected.kld.value <= 2e-6 + cut / 10
    assert small.ppl == expected.ppl
    assert abs(small.ppl_base.value / expected.ppl_base.value - 1) < 1e-6
