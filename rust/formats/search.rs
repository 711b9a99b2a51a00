//! Searches for the scale of a block with the least error; `reference/search.py` defines them.
//!
//! Sums run in element order, each product and sum rounded, so that bytes are llama.cpp's. A single
//! sum in order cannot use vectors; blocks are independent of each other, so a vector lane is a
//! block and adds its elements in order. Sixteen lanes compile best.

#![allow(clippy::needless_range_loop)] // j and lane count across several arrays

/// Blocks smaller than this are stored as zero.
pub const TINY: f32 = 1e-15;

/// The integer nearest to x, ties to even; past 4194303 the low bits of adding 12582912.
#[inline(always)]
pub fn nearest(x: f32) -> i32 {
    ((x + 12_582_912.0).to_bits() & 0x007f_ffff) as i32 - 0x0040_0000
}

/// `nearest` as a float within low..=high, for |x| up to 4194303.
#[inline(always)]
fn rounded(x: f32, low: f32, high: f32) -> f32 {
    let level = x + 12_582_912.0 - 12_582_912.0;
    let level = if level > low { level } else { low };
    if level < high { level } else { high }
}

/// The first element whose absolute value is the largest, with its sign.
#[inline(always)]
pub fn signed_peak(x: &[f32]) -> f32 {
    let mut peak = 0f32;
    for &x in x {
        if x.abs() > peak.abs() {
            peak = x;
        }
    }
    peak
}

/// Tenths that a symmetric search's inverse scales differ from the first by, in their order.
const TENTHS: [i32; 18] = [-9, -8, -7, -6, -5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 6, 7, 8, 9];

/// Signed scales and levels -n..n-1, each stored + n, of S blocks at once; w = x^2 if not given.
#[inline(always)]
pub fn symmetric_search<const S: usize, const N: usize>(
    x: &[[f32; N]; S],
    n: i32,
    w: Option<&[[f32; N]; S]>,
) -> ([f32; S], [[u8; N]; S]) {
    let (mut peak, lanes) = ([0f32; S], transposed(x));
    for k in 0..S {
        peak[k] = signed_peak(&x[k]);
    }
    let mut weights = lanes;
    match w {
        Some(w) => weights = transposed(w),
        None => weights.as_flattened_mut().iter_mut().for_each(|x| *x *= *x),
    }
    let mut inverse = [0f32; S];
    for k in 0..S {
        inverse[k] = -(n as f32) / peak[k];
    }
    let (a, b) = gains(&lanes, &weights, n, &inverse);
    let (mut scale, mut gain) = ([0f32; S], [0f32; S]);
    for k in 0..S {
        scale[k] = if b[k] != 0.0 { a[k] / b[k] } else { 0.0 };
        gain[k] = scale[k] * a[k];
    }
    for s in TENTHS {
        let mut tried = [0f32; S];
        for k in 0..S {
            tried[k] = -(n as f32 + 0.1 * s as f32) / peak[k];
        }
        let (a, b) = gains(&lanes, &weights, n, &tried);
        for k in 0..S {
            let better = (b[k] > 0.0) & (a[k] * a[k] > gain[k] * b[k]);
            let fitted = a[k] / b[k];
            scale[k] = if better { fitted } else { scale[k] };
            gain[k] = if better { fitted * a[k] } else { gain[k] };
            inverse[k] = if better { tried[k] } else { inverse[k] };
        }
    }
    let mut codes = [[0; N]; S];
    for k in 0..S {
        if peak[k].abs() < TINY {
            scale[k] = 0.0;
            continue;
        }
        for j in 0..N {
            codes[k][j] = (nearest(inverse[k] * x[k][j]).clamp(-n, n - 1) + n) as u8;
        }
    }
    (scale, codes)
}

/// sum(w x l) and sum(w l l) of each lane, l = nearest(inverse x).
#[inline(always)]
fn gains<const S: usize, const N: usize>(
    x: &[[f32; S]; N],
    w: &[[f32; S]; N],
    n: i32,
    inverse: &[f32; S],
) -> ([f32; S], [f32; S]) {
    let (low, high) = (-n as f32, (n - 1) as f32);
    let (mut a, mut b) = ([0f32; S], [0f32; S]);
    for j in 0..N {
        for k in 0..S {
            let level = rounded(inverse[k] * x[j][k], low, high);
            a[k] += w[j][k] * x[j][k] * level;
            b[k] += w[j][k] * level * level;
        }
    }
    (a, b)
}

/// As `symmetric_search` with w = x^2, but moving one level at a time, at most 5 rounds.
#[inline(always)]
pub fn coordinate_search<const N: usize>(x: &[f32; N], n: i32) -> (f32, [u8; N]) {
    let peak = signed_peak(x);
    if peak.abs() < TINY {
        return (0.0, [0; N]);
    }
    let (mut w, mut levels) = ([0f32; N], [0i32; N]);
    let inverse = -n as f32 / peak;
    for j in 0..N {
        w[j] = x[j] * x[j];
        levels[j] = nearest(inverse * x[j]).clamp(-n, n - 1);
    }
    let start = sums(x, &w, &levels);
    let (a, b) = sweep(x, &w, &mut levels, start, -n, n - 1);
    let mut codes = [0; N];
    for j in 0..N {
        codes[j] = (levels[j] + n) as u8;
    }
    (if b != 0.0 { a / b } else { 0.0 }, codes)
}

