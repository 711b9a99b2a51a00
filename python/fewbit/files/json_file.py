"""Read a JSON object from a file, with errors that name the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fewbit.errors import FileFormatError


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        FileFormatError: the file is not JSON, or its JSON is not an object.

    """
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FileFormatError(
            f"`{path}` is not JSON: {error}", hint="download it again", path=str(path)
        ) from None
    if not isinstance(found, dict):
        raise FileFormatError(f"`{path}` must hold a JSON object", path=str(path))
    return found
