// x * FACTOR.

// include each

override FACTOR: f32;

@compute @workgroup_size(LANES)
fn scale(@builtin(global_invocation_id) id: vec3u) {
    if is_inside(id) { put(id, x_of(id) * FACTOR); }
}
