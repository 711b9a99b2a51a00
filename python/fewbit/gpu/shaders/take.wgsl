// The rows whose logits are wanted; rows of WIDTH, an invocation an element.

override WIDTH: u32;

@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(7) var<storage, read> step: array<u32>;

@compute @workgroup_size(LANES)
fn take(@builtin(global_invocation_id) id: vec3u) {
    if id.x >= WIDTH { return; }
    y[id.y * WIDTH + id.x] = x[step[taken_at(id.y)] * STRIDE + OFFSET + id.x];
}
