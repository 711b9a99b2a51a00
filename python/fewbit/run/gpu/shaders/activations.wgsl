// The x of a product as f32, in fours.

// include product

override BF16: bool = false;  // rounded to bfloat16, to nearest, even; below 2^-54 zero

@group(0) @binding(3) var<storage, read> x: array<vec4f>;

// Four of x, as the product takes them.
fn x4(i: u32) -> vec4f {
    if !BF16 { return x[i]; }
    let bits = bitcast<vec4u>(x[i]);
    let nearest = (bits + 0x7fff + ((bits >> vec4u(16)) & vec4u(1))) & vec4u(0xffff0000);
    let tiny = (nearest & vec4u(0x7fffffff)) < vec4u(73 << 23);  // 2^-54
    return bitcast<vec4f>(select(nearest, vec4u(), tiny));
}

// Where the x of a place begins.
fn x_start(place: u32) -> u32 {
    let start = (place / USED * STRIDE + OFFSET) / 4;
    return start + select(place % USED * (COLUMNS / 4), 0, SHARED);
}
