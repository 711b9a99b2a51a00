// Op `mul`: x * y. If y is shorter, each of its elements multiplies REPEAT elements of x.

// include binary

override REPEAT: u32 = 1;

@compute @workgroup_size(LANES)
fn mul(@builtin(global_invocation_id) id: vec3u) {
    if is_inside(id) { write_y(id, x_at(id) * other_at(vec3u(id.x / REPEAT, id.yz))); }
}
