// x + y.

// include both

@compute @workgroup_size(LANES)
fn add(@builtin(global_invocation_id) id: vec3u) {
    if is_inside(id) { put(id, x_of(id) + other_of(id)); }
}
