"""Files that change, end or fill up while they are read or written."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import fewbit
from fewbit.files.mapped import intact, map_file
from tests.golden.loading import MODELS

POSIX = pytest.mark.skipif(os.name != "posix", reason="a mapped file cannot be changed there")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of a golden model that may be damaged."""
    target = tmp_path / "m"
    target.mkdir()
    for file in (MODELS / "llama").iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    fewbit.load(MODELS / "llama", "cpu", threads=1).save(path)
    return path


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


USES: list[Callable[[fewbit.Model], object]] = [
    lambda model: model.logits([0]),
    lambda model: [model.data(name) for name in model.formats],
    lambda model: model.quantize("Q8_0").save(model.checkpoint.path.parent / "q.gguf"),
    lambda model: model.save(model.checkpoint.path.parent / "s.gguf"),
]


@POSIX
@pytest.mark.parametrize("use", USES)
def test_a_gguf_file_that_became_shorter(use: Callable[..., object], gguf: Path) -> None:
    model = fewbit.load(gguf, "cpu", threads=1)
    shorten(gguf)
    with pytest.raises(fewbit.FileFormatError, match=r"m\.gguf` had \d+ bytes when it was opened"):
        use(model)
    assert sorted(path.name for path in gguf.parent.iterdir()) == ["m.gguf"]


@POSIX
@pytest.mark.parametrize("use", USES)
def test_a_safetensors_file_that_became_shorter(use: Callable[..., object], folder: Path) -> None:
    model = fewbit.load(folder, "cpu", threads=1)
    shorten(folder / "model.safetensors")
    with pytest.raises(fewbit.FileFormatError, match=r"model\.safetensors` had \d+ bytes"):
        use(model)


@POSIX
def test_files_that_became_shorter_are_not_verified(gguf: Path, folder: Path) -> None:
    for path in (gguf, folder / "model.safetensors"):
        with pytest.raises(fewbit.FileFormatError, match=f"{path.name}` had"):
            fewbit.verify(gguf, folder, progress=lambda *_, path=path: os.truncate(path, 0))
        fewbit.load(MODELS / "llama", "cpu", threads=1).save(gguf)


@POSIX
def test_a_view_of_a_view_knows_its_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(range(200)))
    data = map_file(path, "GGUF")
    pieces = [data, data[10:50], np.asarray(data)[10:50].reshape(4, 10)[1:], data[4:8].view("<u4")]
    for piece in pieces:
        assert intact(piece) is piece
    path.write_bytes(bytes(300))  # longer does no harm
    intact(pieces[0])
    os.truncate(path, 199)
    for piece in pieces:
        with pytest.raises(fewbit.FileFormatError, match=r"/x` had 200 bytes .* has 199 now"):
            intact(piece)
    own = np.zeros(4, np.uint8)
    assert intact(own) is own


@POSIX
def test_a_file_that_another_takes_the_place_of_is_read_on(gguf: Path, tmp_path: Path) -> None:
    model = fewbit.load(gguf, "cpu", threads=1)
    expected = fewbit.load(gguf, "cpu", threads=1).logits([1, 2])
    (tmp_path / "other").write_bytes(b"GGUF")
    (tmp_path / "other").replace(gguf)
    np.testing.assert_array_equal(model.logits([1, 2]), expected)


SAVE = """
import sys, fewbit
def stop(done, total, name):
    print("writing", flush=True)
    sys.stdin.read()
fewbit.load(sys.argv[1], "cpu", threads=1).quantize("Q4_0").save(sys.argv[2], progress=stop)
"""


@POSIX
def test_a_killed_save_leaves_the_old_file_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"old")
    with subprocess.Popen(
        [sys.executable, "-c", SAVE, str(MODELS / "llama"), str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        fewbit.load(MODELS / "llama", "cpu", threads=1).save(tmp_path / "other.gguf")
        assert len(list(tmp_path.glob(".fewbit-*.part"))) == 1  # not while it is written
        process.send_signal(signal.SIGKILL)
    assert path.read_bytes() == b"old"
    (left,) = tmp_path.glob(".fewbit-*.part")
    hour_ago = time.time() - 3600
    os.utime(left, (hour_ago, hour_ago))
    fewbit.load(MODELS / "llama", "cpu", threads=1).save(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.gguf", "other.gguf"]
    fewbit.load(path, "cpu", threads=1).logits([0])


FULL = """
import resource, signal, sys, fewbit
model = fewbit.load(sys.argv[1], "cpu", threads=1)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try:
    model.save(sys.argv[2])
except OSError as error:
    print(error.errno)
"""


@POSIX
@pytest.mark.parametrize("room", [0, 100, 5_000, 100_000])
def test_a_file_that_may_not_grow(room: int, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"old")
    ended = subprocess.run(
        [sys.executable, "-c", FULL, str(MODELS / "llama"), str(path), str(room)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.stdout == f"{errno.EFBIG}\n", ended.stderr
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("m.gguf", b"old")]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_devices_are_no_files_to_write_or_to_read() -> None:
    model = fewbit.load("demo", "cpu", threads=1)
    with pytest.raises(fewbit.InputError, match="is a device or a pipe"):
        model.save("/dev/full")
    with pytest.raises((fewbit.FewbitError, OSError)):
        fewbit.load("/dev/full", "cpu")


@POSIX
def test_links_that_are_exchanged(gguf: Path, folder: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.gguf"
    link.symlink_to(gguf)
    model = fewbit.load(link, "cpu", threads=1)
    link.unlink()
    link.symlink_to(folder / "config.json")
    np.testing.assert_array_equal(
        model.logits([1, 2]), fewbit.load(gguf, "cpu", threads=1).logits([1, 2])
    )
    with pytest.raises(fewbit.FewbitError):
        fewbit.load(link, "cpu")
    link.unlink()
    link.symlink_to(link)
    with pytest.raises((fewbit.InputError, OSError)):
        fewbit.load(link, "cpu")


SMALL = """
import resource, sys, numpy as np, fewbit
kind = fewbit.find_format("Q1_0")
count = 100_000_000 // kind.block
data, values = bytes(count * kind.bytes), np.zeros((16, 1 << 20), np.float32)
fewbit.dequantize(data[: kind.bytes], "Q1_0", (kind.block,), threads=1)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (24 << 20),) * 2)
for call in (
    lambda: fewbit.dequantize(data, "Q1_0", (count, kind.block), threads=1),
    lambda: fewbit.quantize(values, "F32", threads=1),
):
    try:
        call()
    except MemoryError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is one of Linux")
def test_too_little_memory_is_a_memory_error() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SMALL], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [
        "no memory for 400000000 bytes", "no memory for 67108864 bytes"
    ]  # fmt: skip
