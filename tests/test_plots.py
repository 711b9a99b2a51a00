"""Pictures: each kind is drawn, its numbers are right, files are what their names say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fewbit
from fewbit.cli import main as cli
from fewbit.errors import FormatError, InputError, UnsupportedError
from fewbit.floats import number_format
from fewbit.plots import draw, numbers, weights
from fewbit.plots.figure import save
from tests.cli.running import Ended

pytest.importorskip("matplotlib")

QUICK = {
    "sizes": {"formats": ["Q4_0"], "chunks": 2},
    "layers": {"formats": ["Q2_K"], "chunks": 1},
    "speed": {"formats": ["Q4_0", "Q2_K"]},
    "tokens": {"formats": ["Q4_0"]},
}


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> Ended:
    code = cli.run(arguments)
    captured = capsys.readouterr()
    return Ended(code, captured.out, captured.err)


@pytest.mark.parametrize("kind", draw.KINDS)
def test_each_kind_draws_something(kind: str, tmp_path: Path) -> None:
    figure = fewbit.plot(kind, **QUICK.get(kind, {}))  # type: ignore[arg-type]
    for panel in figure.axes:
        assert panel.has_data(), kind
    for suffix in ("png", "svg"):
        path = tmp_path / f"{kind}.{suffix}"
        save(figure, path)
        start = path.read_bytes()[:200]
        assert start.startswith(b"\x89PNG" if suffix == "png" else b"<?xml")
        assert path.stat().st_size > 4000


def test_the_same_picture_has_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        save(fewbit.plot("sine", formats=["float4"]), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_counts_of_representable_values() -> None:
    figure = numbers.representable(["float8"], (-2, 2))
    (steps,) = figure.axes[0].patches
    counts, edges, _ = steps.get_data()  # type: ignore[attr-defined]
    assert np.nansum(counts) == number_format("float8").count_between(-2, 2)
    assert (edges[0], edges[-1]) == (-2, 2)


def test_a_sine_in_float4_has_the_values_of_float4() -> None:
    panel = numbers.sine(["float4"], 3.0).axes[0]
    drawn = panel.lines[1].get_ydata()
    assert set(np.unique(drawn)) <= set(number_format("float4").values())  # type: ignore[arg-type]
    assert "infinite" in numbers.sine(["float4"], 30.0).axes[0].get_title()


def test_the_mapping_shows_the_errors_of_the_article() -> None:
    titles = [panel.get_title() for panel in fewbit.plot("mapping").axes]
    assert "average error 18.0 %" in titles[0]
    assert "average error 8.5 %" in titles[1]
    ends = fewbit.plot("mapping").axes[1].collections[0].get_segments()  # type: ignore[attr-defined]
    assert [round(segment[0][0], 2) for segment in (ends[0], ends[-1])] == [-0.91, 0.14]


def test_the_divergence_of_two_normals_is_the_area() -> None:
    lower = numbers.normals(0.7, 1.3).axes[1]
    x = np.linspace(-12, 12, 100_001)
    p = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    q = np.exp(-(((x - 0.7) / 1.3) ** 2) / 2) / (1.3 * np.sqrt(2 * np.pi))
    area = float(np.sum(p * np.log(p / q)) * (x[1] - x[0]))
    assert lower.get_title().endswith(f"{area:.3f}")


def test_weights_are_counted_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo is BF16: the counts are those of all its values, in one pass with slabs."""
    calls: list[tuple[int, int, str]] = []
    found = weights.count_weights(None, progress=lambda *call: calls.append(call))
    model = fewbit.load("demo", "cpu")
    shapes = {t.name: t.shape for t in model.checkpoint.tensors.values() if len(t.shape) > 1}
    x = np.concatenate([model.tensor(name).ravel() for name in shapes]).astype(np.float64)
    assert found.total == x.size == calls[-1][0] == calls[-1][1]
    values, counts = np.unique(x + 0.0, return_counts=True)
    assert np.array_equal(found.values, values)
    assert np.array_equal(found.counts, counts)
    assert found.deviation == pytest.approx(x.std())
    assert found.beyond(4) == int((np.abs(x - x.mean()) > 4 * x.std()).sum())
    edges = np.linspace(-0.5, 0.5, 11)
    assert np.array_equal(found.histogram(edges), np.histogram(x, edges)[0])
    monkeypatch.setattr(weights, "SLAB", 1000)
    again = weights.count_weights(None)
    assert np.array_equal(again.counts, found.counts)


def test_magnitudes_are_counted_on_both_sides() -> None:
    counted = weights.Counted("x", np.array([-3.0, -2.0, 0.5, 2.5]), np.array([4, 1, 7, 2]))
    figure = weights.distributions([counted], (1.0, 100.0), log=True)
    (steps,) = figure.axes[0].patches
    assert steps.get_data()[0].sum() * counted.total == pytest.approx(7)  # type: ignore[attr-defined]
    assert "7 of 14" in figure.axes[0].get_legend_handles_labels()[1][0]


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run("plot", "kl", "-0.5", "1.5", capsys=capsys)
    assert (ended.code, ended.out, ended.err) == (0, "", "wrote kl.png\n")
    ended = run("plot", "floats", "--as", "f16", "--range", "0.1,1000", "--log", "-o", "x.svg",
                capsys=capsys)  # fmt: skip
    assert ended.code == 0
    assert (tmp_path / "x.svg").exists()
    found = run("plot", "mapping", "--json", capsys=capsys).json
    assert (found["kind"], found["file"]) == ("mapping", "mapping.png")
    assert "average error 18.0 %" in found["titles"][0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("plot", "line"), "did you mean `lines`"),
        (("plot", "kl", "-o", "x.jpg"), "`x.jpg` is not the name of a picture"),
        (("plot", "sine", "--factor", "0"), "a factor is above zero"),
        (("plot", "floats", "--range", "2,1"), "cannot draw the interval"),
        (("plot", "floats", "--range", "0,1", "--log"), "cannot draw the interval"),
        (("plot", "floats", "--range", "1"), "is not two numbers"),
        (("plot", "lines", "--as", "f16"), "too many values for a number line"),
        (("plot", "mapping", "--as", "Q4_0"), "not evenly spaced"),
        (("plot", "kl", "0", "0"), "a deviation is above zero"),
        (("plot", "map", "--tensor", "output_norm"), "is not a matrix"),
        (("plot", "weights", "--tensor", "nothing"), "nothing"),
        (("plot", "weights", "no-such-model"), "no-such-model"),
        (("plot", "tokens", "--prompt", ""), "the prompt is empty"),
        (("plot", "speed", "--as", "Q4_9"), "unknown format `Q4_9`"),
    ],
)
def test_wrong_use(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run(*arguments, capsys=capsys)
    assert ended.code == 1
    assert message in ended.err
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_the_package_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UnsupportedError, match="pip install 'fewbit\\[plots\\]'"):
        fewbit.plot("kl")


def test_matplotlib_is_loaded_late() -> None:
    code = "import sys, fewbit, fewbit.cli.main; print('matplotlib' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout == "False\n"


def test_formats_without_even_codes_have_no_mapping() -> None:
    with pytest.raises(FormatError):
        fewbit.plot("mapping", formats=["e2m1"])
    with pytest.raises(InputError, match="not numbers"):
        fewbit.plot("mapping", ["x"])
