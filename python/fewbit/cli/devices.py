"""Where models can run: devices."""

from __future__ import annotations

import dataclasses

from fewbit import _core
from fewbit.cli.options import Json
from fewbit.reports import tables as report


def devices(json: Json = False) -> None:
    """The processor and the graphics adapters of this machine, as `--device` names them."""
    from fewbit.run.gpu.device import INSTALL, adapters  # wgpu takes half a second of every command

    found = adapters()
    if json:
        facts = [dataclasses.asdict(dataclasses.replace(a, handle=None)) for a in found]
        for fact in facts:
            del fact["handle"]
        report.write_json({"cpu": _core.isa(), "gpu": facts})
        return
    report.show(*report.devices_table(_core.isa(), found))
    if not any(not adapter.is_software for adapter in found):
        what = "a software adapter only" if found else "no adapter"
        report.show(f"\nno graphics card: {what} was found\n\nhint: {INSTALL}")
