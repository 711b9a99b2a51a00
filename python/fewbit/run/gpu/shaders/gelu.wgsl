// Op `gelu`: gelu(x) in its tanh approximation.

// include unary
// include gates

@compute @workgroup_size(LANES)
fn gelu(@builtin(global_invocation_id) id: vec3u) {
    if is_inside(id) { write_y(id, gelu_of(x_at(id))); }
}
