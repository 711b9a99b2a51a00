//! Coordinate descent on scales and minima: the best step along each direction, rounded to what
//! the format can store, and taken only if it lowers the objective.

use std::ops::Range;

use super::matrix::{View, ViewMut, product};
use super::metric::{Metric, State, subtract};
use super::quadratic::Quadratic;
use super::scheme::{Scheme, decoded};
use crate::floats::{from_f16, to_f16};
use crate::formats::{QuantizedRow, ScaleKind, scale_of_byte};

/// Columns whose changes reach each other at once, at least; the others get them as a product.
const SPAN: usize = 256;

/// Columns that are stepped together, and H of them, [width, width].
pub struct Block {
    pub first: usize,
    width: usize,
    h: Vec<f64>,
}

impl Block {
    /// The columns `first..first + width` of a metric.
    pub fn new(metric: &Metric, first: usize, width: usize) -> Self {
        let mut h = vec![0.0; width * width];
        for (i, h) in h.chunks_exact_mut(width).enumerate() {
            h.copy_from_slice(&metric.matrix[(first + i) * metric.size + first..][..width]);
        }
        Self { first, width, h }
    }
}

/// A row in these columns: its errors and the gradient.
struct Span<'a> {
    first: usize,
    width: usize,
    h: &'a [f64],
    errors: &'a mut [f64],
    gradient: &'a mut [f64],
}

/// Columns that a format steps together: groups, or the super-blocks that they lie in.
pub fn span_width(scheme: &Scheme) -> usize {
    let unit = scheme.group() * scheme.groups_per_block();
    unit * (SPAN / unit).max(1)
}

/// One round: scales and minima of each group, then what super-blocks share.
#[inline(always)]
pub fn step_scales(state: &mut State) {
    let (size, width) = (state.metric.size, span_width(state.scheme));
    for first in (0..size).step_by(width) {
        step_span(state, first, width.min(size - first));
    }
}

/// Steps all rows in the columns `first..first + width`, then moves the gradient of the others.
#[inline(always)]
fn step_span(state: &mut State, first: usize, width: usize) {
    let (size, count) = (state.metric.size, state.rows.len());
    let block = Block::new(state.metric, first, width);
    let mut moved = vec![0f64; count * width];
    for (r, row) in state.rows.iter_mut().enumerate() {
        let at = r * size + first..r * size + first + width;
        let moved = &mut moved[r * width..(r + 1) * width];
        moved.copy_from_slice(&state.errors[at.clone()]);
        let (errors, gradient) = (&mut state.errors[at.clone()], &mut state.gradient[at]);
        step_row(state.scheme, row, &block, errors, gradient);
        for (moved, error) in moved.iter_mut().zip(errors) {
            *moved -= *error;
        }
    }
    let a = View { data: &moved, stride: width };
    for range in [0..first, first + width..size] {
        let b = View { data: &state.metric.matrix[first * size + range.start..], stride: size };
        let mut out = ViewMut { data: &mut state.gradient[range.start..], stride: size };
        product(&mut out, a, b, [count, width, range.len()], -1.0);
    }
}

/// Steps the scales of one row in the columns of a block.
#[inline(always)]
pub fn step_row(
    scheme: &Scheme,
    row: &mut QuantizedRow,
    block: &Block,
    errors: &mut [f64],
    gradient: &mut [f64],
) {
    let Block { first, width, ref h } = *block;
    let mut span = Span { first, width, h, errors, gradient };
    let span = &mut span;
    let group = scheme.group();
    let (mut u, mut ones) = (vec![0.0; span.width], vec![0.0; span.width]);
    for start in (0..span.width).step_by(group) {
        let range = start..span.width.min(start + group);
        step_group(scheme, row, span, range, &mut u, &mut ones);
    }
    let per = scheme.groups_per_block();
    if per > 1 {
        for start in (0..span.width).step_by(group * per) {
            step_block(scheme, row, span, start..start + group * per, &mut u, &mut ones);
        }
    }
}

/// The quadratic of steps along u and v in the columns `range` of a span.
#[inline(always)]
fn quadratic(span: &Span, range: &Range<usize>, u: &[f64], v: &[f64], both: bool) -> Quadratic {
    let hu = spread(span, range, range, u);
    let hv = if both { spread(span, range, range, v) } else { vec![] };
    Quadratic::new([u, v], [&hu, &hv], &span.gradient[range.clone()], both)
}

