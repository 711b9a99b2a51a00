// CAP tanh(x / CAP), as CAP (2 / (1 + exp(-2 x / CAP)) - 1); rows of WIDTH, an invocation an
// element.

override WIDTH: u32;
override CAP: f32;

@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(LANES)
fn softcap(@builtin(global_invocation_id) id: vec3u) {
    if id.x >= WIDTH { return; }
    let v = x[id.y * STRIDE + OFFSET + id.x];
    y[id.y * WIDTH + id.x] = CAP * (2 * logistic(2 * v / CAP) - 1);
}
