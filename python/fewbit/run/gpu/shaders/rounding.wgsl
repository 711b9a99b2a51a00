// Rounds activations to int8: codes q and a scale d with x about q * d.
//
// d = amax / 127 and q = nearest(x * (127 / amax)), where amax is the largest magnitude of a group
// of GROUP columns: 32, or 256 for weights with integer scales. `scales_of` gives d and 127 / amax.
//
// With PACKED the codes go to `packed` for integer products. A row of `packed` holds four codes to
// a word, then for each chunk of 32 columns d, and the sums of its first 16 and its last 16 codes
// in 16 bits each. Without PACKED the result is q * d in f32.

override PACKED: bool = false;
override GROUP: u32 = 32;

@group(0) @binding(8) var<storage, read_write> packed: array<u32>;

const CHUNK: u32 = 32;  // columns
const TINY: f32 = 0x1p-100;  // below this all codes are zero: 127 / amax would overflow

fn scales_of(amax: f32) -> vec2f {
    return select(vec2f(amax / 127, 127 / amax), vec2f(), amax < TINY);
}

fn round_to_scale(x: f32, scales: vec2f) -> f32 { return round(x * scales.y) * scales.x; }

// Writes four codes from `column` of a row of `width` columns on; returns what they add to the sums
// of the first and the last 16 codes of their chunk.
fn pack_quad(row: u32, width: u32, column: u32, x: vec4f, scales: vec2f) -> vec2i {
    let codes = pack4xI8(vec4i(round(x * scales.y)));
    packed[row * (width / 4 + width / 16) + column / 4] = codes;
    let sum = dot4I8Packed(codes, 0x01010101);
    return select(vec2i(0, sum), vec2i(sum, 0), column % CHUNK < CHUNK / 2);
}

fn pack_scale(row: u32, width: u32, column: u32, d: f32, sums: vec2i) {
    let at = row * (width / 4 + width / 16) + width / 4 + column / CHUNK * 2;
    packed[at] = bitcast<u32>(d);
    packed[at + 1] = bitcast<u32>((sums.x & 0xffff) | (sums.y << 16));
}
