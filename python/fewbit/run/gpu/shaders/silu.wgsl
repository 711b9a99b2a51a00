// Op `silu`: x / (1 + exp(-x)).

// include unary
// include gates

@compute @workgroup_size(LANES)
fn silu(@builtin(global_invocation_id) id: vec3u) {
    if is_inside(id) { write_y(id, x_at(id) * logistic(x_at(id))); }
}
