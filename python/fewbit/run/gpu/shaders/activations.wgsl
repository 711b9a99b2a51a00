// Reads x, the activations of a matrix product, as f32, four columns at a time.

// include product

override BF16: bool = false;  // round x to bfloat16: nearest even, zero below 2^-54

@group(0) @binding(3) var<storage, read> x: array<vec4f>;

// Four columns of x, rounded if BF16.
fn x4(i: u32) -> vec4f {
    if !BF16 { return x[i]; }
    let bits = bitcast<vec4u>(x[i]);
    let nearest = (bits + 0x7fff + ((bits >> vec4u(16)) & vec4u(1))) & vec4u(0xffff0000);
    let tiny = (nearest & vec4u(0x7fffffff)) < vec4u(73 << 23);  // 2^-54
    return bitcast<vec4f>(select(nearest, vec4u(), tiny));
}

// First vec4f of the x of a row of y.
fn x_start(y_row: u32) -> u32 {
    let start = (y_row / USED * STRIDE + OFFSET) / 4;
    return start + select(y_row % USED * (COLUMNS / 4), 0, SHARED_X);
}