/// a = sum(w x l) and b = sum(w l l).
#[inline(always)]
fn sums(x: &[f32], w: &[f32], levels: &[i32]) -> (f32, f32) {
    let (mut a, mut b) = (0f32, 0f32);
    for ((x, w), level) in x.iter().zip(w).zip(levels) {
        let level = *level as f32;
        a += w * x * level;
        b += w * level * level;
    }
    (a, b)
}

/// Improves `levels` while a a / b grows, from the `sums` given, and returns both. Levels of at
/// least `low` = 0 are kept in a byte, as llama.cpp keeps them: -1, of a negative x, is then 255.
#[inline(always)]
fn sweep(
    x: &[f32],
    w: &[f32],
    levels: &mut [i32],
    (mut a, mut b): (f32, f32),
    low: i32,
    high: i32,
) -> (f32, f32) {
    for _ in 0..5 {
        let mut changed = false;
        for ((&x, &w), level) in x.iter().zip(w).zip(&mut *levels) {
            let old = *level as f32;
            let (rest_a, rest_b) = (a - w * x * old, b - w * old * old);
            let usable = rest_a > 0.0 && (low != 0 || rest_b > 0.0);
            if !usable {
                continue;
            }
            let wanted = nearest(x * rest_b / rest_a).min(high);
            let moved = if low < 0 { wanted.max(low) } else { wanted };
            let new = moved as f32;
            let (new_a, new_b) = (rest_a + w * x * new, rest_b + w * new * new);
            if moved != *level && new_b > 0.0 && new_a * new_a * b > a * a * new_b {
                let stored = if low < 0 { moved } else { moved & 255 };
                (*level, a, b, changed) = (stored, new_a, new_b, true);
            }
        }
        if !changed {
            break;
        }
    }
    (a, b)
}

/// Inverse scales that an affine search tries: (n + first + step s) / range, s = 0..=count.
#[derive(Clone, Copy)]
pub struct Grid {
    pub first: f32,
    pub step: f32,
    pub count: usize,
}

/// What an affine search found for one block: x is about scale l - minimum.
#[derive(Clone, Copy)]
pub struct Affine<const N: usize> {
    pub scale: f32,
    /// At least 0.
    pub minimum: f32,
    pub codes: [u8; N],
}

/// Scales, minima and levels 0..n of S blocks at once: a lane is a block, as each candidate starts
/// from the minimum of the one accepted before it.
#[inline(always)]
pub fn affine_search<const S: usize, const N: usize>(
    x: &[[f32; N]; S],
    n: i32,
    w: &[[f32; N]; S],
    grid: Grid,
    absolute: bool,
) -> [Affine<N>; S] {
    let blocks = Blocks { x: transposed(x), w: transposed(w), n, absolute };
    let sums = blocks.sums();
    let mut best = Fit { inverse: [0f32; S], from: sums.low, scale: [0f32; S], low: sums.low };
    for k in 0..S {
        best.inverse[k] = n as f32 / (sums.high[k] - sums.low[k]);
        best.scale[k] = 1.0 / best.inverse[k];
    }
    let mut error = [0f32; S];
    let mut levels = [[0f32; S]; N];
    blocks.round(&best, &mut levels);
    blocks.errors(&best, &levels, &mut error);
    for s in 0..=grid.count {
        let tried = grid.first + grid.step * s as f32;
        let mut fit = Fit { from: best.low, ..best };
        for k in 0..S {
            fit.inverse[k] = (tried + n as f32) / (sums.high[k] - best.low[k]);
        }
        let solvable = blocks.fit(&mut fit, &sums, &mut levels);
        let mut e = [0f32; S];
        blocks.errors(&fit, &levels, &mut e);
        for k in 0..S {
            let better = solvable[k] & (e[k] < error[k]);
            error[k] = if better { e[k] } else { error[k] };
            best.inverse[k] = if better { fit.inverse[k] } else { best.inverse[k] };
            best.from[k] = if better { fit.from[k] } else { best.from[k] };
            best.scale[k] = if better { fit.scale[k] } else { best.scale[k] };
            best.low[k] = if better { fit.low[k] } else { best.low[k] };
        }
    }
    blocks.round(&best, &mut levels);
    std::array::from_fn(|k| {
        if sums.high[k] <= sums.low[k] {
            return Affine { scale: 0.0, minimum: -sums.low[k], codes: [0; N] };
        }
        let codes = std::array::from_fn(|j| levels[j][k] as u8);
        Affine { scale: best.scale[k], minimum: -best.low[k], codes }
    })
}

#[inline(always)]
fn transposed<const S: usize, const N: usize>(rows: &[[f32; N]; S]) -> [[f32; S]; N] {
    let mut out = [[0f32; S]; N];
    for k in 0..S {
        for j in 0..N {
            out[j][k] = rows[k][j];
        }
    }
    out
}

