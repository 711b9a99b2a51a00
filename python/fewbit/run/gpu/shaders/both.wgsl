// What ops of two values, element by element, begin with.

// include each

override OTHER_STRIDE: u32;
override OTHER_OFFSET: u32 = 0;
override OTHER_PIECE: u32 = 0xffffffff;
override OTHER_APART: u32 = 0;

@group(0) @binding(6) var<storage, read> other: array<f32>;

fn other_of(id: vec3u) -> f32 {
    let column = id.x / OTHER_PIECE * OTHER_APART + id.x % OTHER_PIECE;
    return other[id.y * OTHER_STRIDE + OTHER_OFFSET + column];
}
