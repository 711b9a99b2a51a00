"""Number formats: the table of all formats, the layouts of their blocks, and quantized arrays."""

from fewbit.formats.table import FORMATS, Format, find_format

__all__ = ["FORMATS", "Format", "find_format"]
