// Op `embed_position`: row `position` of the table of position embeddings.

// include table

@compute @workgroup_size(LANES)
fn embed_position(@builtin(global_invocation_id) id: vec3u) {
    write_row(step[position_at(id.y)], id);
}
