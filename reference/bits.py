"""Pack integer codes of 1 to 8 bits into bytes, and read them back."""

from __future__ import annotations

from collections.abc import Sequence


def packed_bytes(width: int, count: int) -> int:
    """Bytes that `count` codes of `width` bits take without gaps: ceil(width * count / 8).

    >>> packed_bytes(3, 8), packed_bytes(3, 9), packed_bytes(8, 0)
    (3, 4, 0)
    """
    return (width * count + 7) // 8


def pack(codes: Sequence[int], width: int) -> bytes:
    """Pack codes of `width` bits one after the other, the first in the lowest bits.

    The last byte is filled with zero bits. Raises ValueError for a code that `width` bits cannot
    hold.

    >>> pack([1, 2, 3, 4], 4).hex()
    '2143'
    >>> pack([7, 0, 5], 3).hex()        # 101 000 111, from the right
    '4701'
    """
    number = 0
    for j, code in enumerate(codes):
        if not 0 <= code < 1 << width:
            raise ValueError(f"code {j} is {code}, which {width} bits cannot hold")
        number |= code << (j * width)
    return number.to_bytes(packed_bytes(width, len(codes)), "little")


def unpack(data: bytes, width: int, count: int) -> list[int]:
    """Return the first `count` codes: the inverse of `pack`.

    >>> unpack(pack([7, 0, 5], 3), 3, 3)
    [7, 0, 5]
    """
    number = int.from_bytes(data, "little")
    mask = (1 << width) - 1
    return [number >> (j * width) & mask for j in range(count)]


def pack_planes(codes: Sequence[int], width: int, stride: int) -> bytes:
    """Pack codes of `width` bits so that the codes of one byte are `stride` elements apart.

    This is ggml's layout. `stride` bytes hold a run of stride * 8 / width elements; byte j of the
    run holds its elements j, j + stride, j + 2 stride, ..., the first in the lowest bits.

    >>> pack_planes([1, 2, 3, 4], 4, 2).hex()
    '3142'
    >>> pack_planes([1, 2, 3, 4, 5, 6, 7, 8], 4, 2).hex()
    '31427586'
    """
    run_length = stride * (8 // width)
    out = bytearray()
    for start in range(0, len(codes), run_length):
        run = codes[start : start + run_length]
        out += b"".join(pack(run[j::stride], width) for j in range(stride))
    return bytes(out)


def unpack_planes(data: bytes, width: int, stride: int) -> list[int]:
    """Return all codes: the inverse of `pack_planes`.

    >>> unpack_planes(bytes.fromhex("31427586"), 4, 2)
    [1, 2, 3, 4, 5, 6, 7, 8]
    """
    mask = (1 << width) - 1
    return [
        byte >> shift & mask
        for start in range(0, len(data), stride)
        for shift in range(0, 8, width)
        for byte in data[start : start + stride]
    ]
