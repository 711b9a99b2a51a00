//! What logits say about a text: negative log-likelihood, and how two models' predictions differ.
//!
//! Rows are independent and run in parallel; logits are f32, every exponential, logarithm and sum
//! is f64. A row with a NaN or +inf among its logits, or with nothing but -inf, has no softmax:
//! its measures are NaN, never a number that hides it. One -inf is a probability of zero.

use crate::error::{Error, Result};
use crate::threads::in_pool;
use rayon::prelude::*;

/// One entry per row of logits.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Divergence {
    /// -ln p(target) under the base model, in nats.
    pub nll_base: Vec<f64>,
    /// -ln q(target) under the model that is compared, in nats.
    pub nll: Vec<f64>,
    /// Kullback-Leibler divergence, sum over the vocabulary of p (ln p - ln q), in nats.
    pub kld: Vec<f64>,
    /// q(target) - p(target).
    pub dp: Vec<f64>,
    /// Whether both models hold the same token likeliest; of equal logits the first counts.
    pub same_top: Vec<bool>,
}

/// -ln softmax(row)\[target\] in nats for each row of `logits` [targets.len(), vocab].
///
/// # Errors
/// `logits` has another size, or a target is not in the vocabulary.
pub fn nll(logits: &[f32], vocab: usize, targets: &[u32]) -> Result<Vec<f64>> {
    check(logits, vocab, targets)?;
    let rows = logits.par_chunks_exact(vocab).zip(targets);
    in_pool(0, || rows.map(|(row, &target)| Row::new(row).nll(target)).collect())
}

/// How `logits` diverge from `base`, both [targets.len(), vocab], where p is the base.
///
/// # Errors
/// As [`nll`].
pub fn divergence(
    base: &[f32],
    logits: &[f32],
    vocab: usize,
    targets: &[u32],
) -> Result<Divergence> {
    check(base, vocab, targets)?;
    check(logits, vocab, targets)?;
    let pairs = base.par_chunks_exact(vocab).zip(logits.par_chunks_exact(vocab));
    let rows = pairs.zip(targets).map(|((p, q), &target)| {
        let (mut p, mut q) = (Row::without_sum(p), Row::without_sum(q));
        let kld = p.diverge(&mut q);
        let (nll_base, nll) = (p.nll(target), q.nll(target));
        let same_top = p.top == q.top && !p.sum.is_nan() && !q.sum.is_nan();
        (nll_base, nll, kld, (-nll).exp() - (-nll_base).exp(), same_top)
    });
    let rows: Vec<_> = in_pool(0, || rows.collect())?;
    let mut all = Divergence::default();
    for (nll_base, nll, kld, dp, same_top) in rows {
        all.nll_base.push(nll_base);
        all.nll.push(nll);
        all.kld.push(kld);
        all.dp.push(dp);
        all.same_top.push(same_top);
    }
    Ok(all)
}

fn check(logits: &[f32], vocab: usize, targets: &[u32]) -> Result<()> {
    if vocab == 0 || logits.len() != targets.len() * vocab {
        let (found, rows) = (logits.len(), targets.len());
        return Err(Error::shape(format!(
            "expected {rows} x {vocab} logits for {rows} targets, found {found}"
        )));
    }
    match targets.iter().find(|&&target| target as usize >= vocab) {
        None => Ok(()),
        Some(target) => {
            Err(Error::input(format!("token {target} is not in the vocabulary of {vocab}")))
        }
    }
}

/// A row of logits with its likeliest token, that token's logit and the sum of exp(logit - that).
pub struct Row<'a> {
    logits: &'a [f32],
    top: usize,
    largest: f64,
    sum: f64,
}

impl<'a> Row<'a> {
    /// Finds the likeliest token and the sum.
    pub fn new(logits: &'a [f32]) -> Self {
        let mut row = Self::without_sum(logits);
        row.sum = sums(&row, &row).q;
        row
    }

    fn without_sum(logits: &'a [f32]) -> Self {
        let mut top = 0;
        for (i, &x) in logits.iter().enumerate() {
            if x > logits[top] {
                top = i;
            }
        }
        Self { logits, top, largest: f64::from(logits[top]), sum: f64::NAN }
    }

