// Formats F32, F16 and BF16. An element of `codes` is 8 bytes: two F32, or four F16 or BF16.

override FORMAT: u32;  // GGUF's type id
override ROWS: u32;
override COLUMNS: u32;

@group(0) @binding(0) var<storage, read> codes: array<vec2u>;

fn weights4(row: u32, quad: u32) -> vec4f {
    let at = row * (COLUMNS / 4) + quad;
    if FORMAT == 0 { return bitcast<vec4f>(vec4u(codes[2 * at], codes[2 * at + 1])); }
    let pair = codes[at];
    if FORMAT == 1 { return vec4f(unpack2x16float(pair.x), unpack2x16float(pair.y)); }
    return bitcast<vec4f>(
        vec4u(pair.x << 16, pair.x & 0xffff0000, pair.y << 16, pair.y & 0xffff0000)
    );
}
