// Op `embed`: row `token` of the embedding table.

// include table

@compute @workgroup_size(LANES)
fn embed(@builtin(global_invocation_id) id: vec3u) { write_row(step[token_at(id.y)], id); }