/// H x in the rows `to`, of an x that is not 0 in the columns `from`.
#[inline(always)]
fn spread(span: &Span, from: &Range<usize>, to: &Range<usize>, x: &[f64]) -> Vec<f64> {
    let mut out = vec![0.0; to.len()];
    for (j, &x) in from.clone().zip(x) {
        if x != 0.0 {
            subtract(&mut out, &span.h[j * span.width..][to.clone()], -x);
        }
    }
    out
}

/// Steps the scale and the minimum of one group.
#[inline(always)]
fn step_group(
    scheme: &Scheme,
    row: &mut QuantizedRow,
    span: &mut Span,
    range: Range<usize>,
    u: &mut [f64],
    ones: &mut [f64],
) {
    let k = (span.first + range.start) / scheme.group();
    let (u, ones) = (&mut u[..range.len()], &mut ones[..range.len()]);
    let zero = if let ScaleKind::Zeros { .. } = scheme.kind { row.lows[k] } else { 0 };
    for (u, j) in u.iter_mut().zip(range.clone()) {
        *u = f64::from(scheme.level(row.codes[span.first + j]) - f32::from(zero));
    }
    ones.fill(1.0);
    let fit = quadratic(span, &range, u, ones, scheme.has_min);
    let old = Stored::of(row, k);
    let new = stepped(scheme, row, k, &fit);
    if new != old {
        attempt(scheme, row, span, &range, |row| new.store(row, k), |row| old.store(row, k));
    }
    if let ScaleKind::Zeros { top } = scheme.kind {
        step_zero(scheme, row, span, &range, (k, top));
    }
}

/// What is stored of a group's scale and minimum, and what they are.
#[derive(Clone, Copy, PartialEq)]
struct Stored {
    scale: f32,
    min: f32,
    step: i16,
    low: u8,
}

impl Stored {
    fn of(row: &QuantizedRow, k: usize) -> Self {
        Self { scale: row.scale[k], min: row.min[k], step: row.steps[k], low: row.lows[k] }
    }

    fn store(self, row: &mut QuantizedRow, k: usize) {
        (row.scale[k], row.min[k]) = (self.scale, self.min);
        (row.steps[k], row.lows[k]) = (self.step, self.low);
    }
}

/// Group `k` after the best step that can be stored.
#[inline(always)]
fn stepped(scheme: &Scheme, row: &QuantizedRow, k: usize, fit: &Quadratic) -> Stored {
    let mut new = Stored::of(row, k);
    let (scale, min) = (f64::from(new.scale), f64::from(new.min));
    let wanted = scale + fit.along_u();
    match scheme.kind {
        ScaleKind::F16 => {
            new.scale = usable(from_f16(to_f16(wanted as f32)), new.scale);
            if scheme.has_min {
                let taken = f64::from(new.scale) - scale;
                let low = from_f16(to_f16((min + fit.along_v(taken)) as f32));
                new.min = if low.is_finite() { low } else { new.min };
            }
        }
        ScaleKind::F32 => new.scale = usable(wanted as f32, new.scale),
        ScaleKind::Zeros { .. } => {
            new.scale = usable(wanted as f32, new.scale);
            new.min = -(new.scale * f32::from(new.low));
        }
        ScaleKind::Integers { .. } => step_integers(scheme, row, k, fit, &mut new),
        ScaleKind::Power | ScaleKind::Float8 => step_byte(scheme.kind, fit, &mut new),
    }
    new
}

/// Steps the integers of a group in a super-block.
#[inline(always)]
fn step_integers(scheme: &Scheme, row: &QuantizedRow, k: usize, fit: &Quadratic, new: &mut Stored) {
    let ScaleKind::Integers { low, high, top } = scheme.kind else { return };
    let (scale, min) = (f64::from(new.scale), f64::from(new.min));
    let block = k / scheme.groups_per_block();
    let (d, dmin) = (row.d[block], row.dmin[block]);
    if d == 0.0 {
        return;
    }
    new.step = integer((scale + fit.along_u()) / f64::from(d), low, high);
    new.scale = d * f32::from(new.step);
    if dmin != 0.0 {
        let taken = f64::from(new.scale) - scale;
        let wanted = -(min + fit.along_v(taken)) / f64::from(dmin);
        new.low = integer(wanted, 0, i16::from(top)) as u8;
        new.min = -(dmin * f32::from(new.low));
    }
}

/// Takes the best of the bytes around the one that stands for the scale.
#[inline(always)]
fn step_byte(kind: ScaleKind, fit: &Quadratic, new: &mut Stored) {
    let (old, center) = (f64::from(new.scale), new.step);
    let highest = if kind == ScaleKind::Power { 254 } else { 126 };
    let mut best = 0.0;
    for byte in (center - 4).max(0)..=(center + 4).min(highest) {
        let tried = scale_of_byte(kind, byte as u8);
        let change = fit.change(f64::from(tried) - old);
        if change < best {
            (best, new.step, new.scale) = (change, byte, tried);
        }
    }
}

