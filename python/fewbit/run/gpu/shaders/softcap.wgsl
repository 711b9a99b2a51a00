// CAP tanh(x / CAP), as CAP (2 / (1 + exp(-2 x / CAP)) - 1).

// include each
// include gates

override CAP: f32;

@compute @workgroup_size(LANES)
fn softcap(@builtin(global_invocation_id) id: vec3u) {
    if is_inside(id) { put(id, CAP * (2 * logistic(2 * x_of(id) / CAP) - 1)); }
}
