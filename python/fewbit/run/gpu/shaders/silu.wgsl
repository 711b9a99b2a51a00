// x / (1 + exp(-x)).

// include each
// include gates

@compute @workgroup_size(LANES)
fn silu(@builtin(global_invocation_id) id: vec3u) {
    if is_inside(id) { put(id, x_of(id) * logistic(x_of(id))); }
}