/// `new`, or `old` where `new` is 0 or not finite.
#[inline(always)]
fn usable(new: f32, old: f32) -> f32 {
    if new.is_finite() && new != 0.0 && old != 0.0 { new } else { old }
}

/// The integer next to x within low..=high.
#[inline(always)]
fn integer(x: f64, low: i16, high: i16) -> i16 {
    x.round_ties_even().max(f64::from(low)).min(f64::from(high)) as i16
}

/// Moves a zero point by the whole steps next to the best one.
#[inline(always)]
fn step_zero(
    scheme: &Scheme,
    row: &mut QuantizedRow,
    span: &mut Span,
    range: &Range<usize>,
    (k, top): (usize, u8),
) {
    let u = vec![-f64::from(row.scale[k]); range.len()];
    let fit = quadratic(span, range, &u, &[], false);
    let old = Stored::of(row, k);
    let mut new = old;
    new.low = integer(f64::from(old.low) + fit.along_u(), 0, i16::from(top)) as u8;
    new.min = -(new.scale * f32::from(new.low));
    if new != old {
        attempt(scheme, row, span, range, |row| new.store(row, k), |row| old.store(row, k));
    }
}

/// Steps the f16 that a super-block's scales share, and that of its minima.
#[inline(always)]
fn step_block(
    scheme: &Scheme,
    row: &mut QuantizedRow,
    span: &mut Span,
    range: Range<usize>,
    u: &mut [f64],
    v: &mut [f64],
) {
    let (group, per) = (scheme.group(), scheme.groups_per_block());
    let (u, v) = (&mut u[..range.len()], &mut v[..range.len()]);
    let first = (span.first + range.start) / group;
    let block = first / per;
    for (i, j) in range.clone().enumerate() {
        let k = first + i / group;
        let level = f64::from(scheme.level(row.codes[span.first + j]));
        (u[i], v[i]) = (f64::from(row.steps[k]) * level, -f64::from(row.lows[k]));
    }
    let fit = quadratic(span, &range, u, v, scheme.has_min);
    let old = (row.d[block], row.dmin[block]);
    let d = usable(from_f16(to_f16((f64::from(old.0) + fit.along_u()) as f32)), old.0);
    let taken = f64::from(d) - f64::from(old.0);
    let wanted = (f64::from(old.1) + fit.along_v(taken)) as f32;
    let dmin = if scheme.has_min { usable(from_f16(to_f16(wanted)), old.1) } else { old.1 };
    // A minimum of the wrong sign would be no smaller error than none.
    if (d, dmin) != old && dmin * old.1 >= 0.0 {
        let set = |row: &mut QuantizedRow, (d, dmin)| {
            (row.d[block], row.dmin[block]) = (d, dmin);
            for k in first..first + per {
                row.multiply_out(k, block);
            }
        };
        attempt(scheme, row, span, &range, |row| set(row, (d, dmin)), |row| set(row, old));
    }
}

/// Changes a row's scales in the columns `range`; takes that back if the objective does not fall.
#[inline(always)]
fn attempt(
    scheme: &Scheme,
    row: &mut QuantizedRow,
    span: &mut Span,
    range: &Range<usize>,
    change: impl Fn(&mut QuantizedRow),
    undo: impl Fn(&mut QuantizedRow),
) {
    let value = |row: &QuantizedRow, j: usize| {
        let k = (span.first + j) / scheme.group();
        decoded(row.scale[k], scheme.level(row.codes[span.first + j]), row.min[k])
    };
    let mut moved: Vec<f64> = range.clone().map(|j| -value(row, j)).collect();
    change(row);
    for (moved, j) in moved.iter_mut().zip(range.clone()) {
        *moved += value(row, j);
    }
    let felt = spread(span, range, &(0..span.width), &moved);
    let gradient = &span.gradient[range.clone()];
    let mut difference = 0.0;
    for ((moved, felt), gradient) in moved.iter().zip(&felt[range.clone()]).zip(gradient) {
        difference += moved * (felt - 2.0 * gradient);
    }
    let falls = difference < 0.0;
    if !falls {
        return undo(row);
    }
    for (moved, error) in moved.iter().zip(&mut span.errors[range.clone()]) {
        *error -= moved;
    }
    for (gradient, felt) in span.gradient.iter_mut().zip(&felt) {
        *gradient -= felt;
    }
}