/// S blocks of N values with weights, a lane each.
struct Blocks<const S: usize, const N: usize> {
    x: [[f32; S]; N],
    w: [[f32; S]; N],
    n: i32,
    absolute: bool,
}

/// The lowest value (not above 0) and the highest, sum(w) and sum(w x).
struct Sums<const S: usize> {
    low: [f32; S],
    high: [f32; S],
    w: [f32; S],
    wx: [f32; S],
}

/// Levels nearest(inverse (x - from)), and the scale and minimum fitted to them.
#[derive(Clone, Copy)]
struct Fit<const S: usize> {
    inverse: [f32; S],
    from: [f32; S],
    scale: [f32; S],
    low: [f32; S],
}

impl<const S: usize, const N: usize> Blocks<S, N> {
    #[inline(always)]
    fn sums(&self) -> Sums<S> {
        let mut sums = Sums { low: [0.0; S], high: self.x[0], w: [0.0; S], wx: [0.0; S] };
        for j in 0..N {
            for k in 0..S {
                let (x, w) = (self.x[j][k], self.w[j][k]);
                sums.low[k] = if x < sums.low[k] { x } else { sums.low[k] };
                sums.high[k] = if x > sums.high[k] { x } else { sums.high[k] };
                sums.w[k] += w;
                sums.wx[k] += w * x;
            }
        }
        sums
    }

    #[inline(always)]
    fn round(&self, fit: &Fit<S>, levels: &mut [[f32; S]; N]) {
        for j in 0..N {
            for k in 0..S {
                let level = nearest(fit.inverse[k] * (self.x[j][k] - fit.from[k]));
                levels[j][k] = level.clamp(0, self.n) as f32;
            }
        }
    }

    /// Rounds, then sets scale and minimum (not above 0) by least squares; false where the sums
    /// determine neither.
    #[inline(always)]
    fn fit(&self, fit: &mut Fit<S>, sums: &Sums<S>, levels: &mut [[f32; S]; N]) -> [bool; S] {
        let (mut l, mut ll, mut xl) = ([0f32; S], [0f32; S], [0f32; S]);
        for j in 0..N {
            for k in 0..S {
                let x = self.x[j][k];
                let level = nearest(fit.inverse[k] * (x - fit.from[k])).clamp(0, self.n) as f32;
                let weighted = self.w[j][k] * level;
                levels[j][k] = level;
                l[k] += weighted;
                ll[k] += weighted * level;
                xl[k] += weighted * x;
            }
        }
        let mut solvable = [false; S];
        for k in 0..S {
            let d = sums.w[k] * ll[k] - l[k] * l[k];
            let low = (ll[k] * sums.wx[k] - l[k] * xl[k]) / d;
            let scale = (sums.w[k] * xl[k] - sums.wx[k] * l[k]) / d;
            solvable[k] = d > 0.0;
            fit.low[k] = if low > 0.0 { 0.0 } else { low };
            fit.scale[k] = if low > 0.0 { xl[k] / ll[k] } else { scale };
        }
        solvable
    }

    /// sum(w |e|) or sum(w e e), e = scale l + low - x.
    #[inline(always)]
    fn errors(&self, fit: &Fit<S>, levels: &[[f32; S]; N], error: &mut [f32; S]) {
        for j in 0..N {
            for k in 0..S {
                let off = fit.scale[k] * levels[j][k] + fit.low[k] - self.x[j][k];
                let size = if self.absolute { off.abs() } else { off * off };
                error[k] += self.w[j][k] * size;
            }
        }
    }
}

/// A scale and levels 0..n for values of at least 0 (but for a few): how super-blocks store their
/// blocks' scales.
#[inline(always)]
pub fn scale_quantizer<const N: usize>(v: &[f32; N], n: i32, w: &[f32; N]) -> (f32, [u8; N]) {
    let mut peak = 0f32;
    for &v in v {
        peak = if v > peak { v } else { peak };
    }
    if peak < TINY {
        return (0.0, [0; N]);
    }
    let (mut inverse, mut best) = (0f32, 0f32);
    for lane in 0..9 {
        let s = if lane == 0 {
            0
        } else if lane <= 4 {
            lane - 5
        } else {
            lane - 4
        };
        let tried = (0.1 * s as f32 + n as f32) / peak;
        let mut error = 0f32;
        for j in 0..N {
            let level = nearest(tried * v[j]);
            let level = if s == 0 { level & 255 } else { level.min(n) };
            let off = v[j] - 1.0 / tried * level as f32;
            error += w[j] * off * off;
        }
        if s == 0 || error < best {
            (inverse, best) = (tried, error);
        }
    }
    let mut levels = [0i32; N];
    for j in 0..N {
        levels[j] = nearest(inverse * v[j]).min(n);
    }
    let start = sums(v, w, &levels);
    levels = levels.map(|level| level & 255);
    let (a, b) = sweep(v, w, &mut levels, start, 0, n);
    let mut codes = [0; N];
    for j in 0..N {
        codes[j] = levels[j] as u8;
    }
    (if b != 0.0 { a / b } else { 0.0 }, codes)
}
