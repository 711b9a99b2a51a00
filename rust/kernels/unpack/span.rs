//! Unpacking packed codes: one byte a code, one f32 a scale, for a span of 256 columns of 16 rows.

use crate::formats::Codes;
use crate::kernels::data::Span;
use crate::kernels::isa::bytes::Bytes;
use crate::kernels::layout::pack::planes;
use crate::kernels::layout::packed::{Packed, Storage};
use crate::kernels::outlined::Outlined;
use crate::kernels::shape::{CHUNK_BYTES, LANES, SPAN, STEP_BYTES, STEPS};

/// Unpacks `count` chunks (up to a span) of 16 rows from chunk `first`, a multiple of `SPAN`, on.
///
/// Scales are not written if groups do not fit chunks (`Packed::takes_int8`); with `integer_scales` they are
/// written as integers, see `widen_span`.
///
/// # Safety
///
/// `w` holds codes of the block and its chunks, `out` has room, the CPU has the instruction set.
#[inline(always)]
pub unsafe fn unpack_span<I: Outlined>(
    w: &Packed,
    block: usize,
    first: usize,
    count: usize,
    integer_scales: bool,
    out: Span,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let data = w.data.as_ptr().add(block * w.block_bytes);
        match w.storage {
            Storage::Floats(_) => {}
            Storage::Words(format, _) => {
                let words = data.add(first / SPAN * LANES * format.block_bytes());
                I::look_up_span(format, words, integer_scales, out);
            }
            Storage::Planes(codes) => {
                unpack_chunks::<I>(w, &codes, data, first, count, out.codes);
                if w.takes_int8() {
                    let source = w.source(block);
                    I::widen_span(&codes, source, first, count, integer_scales, out);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn unpack_chunks<I: Bytes>(
    w: &Packed,
    codes: &Codes,
    data: *const u8,
    first: usize,
    count: usize,
    out: *mut u8,
) {
    let bits = codes.stored_bits();
    for chunk in 0..count {
        // SAFETY: the contract of `unpack_span`.
        unsafe {
            let from = data.add((first + chunk) * STEP_BYTES * bits);
            let to = out.add(chunk * CHUNK_BYTES);
            match bits {
                1 => unpack::<I, 1>(from, to),
                2 => unpack::<I, 2>(from, to),
                3 => unpack::<I, 3>(from, to),
                4 => unpack::<I, 4>(from, to),
                5 => unpack::<I, 5>(from, to),
                6 => unpack::<I, 6>(from, to),
                7 => unpack::<I, 7>(from, to),
                _ => unpack::<I, 8>(from, to),
            }
            if !codes.levels.is_empty() {
                for step in 0..STEPS {
                    let at = to.add(step * STEP_BYTES);
                    I::store_bytes(at, I::look_up(I::bytes(at), w.levels.as_ptr()));
                }
            }
        }
    }
}

/// Unpacks one chunk's planes to a byte a code.
#[inline(always)]
unsafe fn unpack<I: Bytes, const BITS: usize>(data: *const u8, out: *mut u8) {
    for step in 0..STEPS {
        // SAFETY: a chunk takes 64 BITS bytes, its codes 8 x 64.
        unsafe { I::store_bytes(out.add(step * STEP_BYTES), unpack_step::<I, BITS>(data, step)) }
    }
}

/// The codes of step `step` of one chunk's planes; `step` should be a constant to the compiler.
///
/// # Safety
///
/// `data` holds the planes of a chunk, the CPU has the instruction set.
#[inline(always)]
pub unsafe fn unpack_step<I: Bytes, const BITS: usize>(data: *const u8, step: usize) -> I::B {
    // SAFETY: the caller's promise.
    unsafe {
        let split = planes(BITS);
        let mut q =
            field::<I>(I::bytes(data.add(step * split[0] / 8 * STEP_BYTES)), step, split[0]);
        let (mut low, mut at) = (split[0], STEP_BYTES * split[0]);
        for plane in split.into_iter().skip(1) {
            if plane > 0 {
                let bytes = I::bytes(data.add(at + step * plane / 8 * STEP_BYTES));
                q = I::or(q, I::raise(field::<I>(bytes, step, plane), low as u32));
            }
            low += plane;
            at += STEP_BYTES * plane;
        }
        q
    }
}

#[inline(always)]
unsafe fn field<I: Bytes>(bytes: I::B, step: usize, plane: usize) -> I::B {
    if plane == 8 {
        return bytes;
    }
    // SAFETY: the CPU has the instruction set.
    unsafe { I::field(bytes, (step * plane % 8) as u32, plane as u32) }
}
