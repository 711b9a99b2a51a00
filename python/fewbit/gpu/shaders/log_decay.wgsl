// rate * ln(1 + exp(x + bias)); rows of WIDTH, an invocation an element.

override WIDTH: u32;

@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read> rate: array<f32>;
@group(0) @binding(6) var<storage, read> bias: array<f32>;

@compute @workgroup_size(LANES)
fn log_decay(@builtin(global_invocation_id) id: vec3u) {
    if id.x >= WIDTH { return; }
    let v = x[id.y * STRIDE + OFFSET + id.x] + bias[id.x];
    y[id.y * WIDTH + id.x] = rate[id.x] * (max(v, 0) + log_1p(exp(max(-abs(v), -87))));
}
