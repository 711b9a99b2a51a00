// Formats sym1-gN to asym8-gN: groups of BLOCK columns (a multiple of 4) with an f32 scale each.
//
// `codes` holds the packed bits of the groups, BYTES per group, one group after the other.
// `headers` holds all f32 scales, then for asymmetric formats all zero points, one byte each. The
// last group of a row may be short. Same arithmetic as reference/affine.py.

// include levels

override ROWS: u32;
override COLUMNS: u32;
override BLOCK: u32;
override BYTES: u32;
override BITS: u32;
override SYMMETRIC: bool;

@group(0) @binding(0) var<storage, read> codes: array<u32>;
@group(0) @binding(1) var<storage, read> headers: array<u32>;

fn group_of(row: u32, quad: u32) -> u32 {
    return row * ((COLUMNS + BLOCK - 1) / BLOCK) + quad / (BLOCK / 4);
}

fn levels4(row: u32, quad: u32) -> u32 {
    let bit = quad % (BLOCK / 4) * 4 * BITS;
    let byte = group_of(row, quad) * BYTES + bit / 8;
    let shift = bit % 8 + byte % 4 * 8;
    var bits = codes[byte / 4] >> shift;
    if shift > 0 { bits |= codes[byte / 4 + 1] << (32 - shift); }
    var code = 0u;
    for (var e = 0u; e < 4; e++) { code |= extractBits(bits, e * BITS, BITS) << (8 * e); }
    if !SYMMETRIC { return select(code, code ^ 0x80808080, BITS == 8); }  // 8 bits: code - 128
    if BITS == 1 { return subtract4(2 * code, 1); }
    if BITS == 8 { return pack4xI8(vec4i(unpack4xU8(code)) - 127); }  // no code is 255
    return subtract4(code, (1u << (BITS - 1)) - 1);
}

fn scale_of(row: u32, quad: u32) -> vec2f {
    let group = group_of(row, quad);
    let scale = bitcast<f32>(headers[group]);
    if SYMMETRIC { return vec2f(scale, 0); }
    let zero = byte_of(headers[ROWS * ((COLUMNS + BLOCK - 1) / BLOCK) + group / 4], group % 4);
    return vec2f(scale, -scale * f32(i32(zero) - select(0, 128, BITS == 8)));
}
