// 1 / (1 + exp(-x)).

// include each
// include gates

@compute @workgroup_size(LANES)
fn sigmoid(@builtin(global_invocation_id) id: vec3u) {
    if is_inside(id) { put(id, logistic(x_of(id))); }
}
