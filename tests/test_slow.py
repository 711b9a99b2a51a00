"""slow.txt names tests that exist, and marks neither none nor all of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import slow_rules

ROOT = Path(__file__).parent.parent
RULES = [rule.pattern for _, rule in slow_rules()]


@pytest.mark.parametrize("rule", RULES)
def test_each_line_names_files_and_a_test(rule: str) -> None:
    path, _, test = rule.replace("\\", "").replace(".*", "*").partition("::")
    files = list(ROOT.glob(path))
    assert files
    function = re.match(r"\w+", test)
    if function:
        assert any(f"def {function[0]}(" in file.read_text("utf-8") for file in files)


def is_slow(test: str) -> bool:
    return [slow for slow, rule in slow_rules() if rule.fullmatch(test)][-1:] == [True]


def test_the_last_match_decides() -> None:
    assert is_slow("tests/gpu/test_models.py::test_a_long_prompt")
    assert not is_slow("tests/gpu/test_ops.py::test_swiglu")
    assert is_slow("tests/golden/test_formats.py::test_encode[reference-IQ2_S-plain]")
    assert not is_slow("tests/golden/test_formats.py::test_encode[reference-IQ4_XS-plain]")
    assert not is_slow("tests/test_slow.py::test_the_last_match_decides")
