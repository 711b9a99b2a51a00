// Row `position` of the table.

// include table

@compute @workgroup_size(LANES)
fn embed_position(@builtin(global_invocation_id) id: vec3u) { put_row(step[position_at(id.y)], id); }
