// gelu(x), by the hyperbolic tangent's approximation.

// include each
// include gates

@compute @workgroup_size(LANES)
fn gelu(@builtin(global_invocation_id) id: vec3u) {
    if is_inside(id) { put(id, gelu_of(x_of(id))); }
}
