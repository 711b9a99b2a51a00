"""gguf-py's writer of GGUF files, with the empty arrays that llama.cpp reads and writes."""

from __future__ import annotations

from typing import Any

from gguf import GGUFValueType, GGUFWriter


class Writer(GGUFWriter):
    """Writes empty arrays too, which gguf-py refuses."""

    def _pack_val(
        self,
        val: Any,
        vtype: GGUFValueType,
        add_vtype: bool,
        sub_type: GGUFValueType | None = None,
    ) -> bytes:
        if vtype == GGUFValueType.ARRAY and len(val) == 0 and sub_type is not None:
            kind = self._pack("I", vtype) if add_vtype else b""
            return kind + self._pack("I", sub_type) + self._pack("Q", 0)
        return super()._pack_val(val, vtype, add_vtype, sub_type)
