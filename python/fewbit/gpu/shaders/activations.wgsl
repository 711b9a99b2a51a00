// The x of a product as f32, in fours.

// include product

@group(0) @binding(3) var<storage, read> x: array<vec4f>;

// Where the x of a place begins.
fn x_start(place: u32) -> u32 {
    let start = (place / USED * STRIDE + OFFSET) / 4;
    return start + select(place % USED * (COLUMNS / 4), 0, SHARED);
}
