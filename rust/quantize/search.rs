//! The searches for a block's scale; `reference/search.py` says what they find and why.
//!
//! Sums run in element order, each product and sum rounded, so that bytes are llama.cpp's. A single
//! sum in order cannot use vectors; candidates are independent of each other, so a vector lane
//! holds a candidate scale, and each lane adds its elements in order.

#![allow(clippy::needless_range_loop)] // j and lane count across several arrays

/// Blocks smaller than this are stored as zero.
pub const TINY: f32 = 1e-15;

/// Candidate scales of a symmetric search, 0, -9..-1, 1..9 tenths, in whole vectors.
const CANDIDATES: usize = 24;
const TRIED: usize = 19;
/// Candidates that an affine search looks at together.
const LANES: usize = 8;

/// The integer nearest to x, ties to even; past 4194303 the low bits of adding 12582912.
#[inline(always)]
pub fn nearest(x: f32) -> i32 {
    ((x + 12_582_912.0).to_bits() & 0x007f_ffff) as i32 - 0x0040_0000
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

/// A signed scale and levels -n..n-1, each stored + n; w = x^2 if not given.
#[inline(always)]
pub fn symmetric_search<const N: usize>(
    x: &[f32; N],
    n: i32,
    w: Option<&[f32; N]>,
) -> (f32, [u8; N]) {
    let mut codes = [0; N];
    let peak = signed_peak(x);
    if peak.abs() < TINY {
        return (0.0, codes);
    }
    let inverses = symmetric_candidates(n, peak);
    let (mut a, mut b) = ([0f32; CANDIDATES], [0f32; CANDIDATES]);
    for j in 0..N {
        let (weight, weighted) = match w {
            Some(w) => (w[j], w[j] * x[j]),
            None => (x[j] * x[j], x[j] * x[j] * x[j]),
        };
        for lane in 0..CANDIDATES {
            let level = nearest(inverses[lane] * x[j]).clamp(-n, n - 1) as f32;
            a[lane] += weighted * level;
            b[lane] += weight * level * level;
        }
    }
    let (mut best, mut scale) = (0, if b[0] != 0.0 { a[0] / b[0] } else { 0.0 });
    let mut gain = scale * a[0];
    for lane in 1..TRIED {
        if b[lane] > 0.0 && a[lane] * a[lane] > gain * b[lane] {
            (best, scale) = (lane, a[lane] / b[lane]);
            gain = scale * a[lane];
        }
    }
    for j in 0..N {
        codes[j] = (nearest(inverses[best] * x[j]).clamp(-n, n - 1) + n) as u8;
    }
    (scale, codes)
}

/// -(n + s/10) / peak for s = 0, -9..-1, 1..9; the lanes behind repeat the first.
#[inline(always)]
fn symmetric_candidates(n: i32, peak: f32) -> [f32; CANDIDATES] {
    let mut inverses = [-(n as f32 + 0.1 * 0.0) / peak; CANDIDATES];
    for lane in 1..TRIED {
        let s = if lane <= 9 { lane as i32 - 10 } else { lane as i32 - 9 };
        inverses[lane] = -(n as f32 + 0.1 * s as f32) / peak;
    }
    inverses
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
                let kept = if low < 0 { moved } else { moved & 255 };
                (*level, a, b, changed) = (kept, new_a, new_b, true);
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

/// Scale, minimum (as its negative, at least 0) and levels 0..n: x is about scale l - minimum.
///
/// Accepting a candidate moves the minimum that later ones start from, so those that were looked
/// at together behind it are looked at again.
#[inline(always)]
pub fn affine_search<const N: usize>(
    x: &[f32; N],
    n: i32,
    w: &[f32; N],
    grid: Grid,
    absolute: bool,
) -> (f32, f32, [u8; N]) {
    let (mut low, mut high) = (0f32, x[0]);
    let (mut sum_w, mut sum_wx) = (0f32, 0f32);
    for j in 0..N {
        low = if x[j] < low { x[j] } else { low };
        high = if x[j] > high { x[j] } else { high };
        sum_w += w[j];
        sum_wx += w[j] * x[j];
    }
    if high <= low {
        return (0.0, -low, [0; N]);
    }
    let start = n as f32 / (high - low);
    let mut found = Fit { inverse: start, from: low, scale: 1.0 / start, low };
    let mut error = first_error(x, n, w, &found, absolute);
    let mut s = 0;
    while s <= grid.count {
        let mut inverses = [0f32; LANES];
        for (lane, inverse) in inverses.iter_mut().enumerate() {
            let tried = grid.first + grid.step * (s + lane) as f32;
            *inverse = (tried + n as f32) / (high - found.low);
        }
        let fits = fit(x, n, w, &inverses, found.low, (sum_w, sum_wx), absolute);
        let lanes = LANES.min(grid.count + 1 - s);
        let mut step = lanes;
        for (lane, (fit, e)) in fits.iter().enumerate().take(lanes) {
            if *e < error {
                (found, error) = (*fit, *e);
                step = lane + 1;
                break;
            }
        }
        s += step;
    }
    let mut codes = [0; N];
    for j in 0..N {
        codes[j] = nearest(found.inverse * (x[j] - found.from)).clamp(0, n) as u8;
    }
    (found.scale, -found.low, codes)
}

/// Levels nearest(inverse (x - from)), and the scale and minimum fitted to them.
#[derive(Clone, Copy)]
struct Fit {
    inverse: f32,
    from: f32,
    scale: f32,
    low: f32,
}

#[inline(always)]
fn first_error<const N: usize>(
    x: &[f32; N],
    n: i32,
    w: &[f32; N],
    fit: &Fit,
    absolute: bool,
) -> f32 {
    let mut error = 0f32;
    for j in 0..N {
        let level = nearest(fit.inverse * (x[j] - fit.from)).clamp(0, n) as f32;
        let off = fit.scale * level + fit.low - x[j];
        error += if absolute { w[j] * off.abs() } else { w[j] * (off * off) };
    }
    error
}

/// Least squares for each candidate, and its error; infinite where there is no solution.
#[inline(always)]
fn fit<const N: usize>(
    x: &[f32; N],
    n: i32,
    w: &[f32; N],
    inverses: &[f32; LANES],
    from: f32,
    sums: (f32, f32),
    absolute: bool,
) -> [(Fit, f32); LANES] {
    let mut levels = [[0f32; LANES]; N];
    let (mut l, mut ll, mut xl) = ([0f32; LANES], [0f32; LANES], [0f32; LANES]);
    for j in 0..N {
        let shifted = x[j] - from;
        for lane in 0..LANES {
            let level = nearest(inverses[lane] * shifted).clamp(0, n) as f32;
            let weighted = w[j] * level;
            levels[j][lane] = level;
            l[lane] += weighted;
            ll[lane] += weighted * level;
            xl[lane] += weighted * x[j];
        }
    }
    let (mut scale, mut low, mut error) = ([0f32; LANES], [0f32; LANES], [0f32; LANES]);
    for lane in 0..LANES {
        (scale[lane], low[lane], error[lane]) = solve(l[lane], ll[lane], xl[lane], sums);
    }
    for j in 0..N {
        for lane in 0..LANES {
            let off = scale[lane] * levels[j][lane] + low[lane] - x[j];
            let part = if absolute { w[j] * off.abs() } else { w[j] * (off * off) };
            error[lane] += part;
        }
    }
    let mut fits = [(Fit { inverse: 0.0, from, scale: 0.0, low: 0.0 }, 0f32); LANES];
    for lane in 0..LANES {
        let fit = Fit { inverse: inverses[lane], from, scale: scale[lane], low: low[lane] };
        fits[lane] = (fit, error[lane]);
    }
    fits
}

/// The scale and the minimum (not above 0) with the smallest squared error, and an error of 0, or
/// of infinity where the sums determine neither.
#[inline(always)]
fn solve(l: f32, ll: f32, xl: f32, (sum_w, sum_wx): (f32, f32)) -> (f32, f32, f32) {
    let d = sum_w * ll - l * l;
    let solvable = d > 0.0;
    if !solvable {
        return (0.0, 0.0, f32::INFINITY);
    }
    let low = (ll * sum_wx - l * xl) / d;
    if low <= 0.0 {
        return ((sum_w * xl - sum_wx * l) / d, low, 0.0);
    }
    (xl / ll, 0.0, 0.0)
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
