// x * y, each element of a shorter y for PER of x.

// include both

override PER: u32 = 1;

@compute @workgroup_size(LANES)
fn mul(@builtin(global_invocation_id) id: vec3u) {
    if is_inside(id) { put(id, x_of(id) * other_of(vec3u(id.x / PER, id.yz))); }
}
