//! Affine formats: codes of 1 to 8 bits in groups of any size, symmetric or with a zero point.
//!
//! ```text
//! sym{b}-g{n}    scale f32; codes               scale (code - N), N = 2^(b-1) - 1
//! asym{b}-g{n}   scale f32; zero u8; codes      scale code - scale zero
//! ```
//!
//! Codes are packed without gaps, the first in the lowest bits; a group ends on a byte. The last
//! group of a row may hold fewer elements; the codes that it lacks are zero bits.

use super::bits::{pack, unpack};
use super::codes::{Codes, Scales};
use super::ternary::SIGNS;

/// A width, a kind and a group size.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Affine {
    pub bits: u8,
    pub symmetric: bool,
    pub group: u32,
}

const MAX_GROUP: u32 = 1 << 16;

impl Affine {
    /// Parses `sym4-g32`, `asym8-g64` and so on.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (kind, group) = name.split_once("-g")?;
        let (symmetric, bits) = match kind.strip_prefix("asym") {
            Some(bits) => (false, bits),
            None => (true, kind.strip_prefix("sym")?),
        };
        let digits = |text: &str| {
            (text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0')).then_some(())?;
            text.parse::<u32>().ok()
        };
        let (bits, group) = (digits(bits)?, digits(group)?);
        let known = (1..=8).contains(&bits) && (1..=MAX_GROUP).contains(&group);
        known.then_some(Self { bits: bits as u8, symmetric, group })
    }

    pub(super) fn name(&self) -> String {
        let kind = if self.symmetric { "sym" } else { "asym" };
        format!("{kind}{}-g{}", self.bits, self.group)
    }

    fn head(&self) -> usize {
        if self.symmetric { 4 } else { 5 }
    }

    pub(super) fn group_bytes(&self) -> usize {
        self.head() + (self.group as usize * usize::from(self.bits)).div_ceil(8)
    }

    /// A single symmetric bit stands for -1 and +1, which are two steps apart: codes 0 and 2.
    pub(super) fn codes(&self) -> Codes {
        let (bits, offset) = match (self.symmetric, self.bits) {
            (true, 1) => (2, 1),
            (true, bits) => (bits, self.middle() as u8),
            (false, bits) => (bits, 0),
        };
        Codes {
            bits,
            group: self.group as usize,
            offset,
            has_min: !self.symmetric,
            scales: if self.symmetric { Scales::F32 } else { Scales::Zeros },
            levels: if self.symmetric && self.bits == 1 { &SIGNS } else { &[] },
            halvings: 0,
        }
    }

    /// The code of zero in the symmetric kind.
    pub(super) fn middle(&self) -> i32 {
        (1 << (self.bits - 1)) - 1
    }

    pub(super) fn unpack_stored(
        &self,
        bytes: &[u8],
        q: &mut [u8],
        scale: &mut [f32],
        min: &mut [f32],
    ) {
        let groups = q.chunks_mut(self.group as usize).zip(bytes.chunks_exact(self.group_bytes()));
        for (i, (q, bytes)) in groups.enumerate() {
            scale[i] = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            if !self.symmetric {
                min[i] = -(scale[i] * f32::from(bytes[4]));
            }
            unpack(&bytes[self.head()..], self.bits, q);
        }
    }

    /// Stores a group's scale, zero point (of the asymmetric kind) and codes.
    pub(super) fn pack_group(&self, scale: f32, zero: u8, q: &[u8], out: &mut [u8]) {
        let (head, bytes) = out.split_at_mut(self.head());
        head[..4].copy_from_slice(&scale.to_le_bytes());
        if !self.symmetric {
            head[4] = zero;
        }
        bytes.fill(0);
        for (i, &code) in q.iter().enumerate() {
            pack(code, u32::from(self.bits), i, bytes);
        }
    }

    #[inline(always)]
    pub(super) fn encode_row(&self, x: &[f32], out: &mut [u8]) {
        let groups = x.chunks(self.group as usize).zip(out.chunks_exact_mut(self.group_bytes()));
        for (x, out) in groups {
            let (head, codes) = out.split_at_mut(self.head());
            codes.fill(0);
            if !self.symmetric {
                self.encode_asymmetric(x, head, codes);
            } else if self.bits == 1 {
                encode_signs(x, head, codes);
            } else {
                self.encode_symmetric(x, head, codes);
            }
        }
    }

    /// scale = amax / N, code = nearest(x / scale) + N.
    #[inline(always)]
    fn encode_symmetric(&self, x: &[f32], head: &mut [u8], codes: &mut [u8]) {
        let n = self.middle();
        let mut amax = 0f32;
        for x in x {
            amax = if x.abs() > amax { x.abs() } else { amax };
        }
        let scale = amax / n as f32;
        head.copy_from_slice(&scale.to_le_bytes());
        for (i, &x) in x.iter().enumerate() {
            pack((steps(x, scale).clamp(-n, n) + n) as u8, u32::from(self.bits), i, codes);
        }
    }

    /// low = min(0, x), high = max(0, x), scale = (high - low) / N, zero = nearest(-low / scale).
    #[inline(always)]
    fn encode_asymmetric(&self, x: &[f32], head: &mut [u8], codes: &mut [u8]) {
        let n = (1i32 << self.bits) - 1;
        let (mut low, mut high) = (0f32, 0f32);
        for &x in x {
            low = if x < low { x } else { low };
            high = if x > high { x } else { high };
        }
        let scale = (high - low) / n as f32;
        let zero = steps(-low, scale).clamp(0, n);
        head[..4].copy_from_slice(&scale.to_le_bytes());
        head[4] = zero as u8;
        for (i, &x) in x.iter().enumerate() {
            pack((steps(x, scale) + zero).clamp(0, n) as u8, u32::from(self.bits), i, codes);
        }
    }
}

/// One bit: the sign, and the mean of |x| for a scale.
#[inline(always)]
fn encode_signs(x: &[f32], head: &mut [u8], codes: &mut [u8]) {
    let mut sum = 0f32;
    for (i, &x) in x.iter().enumerate() {
        sum += x.abs();
        pack(u8::from(x >= 0.0), 1, i, codes);
    }
    head.copy_from_slice(&(sum / x.len() as f32).to_le_bytes());
}

/// nearest(x / scale), ties to even; 0 where the scale is.
#[inline(always)]
fn steps(x: f32, scale: f32) -> i32 {
    if scale == 0.0 { 0 } else { super::search::nearest(x / scale) }
}
