// Op `rope`: rotates pairs of columns of each head by angles that depend on the position.
//
// `rotary` holds (cos, sin) * factor for each position and pair. The host computes them in f64:
// position * frequency in f32 loses too many bits. One invocation rotates one pair, or copies one
// column that is not rotated.

override WIDTH: u32;
override SIZE: u32;       // columns of a head
override PAIRS: u32;
override PARTNER: u32;      // from the first column of a pair to the second
override PAIR_STRIDE: u32;  // from a pair to the next

@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read> rotary: array<vec2f>;
@group(0) @binding(7) var<storage, read> step: array<u32>;

@compute @workgroup_size(LANES)
fn rope(@builtin(global_invocation_id) id: vec3u) {
    let items = SIZE - PAIRS;  // pairs, then columns that are copied
    if id.x >= WIDTH / SIZE * items { return; }
    let head = id.x / items * SIZE;
    let k = id.x % items;
    let start = id.y * STRIDE + OFFSET + head;
    let to = id.y * WIDTH + head;
    if k >= PAIRS {
        y[to + PAIRS + k] = x[start + PAIRS + k];
        return;
    }
    let i = k * PAIR_STRIDE;
    let j = i + PARTNER;
    let cos_sin = rotary[step[position_at(id.y)] * PAIRS + k];
    let a = x[start + i];
    let b = x[start + j];
    y[to + i] = a * cos_sin.x - b * cos_sin.y;
    y[to + j] = a * cos_sin.y + b * cos_sin.x;
}
