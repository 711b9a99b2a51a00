//! f16 and bf16 conversions, to nearest even.

/// f32 to bf16, to nearest even; a NaN stays a (quiet) NaN.
#[inline(always)]
pub fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if bits & 0x7fff_ffff > 0x7f80_0000 {
        return (bits >> 16) as u16 | 64;
    }
    // Half a unit less one, plus the kept part's lowest bit: a tie rounds up only from odd.
    (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

/// bf16 to f32, exactly.
#[inline(always)]
pub fn from_bf16(x: u16) -> f32 {
    f32::from_bits(u32::from(x) << 16)
}

/// f32 to f16, to nearest even with gradual underflow.
#[inline(always)]
pub fn to_f16(x: f32) -> u16 {
    half::f16::from_f32(x).to_bits()
}

/// f16 to f32, exactly.
#[inline(always)]
pub fn from_f16(x: u16) -> f32 {
    half::f16::from_bits(x).to_f32()
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
