// Row `token` of the table.

// include table

@compute @workgroup_size(LANES)
fn embed(@builtin(global_invocation_id) id: vec3u) { put_row(step[token_at(id.y)], id); }
