// Op `geglu`: gelu(gate) * up.

// include binary
// include gates

@compute @workgroup_size(LANES)
fn geglu(@builtin(global_invocation_id) id: vec3u) {
    if is_inside(id) { write_y(id, gelu_of(x_at(id)) * other_at(id)); }
}