    /// False with NaN or +inf among the logits, or nothing but -inf.
    pub fn has_softmax(&self) -> bool {
        !self.sum.is_nan()
    }

    /// -ln p(target) in nats.
    pub fn nll(&self, target: u32) -> f64 {
        self.sum.ln() - (f64::from(self.logits[target as usize]) - self.largest)
    }

    /// Fills in both sums and gives the divergence of `q` from `self`. With
    /// ln p = (x - largest) - ln sum, the two logarithms leave the sum over the vocabulary, so one
    /// pass does; a row against itself gives exactly 0.
    fn diverge(&mut self, q: &mut Self) -> f64 {
        let found = sums(self, q);
        (self.sum, q.sum) = (found.p, found.q);
        found.weighted / found.p - found.p.ln() + found.q.ln()
    }
}

/// What one pass over two rows adds up, with a = x - largest of each.
struct Sums {
    /// exp(a) of the first row.
    p: f64,
    /// exp(a) of the second.
    q: f64,
    /// exp(a) of the first times the difference of both a.
    weighted: f64,
}

/// Eight sums run side by side and are added in order at the end: the same bits on every machine.
const LANES: usize = 8;

fn sums(p: &Row, q: &Row) -> Sums {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the feature was just found on this processor.
        return unsafe { sums_avx2(p, q) };
    }
    sums_of(p, q)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sums_avx2(p: &Row, q: &Row) -> Sums {
    sums_of(p, q)
}

