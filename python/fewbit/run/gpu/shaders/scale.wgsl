// Op `scale`: x * FACTOR.

// include unary

override FACTOR: f32;

@compute @workgroup_size(LANES)
fn scale(@builtin(global_invocation_id) id: vec3u) {
    if is_inside(id) { write_y(id, x_at(id) * FACTOR); }
}
