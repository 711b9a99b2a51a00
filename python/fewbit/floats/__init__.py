"""Number formats of 1 to 64 bits: bits of a value, rounding, neighbours, how many values there are.

`number_format("bfloat16")` finds a format by its name, `number_format("e5m4")` makes one from the
sizes of its fields. All arithmetic is that of float64, which holds every value exactly.
"""

from fewbit.floats.float_format import FloatFormat
from fewbit.floats.names import ALIASES, FLOAT_FORMATS, number_format
from fewbit.floats.number_format import NumberFormat
from fewbit.floats.unsigned_format import UnsignedFormat

__all__ = [
    "ALIASES",
    "FLOAT_FORMATS",
    "FloatFormat",
    "NumberFormat",
    "UnsignedFormat",
    "number_format",
]
