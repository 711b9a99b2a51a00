// Element-wise ops of two values (`add`, `mul`, gates) include this: it reads the second value.

// include unary

override OTHER_STRIDE: u32;
override OTHER_OFFSET: u32 = 0;
override OTHER_PIECE_WIDTH: u32 = 0xffffffff;
override OTHER_PIECE_STRIDE: u32 = 0;

@group(0) @binding(6) var<storage, read> other: array<f32>;

fn other_at(id: vec3u) -> f32 {
    let column = id.x / OTHER_PIECE_WIDTH * OTHER_PIECE_STRIDE + id.x % OTHER_PIECE_WIDTH;
    return other[id.y * OTHER_STRIDE + OTHER_OFFSET + column];
}
