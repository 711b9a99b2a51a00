// rate * ln(1 + exp(x + bias)).

// include each
// include logarithm

@group(0) @binding(5) var<storage, read> rate: array<f32>;
@group(0) @binding(6) var<storage, read> bias: array<f32>;

@compute @workgroup_size(LANES)
fn log_decay(@builtin(global_invocation_id) id: vec3u) {
    if !is_inside(id) { return; }
    let v = x_of(id) + bias[id.x];
    put(id, rate[id.x] * (max(v, 0) + log_1p(exp(max(-abs(v), -87)))));
}
