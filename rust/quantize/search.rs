//! The searches for a block's scale; a port of `reference/search.py`.

/// The integer nearest to x, ties to even; past 4194303 the low bits of adding 12582912.
#[inline(always)]
pub fn nearest(x: f32) -> i32 {
    ((x + 12_582_912.0).to_bits() & 0x007f_ffff) as i32 - 0x0040_0000
}

pub fn symmetric_search(x: &[f32], n: i32, w: Option<&[f32]>, levels: &mut [u8]) -> f32 {
    let _ = (x, n, w, levels);
    unimplemented!()
}

pub fn affine_search(
    x: &[f32],
    n: i32,
    w: &[f32],
    grid: (f32, f32, i32),
    absolute: bool,
    levels: &mut [u8],
) -> (f32, f32) {
    let _ = (x, n, w, grid, absolute, levels);
    unimplemented!()
}
