// From each part of SIZE columns of x the TAKEN from START on; an invocation an element.

override WIDTH: u32;
override SIZE: u32;
override TAKEN: u32;
override START: u32;

@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(LANES)
fn part(@builtin(global_invocation_id) id: vec3u) {
    if id.x >= WIDTH { return; }
    let column = id.x / TAKEN * SIZE + START + id.x % TAKEN;
    y[id.y * WIDTH + id.x] = x[id.y * STRIDE + OFFSET + column];
}
