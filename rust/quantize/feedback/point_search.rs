//! The points of a code book, and the signs, of the least cost in a metric of 8 elements.

#![allow(clippy::needless_range_loop)] // j and lanes count across several arrays

use crate::formats::{Eight, Points, Signs};

/// Points that are looked at together.
const LANES: usize = 16;
/// How often all points are searched for other signs.
const SEARCHES: usize = 2;

/// The cost v M v - 2 v b of the values v of eight elements, and where it is least.
pub struct Target<'a> {
    pub m: &'a [[f64; 8]; 8],
    pub b: [f64; 8],
    /// M^-1 b: its signs are tried first.
    pub t: [f64; 8],
    /// Above 0.
    pub scale: f64,
}

/// Points and signs, and what they cost.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    pub eight: Eight,
    pub cost: f64,
}

impl Target<'_> {
    /// The best choice found: all points for some signs, then some signs for these points.
    #[inline(always)]
    pub fn choose(&self, points: &Points, shift: u8) -> Choice {
        match points.signs {
            Signs::Shared => self.search(points, shift),
            Signs::Shift => {
                let (up, down) = (self.search(points, 0), self.search(points, 1));
                if down.cost < up.cost { down } else { up }
            }
            Signs::Free | Signs::Even => {
                let mut best = self.search(points, self.first_signs(points.signs == Signs::Even));
                for _ in 0..SEARCHES {
                    let signs = self.better_signs(points, best);
                    if signs == best.eight.signs {
                        break;
                    }
                    let found = self.search(points, signs);
                    best = if found.cost < best.cost { found } else { best };
                }
                best
            }
        }
    }

    /// The signs of t; if their number must be even, the least element's may be flipped.
    #[inline(always)]
    fn first_signs(&self, even: bool) -> u8 {
        let (mut signs, mut least) = (0u8, 0);
        let weight = |j: usize| self.t[j] * self.t[j] * self.m[j][j];
        for j in 0..8 {
            signs |= u8::from(self.t[j] < 0.0) << j;
            least = if weight(j) < weight(least) { j } else { least };
        }
        if even && signs.count_ones() % 2 == 1 { signs ^ 1 << least } else { signs }
    }

    /// The signs after the best flip of one or two, of two where their number must be even.
    #[inline(always)]
    fn better_signs(&self, points: &Points, choice: Choice) -> u8 {
        let (mut best, mut signs) = (choice.cost, choice.eight.signs);
        let even = usize::from(points.signs == Signs::Even);
        for i in 0..8 {
            for j in i + even..8 {
                let mut tried = choice.eight;
                tried.signs ^= 1 << i | 1 << j;
                let cost = self.cost(points, tried);
                if cost < best {
                    (best, signs) = (cost, tried.signs);
                }
            }
        }
        signs
    }

    /// The values of points and signs.
    #[inline(always)]
    pub fn values(&self, points: &Points, eight: Eight) -> [f64; 8] {
        points.levels(eight).map(|level| f64::from(self.scale as f32 * level))
    }

    #[inline(always)]
    fn cost(&self, points: &Points, eight: Eight) -> f64 {
        self.cost_of(&self.values(points, eight))
    }

    /// v M v - 2 v b.
    #[inline(always)]
    pub fn cost_of(&self, v: &[f64; 8]) -> f64 {
        let mut sum = 0.0;
        for j in 0..8 {
            let mut line = -2.0 * self.b[j];
            for k in 0..8 {
                line += self.m[j][k] * v[k];
            }
            sum += v[j] * line;
        }
        sum
    }

    /// The best points with these signs: of two the first with t for the second, the second,
    /// and the first once more.
    #[inline(always)]
    fn search(&self, points: &Points, signs: u8) -> Choice {
        let mut eight = Eight { indices: [0; 2], signs };
        if points.size == 8 {
            eight.indices[0] = self.scan::<8>(points, signs, 0, &self.t);
        } else {
            eight.indices[0] = self.scan::<4>(points, signs, 0, &self.t);
            eight.indices[1] = self.scan::<4>(points, signs, 4, &self.values(points, eight));
            eight.indices[0] = self.scan::<4>(points, signs, 0, &self.values(points, eight));
        }
        Choice { eight, cost: self.cost(points, eight) }
    }

    /// The best of all points for the elements from `first` on, the others as in `v`; f32 is
    /// enough to find it.
    #[inline(always)]
    fn scan<const D: usize>(&self, points: &Points, signs: u8, first: usize, v: &[f64; 8]) -> u16 {
        let shifted = matches!(points.signs, Signs::Shift | Signs::Shared);
        let sign = |j: usize| if !shifted && signs >> j & 1 == 1 { -1.0 } else { 1.0 };
        let shift = if shifted { 1.0 - 2.0 * f32::from(signs & 1) } else { 0.0 };
        // In units of the largest element of M and of the scale, so that f32 does not overflow.
        let unit = 1.0 / (0..8).fold(f64::MIN_POSITIVE, |most, j| self.m[j][j].max(most));
        let (mut a, mut c) = ([[0f32; D]; D], [0f32; D]);
        for j in 0..D {
            let (i, mut b) = (first + j, self.b[first + j]);
            for k in (0..8).filter(|k| !(first..first + D).contains(k)) {
                b -= self.m[i][k] * v[k];
            }
            c[j] = (2.0 * sign(i) * b * unit / self.scale) as f32;
            for k in 0..=j {
                let twice = if k == j { 1.0 } else { 2.0 };
                let element = self.m[i][first + k] * sign(i) * sign(first + k);
                a[j][k] = (twice * unit * element) as f32;
            }
        }
        least::<D>(points, &a, &c, shift)
    }
}

/// The first point with the least sum over j of l_j (a_j . l - c_j), l its levels + `shift`.
#[inline(always)]
fn least<const D: usize>(points: &Points, a: &[[f32; D]; D], c: &[f32; D], shift: f32) -> u16 {
    let (mut best, mut index) = ([f32::INFINITY; LANES], [0u32; LANES]);
    for first in (0..points.values[0].len()).step_by(LANES) {
        let (mut costs, mut levels) = ([0f32; LANES], [[0f32; LANES]; D]);
        for j in 0..D {
            let values: &[f32; LANES] = points.values[j][first..].first_chunk().expect("16s");
            let mut line = [-c[j]; LANES];
            for lane in 0..LANES {
                levels[j][lane] = values[lane] + shift;
            }
            for k in 0..=j {
                for lane in 0..LANES {
                    line[lane] += a[j][k] * levels[k][lane];
                }
            }
            for lane in 0..LANES {
                costs[lane] += line[lane] * levels[j][lane];
            }
        }
        for lane in 0..LANES {
            let better = costs[lane] < best[lane];
            best[lane] = if better { costs[lane] } else { best[lane] };
            index[lane] = if better { (first + lane) as u32 } else { index[lane] };
        }
    }
    let mut lane = 0;
    for other in 1..LANES {
        let tie = best[other] == best[lane] && index[other] < index[lane];
        lane = if best[other] < best[lane] || tie { other } else { lane };
    }
    index[lane] as u16
}
