//! Scales of affine formats that weigh the error of each column; `reference/affine_search.py`
//! defines the search. All in f64, sums in element order.

use super::affine::Affine;

/// Factors on the largest |x| that symmetric scales are tried with: 1 - step i.
const SHRUNK: i32 = 30;
/// Each end of an asymmetric range is tried at 1, 0.9, ... of itself.
const ENDS: i32 = 6;

/// A group's scale and zero point.
#[derive(Clone, Copy)]
struct Fit {
    scale: f32,
    zero: i32,
    error: f64,
}

/// A group of weights, how much each counts, and the lowest and highest code less the zero point.
struct Group<'a> {
    x: &'a [f32],
    w: &'a [f32],
    low: i32,
    high: i32,
    /// Levels are -1 and 1.
    signs: bool,
}

impl Affine {
    /// Stores groups with the scales of the least weighted error; a group without any keeps the
    /// bytes that `out` holds.
    pub fn fit_row(&self, x: &[f32], importance: &[f32], out: &mut [u8]) {
        let size = self.group as usize;
        let groups = x.chunks(size).zip(importance.chunks(size));
        for ((x, w), out) in groups.zip(out.chunks_exact_mut(self.group_bytes())) {
            let n = if self.symmetric { self.middle() } else { (1 << self.bits) - 1 };
            let signs = self.symmetric && self.bits == 1;
            let group = Group { x, w, low: if self.symmetric { -n } else { 0 }, high: n, signs };
            let Some(fit) = (if self.symmetric { group.symmetric() } else { group.asymmetric() })
            else {
                continue;
            };
            let codes: Vec<u8> = x
                .iter()
                .map(|&x| {
                    let level = group.level(x, f64::from(fit.scale), fit.zero);
                    match (signs, self.symmetric) {
                        (true, _) => u8::from(level > 0.0),
                        (_, true) => (level as i32 + n) as u8,
                        _ => (level as i32 + fit.zero) as u8,
                    }
                })
                .collect();
            self.pack_group(fit.scale, fit.zero as u8, &codes, out);
        }
    }
}

impl Group<'_> {
    /// The best of scales that shrink the largest |x|.
    fn symmetric(&self) -> Option<Fit> {
        let peak = self.x.iter().fold(0f32, |peak, x| if x.abs() > peak { x.abs() } else { peak });
        let top = f64::from(if self.signs { 1 } else { self.high });
        let mut best = None;
        for i in 0..SHRUNK {
            let scale = f64::from(peak) / top * (1.0 - 0.025 * f64::from(i));
            self.attempt(scale, 0, &mut best);
        }
        best
    }

    /// The best of ranges whose ends shrink, 0 within them.
    fn asymmetric(&self) -> Option<Fit> {
        let (mut low, mut high) = (0f32, 0f32);
        for &x in self.x {
            low = if x < low { x } else { low };
            high = if x > high { x } else { high };
        }
        let mut best = None;
        for a in 0..ENDS {
            for b in 0..ENDS {
                let low = f64::from(low) * (1.0 - 0.1 * f64::from(a));
                let high = f64::from(high) * (1.0 - 0.1 * f64::from(b));
                let scale = (high - low) / f64::from(self.high);
                if scale > 0.0 {
                    let zero = (-low / scale).round_ties_even() as i32;
                    self.attempt(scale, zero.clamp(0, self.high), &mut best);
                }
            }
        }
        best
    }

    /// The level next to x / scale.
    #[inline(always)]
    fn level(&self, x: f32, scale: f64, zero: i32) -> f64 {
        if self.signs {
            return if x >= 0.0 { 1.0 } else { -1.0 };
        }
        let (low, high) = (f64::from(self.low - zero), f64::from(self.high - zero));
        (f64::from(x) / scale).round_ties_even().max(low).min(high)
    }

    /// Fits the scale to its levels twice, and replaces `best` if the error is less.
    fn attempt(&self, scale: f64, zero: i32, best: &mut Option<Fit>) {
        let mut scale = scale;
        for _ in 0..2 {
            let (mut a, mut b) = (0.0, 0.0);
            for (&x, &w) in self.x.iter().zip(self.w) {
                let (level, w) = (self.level(x, scale, zero), f64::from(w));
                a += w * f64::from(x) * level;
                b += w * level * level;
            }
            if !(a > 0.0 && b > 0.0) {
                return;
            }
            scale = a / b;
        }
        let scale = scale as f32;
        if !(scale.is_finite() && scale > 0.0) {
            return;
        }
        let mut error = 0.0;
        for (&x, &w) in self.x.iter().zip(self.w) {
            let off = f64::from(x) - f64::from(scale) * self.level(x, f64::from(scale), zero);
            error += f64::from(w) * off * off;
        }
        if best.is_none_or(|best| error < best.error) {
            *best = Some(Fit { scale, zero, error });
        }
    }
}
