"""The command that lists devices: the processor and the graphics adapters."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fewbit import _core
from fewbit.cli.options import Json
from fewbit.reports import write
from fewbit.tables import Page, Table

if TYPE_CHECKING:
    from fewbit.run.gpu.device import Adapter


def devices(json: Json = False) -> None:
    """List the processor and graphics adapters of this machine, as `--device` names them."""
    from fewbit.run.gpu.device import INSTALL, adapters  # wgpu takes half a second of every command

    found = adapters()
    if json:
        facts = [dataclasses.asdict(dataclasses.replace(a, handle=None)) for a in found]
        for fact in facts:
            del fact["handle"]
        write.write_json({"cpu": _core.isa(), "gpu": facts})
        return
    write.show(*devices_page(_core.isa(), found))
    if not any(not adapter.is_software for adapter in found):
        what = "a software adapter only" if found else "no adapter"
        write.show(f"\nno graphics card: {what} was found\n\nhint: {INSTALL}")


def devices_page(isa: str, found: Sequence[Adapter]) -> Page:
    """One line per device."""
    table = Table(("device", "name", "kind", "backend", "driver", "features", "binding MB"), text=6)
    table.add_row("cpu", "", "CPU", isa, "", "", "")
    for a in found:
        table.add_row(
            f"gpu:{a.index}", a.name, "software" if a.is_software else a.kind, a.backend, a.driver,
            " ".join(a.features), f"{a.max_binding / 1e6:,.0f}",
        )  # fmt: skip
    return [table]
