// Op `take`: the rows of the tokens whose logits are outputs.

// include unary

@group(0) @binding(7) var<storage, read> step: array<u32>;

@compute @workgroup_size(LANES)
fn take(@builtin(global_invocation_id) id: vec3u) {
    if is_inside(id) { write_y(id, x_at(vec3u(id.x, step[output_row_at(id.y)], 0))); }
}
