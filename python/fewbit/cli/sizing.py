"""Options of `fewbit quantize` that give a size instead of a format."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from fewbit.api import Model
from fewbit.callbacks import Progress
from fewbit.convert.encode import TensorEncoder
from fewbit.convert.gguf import gguf_formats, header_bytes
from fewbit.errors import InputError
from fewbit.improve.calibration import Calibration
from fewbit.improve.covariance_file import CovarianceFile
from fewbit.improve.driver import Effort
from fewbit.improve.mixture import Mixture
from fewbit.recipes.choose import Options

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?)?B?", re.IGNORECASE)
_UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def check_fit(
    formats: Sequence[str] | None,
    size: str | None,
    bpw: float | None,
    imatrix: Path | None,
    options: Options,
) -> None:
    """Refuse options that contradict a size, and a command without a format or a size.

    Raises:
        InputError: they do, or neither is given.

    """
    given = [
        name for name, value in (("--format", formats), ("--size", size), ("--bpw", bpw)) if value
    ]
    if not given:
        raise InputError(
            "no format and no size", hint="name one, as in `-f Q4_K_M` or `--size 4.5GB`"
        )
    if len(given) > 1:
        raise InputError(
            f"`{given[0]}` and `{given[1]}` both say how large the result is",
            hint="use one of them",
        )
    if formats is None and (options != Options() or imatrix is not None):
        what = "--imatrix" if imatrix is not None else "--tensor-type, --pure and the like"
        raise InputError(
            f"`{given[0]}` chooses all formats by itself and takes no {what}",
            hint="leave it out, or name a format",
        )


def bytes_of(text: str) -> int:
    """The number of bytes that a text such as "4.5GB", "700 MiB" or "123456" says.

    Raises:
        InputError: it says none.

    >>> bytes_of("4.5GB"), bytes_of("1KiB"), bytes_of("77")
    (4500000000, 1024, 77)
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise InputError(
            f"`{text}` is not a size in bytes", hint="as in 4.5GB, 700MiB or 123456", size=text
        )
    prefix = (found[2] or "").upper()
    base = 1024 if prefix.endswith("I") else 1000
    return int(float(found[1]) * base ** _UNITS[prefix[:1]])


def fit(
    model: Model,
    size: str | None,
    bpw: float | None,
    effort: Effort,
    calibration: Calibration | CovarianceFile,
    progress: Progress | None = None,
) -> Mixture:
    """The mixture of formats that `--size` or `--bpw` asks for.

    Raises:
        InputError: the size is not one, or too small for the model.

    """
    if size is not None:
        own = gguf_formats(model.checkpoint, model.formats)
        budget = bytes_of(size) - header_bytes(TensorEncoder(model.checkpoint, own, {}))
    else:
        if bpw is None or not math.isfinite(bpw) or bpw <= 0:
            raise InputError(f"`--bpw {bpw}` is not a number of bits above 0", bpw=bpw)
        budget = int(bpw * model.sizes.weights / 8)
    return model.mixture(max(budget, 0), effort=effort, calibration=calibration, progress=progress)
