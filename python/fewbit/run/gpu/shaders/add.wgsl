// Op `add`: x + y.

// include binary

@compute @workgroup_size(LANES)
fn add(@builtin(global_invocation_id) id: vec3u) {
    if is_inside(id) { write_y(id, x_at(id) + other_at(id)); }
}
