//! Packing codes into bits: several codes in a byte, or one code across two bytes.

/// ORs codes of `BITS` bits, shifted up by `up`, into `q`: neighbours in a byte are `stride`
/// elements apart, the first in the lowest bits (`pack_planes` of `reference/bits.py`).
#[inline(always)]
pub fn join_planes<const BITS: usize>(data: &[u8], stride: usize, up: usize, q: &mut [u8]) {
    let mask = (1u8 << BITS) - 1;
    for (bytes, q) in data.chunks_exact(stride).zip(q.chunks_exact_mut(stride * (8 / BITS))) {
        for (k, q) in q.chunks_exact_mut(stride).enumerate() {
            for (q, byte) in q.iter_mut().zip(bytes) {
                *q |= (byte >> (k * BITS) & mask) << up;
            }
        }
    }
}

/// The inverse: writes `BITS` bits of each code from bit `from` on.
#[inline(always)]
pub fn split_planes<const BITS: usize>(q: &[u8], stride: usize, from: usize, out: &mut [u8]) {
    let mask = (1u8 << BITS) - 1;
    for (bytes, q) in out.chunks_exact_mut(stride).zip(q.chunks_exact(stride * (8 / BITS))) {
        bytes.fill(0);
        for (k, q) in q.chunks_exact(stride).enumerate() {
            for (byte, q) in bytes.iter_mut().zip(q) {
                *byte |= (q >> from & mask) << (k * BITS);
            }
        }
    }
}

/// A byte of all ones for each bit that is set, the lowest first.
#[inline(always)]
pub fn byte_masks(bits: u8) -> u64 {
    MASKS[usize::from(bits)]
}

static MASKS: [u64; 256] = masks();

const fn masks() -> [u64; 256] {
    let (mut out, mut bits) = ([0; 256], 0);
    while bits < 256 {
        let mut j = 0;
        while j < 8 {
            out[bits] |= if bits >> j & 1 == 1 { 0xff << (8 * j) } else { 0 };
            j += 1;
        }
        bits += 1;
    }
    out
}

/// Reads codes of `bits` bits that lie one behind the other, the first in the lowest bits; `bytes`
/// may hold more of them.
pub fn unpack(bytes: &[u8], bits: u8, q: &mut [u8]) {
    match bits {
        1 => unpack_eights::<1>(bytes, q),
        2 => unpack_eights::<2>(bytes, q),
        3 => unpack_eights::<3>(bytes, q),
        4 => unpack_eights::<4>(bytes, q),
        5 => unpack_eights::<5>(bytes, q),
        6 => unpack_eights::<6>(bytes, q),
        7 => unpack_eights::<7>(bytes, q),
        _ => q.copy_from_slice(&bytes[..q.len()]),
    }
}

/// Eight codes at a time: they take `BITS` bytes.
fn unpack_eights<const BITS: usize>(bytes: &[u8], q: &mut [u8]) {
    let (eights, rest) = q.as_chunks_mut::<8>();
    let (words, last) = bytes.split_at(BITS * eights.len());
    for (q, bytes) in eights.iter_mut().zip(words.as_chunks::<BITS>().0) {
        *q = unpack_eight(*bytes);
    }
    let mut bytes = [0; BITS];
    for (byte, &last) in bytes.iter_mut().zip(last) {
        *byte = last;
    }
    rest.copy_from_slice(&unpack_eight(bytes)[..rest.len()]);
}

#[inline(always)]
fn unpack_eight<const BITS: usize>(bytes: [u8; BITS]) -> [u8; 8] {
    let mut word = [0; 8];
    word[..BITS].copy_from_slice(&bytes);
    let word = u64::from_le_bytes(word);
    std::array::from_fn(|i| (word >> (i * BITS)) as u8 & ((1 << BITS) - 1))
}

/// Writes code `i` of codes of `bits` bits into zeroed bytes; the inverse of `unpack`.
#[inline(always)]
pub fn pack(code: u8, bits: u32, i: usize, out: &mut [u8]) {
    let at = i * bits as usize;
    let wide = u16::from(code) << (at % 8);
    out[at / 8] |= wide as u8;
    if at % 8 + bits as usize > 8 {
        out[at / 8 + 1] |= (wide >> 8) as u8;
    }
}
