// Each head's pairs rotated by the turns of its position: `turns` holds (cos, sin) times the factor
// for every position and pair, made in binary64 on the host, as f32 angles lose their fractions.
// An invocation does one pair, or copies one element past the pairs.

override WIDTH: u32;
override SIZE: u32;       // columns of a head
override PAIRS: u32;
override APART: u32;      // from a pair's first element to its second
override FOLLOWING: u32;  // from a pair to the next

@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read> turns: array<vec2f>;
@group(0) @binding(7) var<storage, read> step: array<u32>;

@compute @workgroup_size(LANES)
fn rope(@builtin(global_invocation_id) id: vec3u) {
    let steps = SIZE - PAIRS;  // pairs, then single elements
    if id.x >= WIDTH / SIZE * steps { return; }
    let head = id.x / steps * SIZE;
    let k = id.x % steps;
    let start = id.y * STRIDE + OFFSET + head;
    let to = id.y * WIDTH + head;
    if k >= PAIRS {
        y[to + PAIRS + k] = x[start + PAIRS + k];
        return;
    }
    let i = k * FOLLOWING;
    let j = i + APART;
    let turn = turns[step[position_at(id.y)] * PAIRS + k];
    let a = x[start + i];
    let b = x[start + j];
    y[to + i] = a * turn.x - b * turn.y;
    y[to + j] = a * turn.y + b * turn.x;
}