#[inline(always)]
fn sums_of(p: &Row, q: &Row) -> Sums {
    let mut total = [[0.0; LANES]; 3];
    let (chunks_p, rest_p) = p.logits.as_chunks::<LANES>();
    let (chunks_q, rest_q) = q.logits.as_chunks::<LANES>();
    for (x, y) in chunks_p.iter().zip(chunks_q) {
        add(&mut total, x, y, p.largest, q.largest);
    }
    if !rest_p.is_empty() {
        let (mut x, mut y) = ([f32::NEG_INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
        x[..rest_p.len()].copy_from_slice(rest_p);
        y[..rest_q.len()].copy_from_slice(rest_q);
        add(&mut total, &x, &y, p.largest, q.largest);
    }
    let [p, q, weighted] = total.map(|lanes| lanes.iter().sum());
    Sums { p, q, weighted }
}

#[inline(always)]
fn add(total: &mut [[f64; LANES]; 3], x: &[f32; LANES], y: &[f32; LANES], p: f64, q: f64) {
    for i in 0..LANES {
        let (a, b) = (f64::from(x[i]) - p, f64::from(y[i]) - q);
        let e = exp(a);
        total[0][i] += e;
        total[1][i] += exp(b);
        total[2][i] += if a < LEAST { 0.0 } else { e * (a - b) };
    }
}

/// Below this exp is taken as 0: e^-700 is 1e-304.
const LEAST: f64 = -700.0;

/// 1/13!, 1/12! .. 1/0!: for |r| <= ln(2)/2 the first term left out is less than 2e-17.
const TAYLOR: [f64; 14] = {
    let mut series = [1.0; 14];
    let mut k = 1;
    while k < 14 {
        series[13 - k] = series[14 - k] / k as f64;
        k += 1;
    }
    series
};

/// e^a for a <= 0 within two units in the last place, in plain arithmetic that the compiler turns
/// into vectors (the library's exp is called one by one, three times slower).
#[inline(always)]
pub fn exp(a: f64) -> f64 {
    use std::f64::consts::LOG2_E;
    // Adding 1.5 * 2^52 leaves the nearest integer in the low bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    // ln 2 as a sum of two numbers; the first has zeros at its end, so its product with n is exact.
    const LN2_HIGH: f64 = 0.693_147_180_369_123_8;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    let clamped = if a < LEAST { LEAST } else { a };
    let shifted = clamped * LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * LN2_HIGH - n * LN2_LOW;
    let mut series = TAYLOR[0];
    for coefficient in &TAYLOR[1..] {
        series = series * r + coefficient;
    }
    let power = f64::from_bits((shifted.to_bits() << 52).wrapping_add(1.0f64.to_bits()));
    let value = series * power;
    if a < LEAST { 0.0 } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
    }

    #[test]
    fn exp_is_the_exponential() {
        for i in 0..=1_000_000 {
            let a = -7e-4 * f64::from(i);
            let (found, expected) = (exp(a), a.exp());
            assert!((found / expected - 1.0).abs() <= 2.0 * f64::EPSILON, "exp({a}) = {found}");
        }
        assert_eq!((exp(0.0), exp(-701.0), exp(f64::NEG_INFINITY)), (1.0, 0.0, 0.0));
        assert!(exp(f64::NAN).is_nan());
    }

    #[test]
    fn vectors_change_no_bit() {
        let (p, q): (Vec<f32>, Vec<f32>) =
            (0..1003).map(|i| ((i * 37 % 101) as f32 * 0.3, (i * 53 % 97) as f32 * 0.2)).unzip();
        let (p, q) = (Row::without_sum(&p), Row::without_sum(&q));
        let (plain, fast) = (sums_of(&p, &q), sums(&p, &q));
        assert_eq!(plain.weighted.to_bits(), fast.weighted.to_bits());
        assert_eq!((plain.p.to_bits(), plain.q.to_bits()), (fast.p.to_bits(), fast.q.to_bits()));
    }

    #[test]
    fn nll_is_the_logarithm_of_the_softmax() {
        let ln = |x: f32| x.ln();
        let rows = [ln(1.0), ln(2.0), ln(5.0), 1000.0, 1000.0, f32::NEG_INFINITY];
        let found = nll(&rows, 3, &[1, 0]).unwrap();
        assert!((found[0] - -(0.25f64.ln())).abs() < 1e-7);
        near(found[1], 2f64.ln());
        assert_eq!(nll(&rows[3..], 3, &[2]).unwrap(), [f64::INFINITY]);
    }

    #[test]
    fn divergence_of_two_coins() {
        let base = [0.0f32, 0.0];
        let other = [2.0f32, 0.0];
        let found = divergence(&base, &other, 2, &[0]).unwrap();
        let q = 2f64.exp() / (1.0 + 2f64.exp());
        near(found.kld[0], -0.5 * (4.0 * q * (1.0 - q)).ln());
        near(found.dp[0], q - 0.5);
        near(found.nll_base[0], 2f64.ln());
        near(found.nll[0], -q.ln());
        assert_eq!(found.same_top, [true], "of equal logits the first counts");
        assert_eq!(divergence(&other, &base, 2, &[1]).unwrap().same_top, [true]);
    }

    #[test]
    fn a_row_against_itself_is_exactly_zero() {
        let row: Vec<f32> = (0..1000).map(|i| ((i * 37) % 101) as f32 * 0.3 - 11.0).collect();
        let found = divergence(&row, &row, 1000, &[7]).unwrap();
        assert_eq!((found.kld[0], found.dp[0]), (0.0, 0.0));
    }

    #[test]
    fn rows_without_a_softmax_are_nan() {
        let inf = f32::INFINITY;
        for bad in [[f32::NAN, 0.0], [0.0, f32::NAN], [inf, 0.0], [-inf, -inf]] {
            let found = divergence(&[0.0, 0.0], &bad, 2, &[0]).unwrap();
            assert!(found.kld[0].is_nan() && found.nll[0].is_nan() && found.dp[0].is_nan());
            assert_eq!(found.same_top, [false]);
            near(found.nll_base[0], 2f64.ln());
        }
        let zero = [0.0, -inf];
        assert_eq!(divergence(&[0.0, 0.0], &zero, 2, &[0]).unwrap().kld, [f64::INFINITY]);
        near(divergence(&zero, &[0.0, 0.0], 2, &[0]).unwrap().kld[0], 2f64.ln());
    }

    #[test]
    fn wrong_shapes_and_targets_are_named() {
        let shape = nll(&[0.0; 5], 3, &[0, 1]).unwrap_err();
        assert_eq!(shape.to_string(), "expected 2 x 3 logits for 2 targets, found 5");
        let target = nll(&[0.0; 3], 3, &[3]).unwrap_err();
        assert_eq!(target.to_string(), "token 3 is not in the vocabulary of 3");
    }
}
