// A group of activations rounded to 8 bits: codes q and d with x about q * d, d = amax / 127 of the
// largest magnitude in SPAN columns (its own, or those of eight groups), q = nearest(x * (127 / amax)).
// `rounding` gives d and 127 / amax.
//
// For products of bytes, PACKED, the codes go to `packed` instead: a row has four codes to a word, then for
// each group d and, 16 bits each, the sums of its first and its last 16 codes.

override PACKED: bool = false;
override SPAN: u32 = 32;

@group(0) @binding(8) var<storage, read_write> packed: array<u32>;

const GROUP: u32 = 32;
const TINY: f32 = 0x1p-100;  // below, all is zero: 127 / amax would overflow

fn rounding(amax: f32) -> vec2f {
    return select(vec2f(amax / 127, 127 / amax), vec2f(), amax < TINY);
}

fn rounded(x: f32, by: vec2f) -> f32 { return round(x * by.y) * by.x; }

// Keep the codes of a group that begins at `column` of row `row` of `width`, four at a time, and then
// its scale and sums: `pack` gives what four codes add to them.
fn pack(row: u32, width: u32, column: u32, x: vec4f, by: vec2f) -> vec2i {
    let codes = pack4xI8(vec4i(round(x * by.y)));
    packed[row * (width / 4 + width / 16) + column / 4] = codes;
    let sum = dot4I8Packed(codes, 0x01010101);
    return select(vec2i(0, sum), vec2i(sum, 0), column % GROUP < GROUP / 2);
}

fn pack_scale(row: u32, width: u32, column: u32, d: f32, sums: vec2i) {
    let at = row * (width / 4 + width / 16) + width / 4 + column / GROUP * 2;
    packed[at] = bitcast<u32>(d);
    packed[at + 1] = bitcast<u32>((sums.x & 0xffff) | (sums.y << 16));
}
