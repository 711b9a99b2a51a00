// 1 / (1 + exp(-x)); rows of WIDTH, an invocation an element.

override WIDTH: u32;

@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(LANES)
fn sigmoid(@builtin(global_invocation_id) id: vec3u) {
    if id.x >= WIDTH { return; }
    let v = x[id.y * STRIDE + OFFSET + id.x];
    y[id.y * WIDTH + id.x] = logistic(v);
}
