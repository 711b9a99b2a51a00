// A group of activations rounded to 8 bits and back: q * d with d = amax / 127 of its largest
// magnitude, q = nearest(x * (127 / amax)). `rounding` gives d and 127 / amax.

const GROUP: u32 = 32;
const TINY: f32 = 0x1p-100;  // below, all is zero: 127 / amax would overflow

fn rounding(amax: f32) -> vec2f {
    return select(vec2f(amax / 127, 127 / amax), vec2f(), amax < TINY);
}

fn rounded(x: f32, by: vec2f) -> f32 { return round(x * by.y) * by.x; }
