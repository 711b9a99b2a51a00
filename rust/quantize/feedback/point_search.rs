//! The point of a code book, and the signs, of the least cost in a metric of 8 or 4 elements.

use crate::formats::{Points, Signs};

/// Points that are looked at together.
const LANES: usize = 16;

/// The cost v M v - 2 v b of the values v of one point's elements, and where it is least.
pub struct Target {
    pub m: [[f64; 8]; 8],
    pub b: [f64; 8],
    /// M^-1 b: its signs are tried first.
    pub t: [f64; 8],
    pub scale: f64,
    /// Whether the number of minus signs must be odd; None if it may be either.
    pub odd: Option<bool>,
}

/// A point, a bit for each minus sign (of IQ1: all, moved down), and the cost.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    pub index: u16,
    pub signs: u8,
    pub cost: f64,
}

impl Target {
    /// The best choice found: all points for some signs, then some signs for that point.
    #[inline(always)]
    pub fn choose(&self, points: &Points, shift: u8) -> Choice {
        match points.signs {
            Signs::Shared => self.scan(points, shift),
            Signs::Shift => {
                let (up, down) = (self.scan(points, 0), self.scan(points, 1));
                if down.cost < up.cost { down } else { up }
            }
            Signs::Free | Signs::Even => {
                let mut best = self.scan(points, self.first_signs(points.size));
                for _ in 0..2 {
                    let signs = self.better_signs(points, best);
                    if signs == best.signs {
                        break;
                    }
                    let found = self.scan(points, signs);
                    best = if found.cost < best.cost { found } else { best };
                }
                best
            }
        }
    }

    /// The signs of t; where their parity is wrong the least element's is flipped.
    #[inline(always)]
    fn first_signs(&self, size: usize) -> u8 {
        let (mut signs, mut least) = (0u8, 0);
        let weight = |j: usize| self.t[j] * self.t[j] * self.m[j][j];
        for j in 0..size {
            signs |= u8::from(self.t[j] / self.scale < 0.0) << j;
            least = if weight(j) < weight(least) { j } else { least };
        }
        match self.odd {
            Some(odd) if (signs.count_ones() % 2 == 1) != odd => signs ^ 1 << least,
            _ => signs,
        }
    }

    /// The signs after the best flip, of two where the parity is given, for the point of `choice`.
    #[inline(always)]
    fn better_signs(&self, points: &Points, choice: Choice) -> u8 {
        let (mut best, mut signs) = (choice.cost, choice.signs);
        for i in 0..points.size {
            for j in i..points.size {
                let flips = if i == j { 1 << i } else { 1 << i | 1 << j };
                if self.odd.is_some() && i == j {
                    continue;
                }
                let tried = choice.signs ^ flips;
                let cost = self.cost(points, choice.index, tried);
                if cost < best {
                    (best, signs) = (cost, tried);
                }
            }
        }
        signs
    }

    /// The levels of a point with signs.
    #[inline(always)]
    pub fn levels(points: &Points, index: u16, signs: u8) -> [f64; 8] {
        let mut out = [0.0; 8];
        for (j, values) in points.values.iter().enumerate() {
            let value = f64::from(values[usize::from(index)]);
            out[j] = match points.signs {
                Signs::Shift | Signs::Shared => value + 1.0 - 2.0 * f64::from(signs & 1),
                _ if signs >> j & 1 == 1 => -value,
                _ => value,
            };
        }
        out
    }

    /// The cost of a point with signs.
    #[inline(always)]
    fn cost(&self, points: &Points, index: u16, signs: u8) -> f64 {
        self.cost_of(
            &Self::levels(points, index, signs).map(|level| self.scale * level),
            points.size,
        )
    }

    /// v M v - 2 v b.
    #[inline(always)]
    pub fn cost_of(&self, v: &[f64; 8], size: usize) -> f64 {
        let mut sum = 0.0;
        for j in 0..size {
            let mut line = -2.0 * self.b[j];
            for k in 0..size {
                line += self.m[j][k] * v[k];
            }
            sum += v[j] * line;
        }
        sum
    }

    /// The best of all points with these signs; f32 is enough to find it.
    #[inline(always)]
    fn scan(&self, points: &Points, signs: u8) -> Choice {
        let size = points.size;
        let shifted = matches!(points.signs, Signs::Shift | Signs::Shared);
        let sign = |j: usize| if !shifted && signs >> j & 1 == 1 { -1.0 } else { 1.0 };
        let shift = if shifted { 1.0 - 2.0 * f32::from(signs & 1) } else { 0.0 };
        // In units that keep f32 from overflow: costs relative to M's largest element.
        let unit = (0..size).fold(0f64, |most, j| most.max(self.m[j][j])).max(f64::MIN_POSITIVE);
        let (mut a, mut c) = ([[0f32; 8]; 8], [0f32; 8]);
        for j in 0..size {
            c[j] = (2.0 * sign(j) * self.b[j] / (self.scale * unit)) as f32;
            a[j][j] = (self.m[j][j] / unit) as f32;
            for k in 0..j {
                a[j][k] = (2.0 * sign(j) * sign(k) * self.m[j][k] / unit) as f32;
            }
        }
        let (mut best, mut index) = ([f32::INFINITY; LANES], [0u32; LANES]);
        let count = points.values[0].len();
        for first in (0..count).step_by(LANES) {
            let mut costs = [0f32; LANES];
            let mut seen = [[0f32; LANES]; 8];
            for j in 0..size {
                let values = &points.values[j][first..first + LANES];
                let mut line = [-c[j]; LANES];
                for lane in 0..LANES {
                    seen[j][lane] = values[lane] + shift;
                }
                for k in 0..=j {
                    for lane in 0..LANES {
                        line[lane] += a[j][k] * seen[k][lane];
                    }
                }
                for lane in 0..LANES {
                    costs[lane] += line[lane] * seen[j][lane];
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
        let index = index[lane] as u16;
        Choice { index, signs, cost: self.cost(points, index, signs) }
    }
}
