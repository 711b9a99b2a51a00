"""Post JSON to a server, again if it is busy, and to no other server than the one that is named."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from typing import Any

from fewbit.errors import InputError

_ATTEMPTS = 6
_LONGEST_WAIT = 60.0
_RETRIED = (408, 409, 429, 500, 502, 503, 504)
_MOST_BYTES = 1 << 26


def post(
    url: str, path: str, body: dict[str, Any], key: str | None, timeout: float, proxies: bool
) -> dict[str, Any]:
    """The JSON that a server answers; `proxies` uses those that the environment names.

    Raises:
        InputError: the server refuses, cannot be reached, or answers something else.

    """
    headers = {"content-type": "application/json", "accept": "application/json"}
    if key:
        headers["authorization"] = f"Bearer {key}"
    address = url.rstrip("/") + path
    data = json.dumps(body).encode()
    for attempt in range(_ATTEMPTS):
        request = urllib.request.Request(address, data, headers, method="POST")
        try:
            return _object(address, _read(request, timeout, proxies))
        except _BusyError as busy:
            if attempt + 1 == _ATTEMPTS:
                raise InputError(
                    f"`{url}` does not answer: {busy}",
                    hint="check that the server runs; with `--out` the same command goes on from "
                    "where it ended",
                ) from None
            time.sleep(min(busy.wait or 0.5 * 2**attempt, _LONGEST_WAIT))
    raise AssertionError("the loop ends by returning or raising")


def _read(request: urllib.request.Request, timeout: float, proxies: bool) -> bytes:
    handlers: list[Any] = [_NoRedirect, *([] if proxies else [urllib.request.ProxyHandler({})])]
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=timeout) as response:
            found: bytes = response.read(_MOST_BYTES)
            return found
    except urllib.error.HTTPError as error:
        raise _refused(request.full_url, error) from None
    except (OSError, http.client.HTTPException) as error:
        raise _BusyError(str(getattr(error, "reason", error)) or repr(error)) from None


def _object(address: str, data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InputError(f"`{address}` answers no JSON object: {data[:100]!r}")
    return found


def _refused(address: str, error: urllib.error.HTTPError) -> Exception:
    with error:
        text = error.read(4096).decode(errors="replace")
    try:
        told = json.loads(text)["error"]
        said = str(told["message"] if isinstance(told, dict) else told)
    except (ValueError, KeyError, TypeError):
        said = text[:200]
    if error.code in _RETRIED:
        after = error.headers.get("retry-after", "")
        return _BusyError(f"status {error.code}: {said}", float(after) if after.isdigit() else None)
    hint = "give the key in FEWBIT_API_KEY or OPENAI_API_KEY" if error.code == 401 else None
    return InputError(f"`{address}` refuses with status {error.code}: {said}", hint=hint)


class _BusyError(Exception):
    """The server may answer later, after `wait` seconds if it says so."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses redirects, which would send questions to another server."""

    def redirect_request(self, *_: Any) -> None:
        """None, which makes a redirect an error."""
