"""The progress line: what it says on a terminal, and that it says nothing elsewhere."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from fewbit.cli import progress


def drawn(monkeypatch: pytest.MonkeyPatch, in_bytes: bool, terminal: bool = True) -> str:
    """What is written while 6 of 8 MB are done, 2 MB each time."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=120, color_system=None)
    monkeypatch.setattr(progress, "stderr", lambda: console)
    with progress.progress("encoding", in_bytes) as update:
        for done in (2_000_000, 4_000_000, 6_000_000):
            update(done, 8_000_000, "blk.0.attn_q.weight")
            time.sleep(0.01)
    return file.getvalue()


def test_bytes_have_a_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    text = drawn(monkeypatch, in_bytes=True)
    assert re.search(r" 75% +[0-9.]+ [kM]B/s +\d:\d\d:\d\d blk\.0\.attn_q\.weight", text)


def test_other_steps_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    text = drawn(monkeypatch, in_bytes=False)
    assert "B/s" not in text
    assert " 75%" in text


def test_nothing_is_drawn_where_no_one_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(monkeypatch, in_bytes=True, terminal=False).strip() == ""
