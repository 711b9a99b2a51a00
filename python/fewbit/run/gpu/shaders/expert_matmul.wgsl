// Op `expert_linear` for many tokens, in tiles, by tile_f32.wgsl or tile_int8.wgsl.
//
// All rows of a tile belong to one expert, whose matrix is read once for them; `grouped` lists the
// tiles (grouped.wgsl).

// include tile
// include grouped

@group(0) @binding(9) var<storage, read> grouped: array<u32>;

fn y_row_of(index: u32) -> u32 { return grouped[index]; }

@compute @workgroup_size(16, 8)
fn expert_matmul(@builtin(workgroup_id) workgroup_id: vec3u, lane: Invocation) {
    if workgroup_id.y >= grouped[0] { return; }
    let at = tile_at(workgroup_id.y);
    let column = workgroup_id.x * TILE;
    let row = grouped[at] * WIDTH + column - FIRST_ROW;
    if !is_touched(row, TILE) { return; }
    multiply(Tile(grouped[at + 1], grouped[at + 2], row, column), lane);
}
