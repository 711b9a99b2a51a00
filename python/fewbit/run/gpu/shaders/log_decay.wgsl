// Op `log_decay`: rate * ln(1 + exp(x + bias)), the log of a recurrent state's decay.

// include unary
// include logarithm

@group(0) @binding(5) var<storage, read> rate: array<f32>;
@group(0) @binding(6) var<storage, read> bias: array<f32>;

@compute @workgroup_size(LANES)
fn log_decay(@builtin(global_invocation_id) id: vec3u) {
    if !is_inside(id) { return; }
    let v = x_at(id) + bias[id.x];
    write_y(id, rate[id.x] * (max(v, 0) + log_1p_small(exp(max(-abs(v), -87)))));
}
