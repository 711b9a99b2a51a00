// gelu(gate) * up.

// include both
// include gates

@compute @workgroup_size(LANES)
fn geglu(@builtin(global_invocation_id) id: vec3u) {
    if is_inside(id) { put(id, gelu_of(x_of(id)) * other_of(id)); }
}
