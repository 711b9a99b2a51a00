"""The fixture that runs the command line in this process."""

from __future__ import annotations

import pytest

from fewbit.cli import main as cli
from tests.cli.running import Ended, Fewbit


@pytest.fixture
def fewbit(capsys: pytest.CaptureFixture[str]) -> Fewbit:
    def run(*arguments: str) -> Ended:
        code = cli.run(arguments)
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return run
