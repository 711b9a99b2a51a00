"""Options, marks and fixtures of all tests; `--require gpu` makes a missing adapter a failure."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fewbit.errors import DeviceError
from fewbit.run.gpu.device import Adapter, Device, adapters, find_adapter, open_device

collect_ignore = ["emulator"]  # a program, for a package that only `.ci/avx512` installs


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require", choices=["gpu"], help="fail, not skip, where this machine lacks it"
    )


def slow_rules() -> list[tuple[bool, re.Pattern[str]]]:
    """The lines of slow.txt: whether a match is slow, and the pattern, in which `*` is any text."""
    lines = (Path(__file__).parent / "slow.txt").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    return [
        (not rule.startswith("!"), re.compile(re.escape(rule.lstrip("!")).replace(r"\*", ".*")))
        for rule in rules
    ]


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses by marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests as slow. The last line of slow.txt that matches decides."""
    rules = slow_rules()
    for item in items:
        matches = [slow for slow, pattern in rules if pattern.fullmatch(item.nodeid)]
        if matches and matches[-1]:
            item.add_marker("slow")


@pytest.fixture(scope="session")
def adapter(request: pytest.FixtureRequest) -> Adapter:
    """The adapter that FEWBIT_ADAPTER names, or the first, real or software."""
    try:
        found = adapters()
        named = os.environ.get("FEWBIT_ADAPTER")
        chosen = find_adapter("gpu" if named or not found else "gpu:0")
        assert chosen is not None
    except DeviceError as error:
        if request.config.getoption("--require") == "gpu":
            pytest.fail(error.message)
        pytest.skip(error.message)
    return chosen


@pytest.fixture(scope="session")
def card(adapter: Adapter) -> Device:
    """That adapter, open."""
    return open_device(adapter)


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function from a format to the golden llama's file in it, written when first asked for."""
    from tests.saved_llama import save_llama

    folder = tmp_path_factory.mktemp("saved")

    def save(name: str) -> Path:
        path = folder / f"{name}.gguf"
        return path if path.exists() else save_llama(path, name)

    return save
