// Op `softcap`: CAP tanh(x / CAP), computed as CAP (2 / (1 + exp(-2 x / CAP)) - 1).

// include unary
// include gates

override CAP: f32;

@compute @workgroup_size(LANES)
fn softcap(@builtin(global_invocation_id) id: vec3u) {
    if is_inside(id) { write_y(id, CAP * (2 * logistic(2 * x_at(id) / CAP) - 1)); }
}
