// A group of activations rounded to 8 bits: codes q and d with x about q * d, d = amax / 127 of the
// group's largest magnitude, q = nearest(x * (127 / amax)). `rounding` gives d and 127 / amax.
//
// Beside the rounded values, rows of `packed` hold for integer products four codes to a word, then
// the groups' d, if PACKED.

override PACKED: bool = false;

@group(0) @binding(8) var<storage, read_write> packed: array<u32>;

const GROUP: u32 = 32;
const TINY: f32 = 0x1p-100;  // below, all is zero: 127 / amax would overflow

fn rounding(amax: f32) -> vec2f {
    return select(vec2f(amax / 127, 127 / amax), vec2f(), amax < TINY);
}

fn rounded(x: f32, by: vec2f) -> f32 { return round(x * by.y) * by.x; }

// Keep four columns of row `row` of `width`, and with a group's first four its d.
fn pack(row: u32, width: u32, column: u32, x: vec4f, by: vec2f) {
    if !PACKED { return; }
    let start = row * (width / 4 + width / GROUP);
    packed[start + column / 4] = pack4xI8(vec4i(round(x * by.y)));
    if column % GROUP == 0 {
        packed[start + width / 4 + column / GROUP] = bitcast<u32>(by.x);
    }
}
