//! f16 and bf16 conversions, to nearest even.

/// f32 to bf16, to nearest even; a NaN stays a (quiet) NaN.
#[inline(always)]
pub fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if bits & 0x7fff_ffff > 0x7f80_0000 {
        return (bits >> 16) as u16 | 64;
    }
    // Half a unit less one, plus the lowest bit that remains: a tie rounds up only from odd.
    (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

/// bf16 to f32, exactly.
#[inline(always)]
pub fn from_bf16(x: u16) -> f32 {
    f32::from_bits(u32::from(x) << 16)
}

/// f32 to f16, to nearest even with gradual underflow; a NaN stays a (quiet) NaN.
///
/// Selects instead of branches and no instruction of F16C, so that loops of it become vectors.
#[inline(always)]
pub fn to_f16(x: f32) -> u16 {
    let bits = x.to_bits() & 0x7fff_ffff;
    // Adding 1/2 leaves a subnormal's 10 bits at the end of the sum, rounded by the addition.
    let small = (f32::from_bits(bits) + 0.5).to_bits().wrapping_sub(0x3f00_0000);
    // Half a unit less one, plus the lowest bit that remains: a tie rounds up only from odd.
    let normal = bits.wrapping_sub(112 << 23).wrapping_add(0xfff + (bits >> 13 & 1)) >> 13;
    let nan = 0x7e00 | (bits >> 13 & 0x3ff);
    let large = if bits > 0x7f80_0000 { nan } else { 0x7c00 };
    let finite = if bits < 0x3880_0000 { small } else { normal };
    let magnitude = if bits >= 0x4780_0000 { large } else { finite };
    (magnitude | x.to_bits() >> 16 & 0x8000) as u16
}

/// f16 to f32, exactly; a NaN stays a (quiet) NaN.
#[inline(always)]
pub fn from_f16(x: u16) -> f32 {
    let bits = u32::from(x & 0x7fff) << 13;
    // The exponent's bias is 127 instead of 15; subnormals come out right too.
    let finite = (f32::from_bits(bits) * f32::from_bits(239 << 23)).to_bits();
    let quiet = if bits > 0x7c00 << 13 { 0x7fc0_0000 } else { 0x7f80_0000 };
    let magnitude = if bits >= 0x7c00 << 13 { bits | quiet } else { finite };
    f32::from_bits(magnitude | u32::from(x & 0x8000) << 16)
}

/// The f16 in the first two bytes.
#[inline(always)]
pub fn read_f16(bytes: &[u8]) -> f32 {
    from_f16(u16::from_le_bytes([bytes[0], bytes[1]]))
}

/// x as f16 into the first two bytes.
#[inline(always)]
pub fn write_f16(bytes: &mut [u8], x: f32) {
    bytes[..2].copy_from_slice(&to_f16(x).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_is_what_the_half_crate_says() {
        for x in 0..=u16::MAX {
            let expected = half::f16::from_bits(x).to_f32();
            assert_eq!(from_f16(x).to_bits(), expected.to_bits(), "{x:#x}");
            assert_eq!(to_f16(expected), half::f16::from_f32(expected).to_bits(), "{x:#x}");
        }
    }

    #[test]
    fn f32_rounds_as_the_half_crate_does() {
        // Every f16 and every half way between two, with the neighbours of both.
        for high in 0..=u32::from(u16::MAX) {
            for low in [0, 1, 0xfff, 0x1000, 0x1001, 0x1fff, 0x2000, 0x7fff, 0xefff, 0xf000, 0xffff]
            {
                let x = f32::from_bits(high << 16 | low);
                assert_eq!(to_f16(x), half::f16::from_f32(x).to_bits(), "{:#x}", x.to_bits());
            }
        }
        let mut bits = 1u32;
        for _ in 0..10_000_000 {
            bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let x = f32::from_bits(bits);
            assert_eq!(to_f16(x), half::f16::from_f32(x).to_bits(), "{bits:#x}");
        }
    }
}
