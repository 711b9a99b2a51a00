// `expert_linear` for many rows of x in tiles, by tile_f32.wgsl or tile_int8.wgsl. A tile's places are of
// one expert, whose matrix it reads once: `grouped` says which, see grouped.wgsl.

// include tile
// include grouped

@group(0) @binding(9) var<storage, read> grouped: array<u32>;

fn place_of(index: u32) -> u32 { return grouped[index]; }

@compute @workgroup_size(16, 8)
fn expert_matmul(@builtin(workgroup_id) group: vec3u, lane: Invocation) {
    if group.y >= grouped[0] { return; }
    let at = tile_at(group.y);
    let column = group.x * TILE;
    let row = grouped[at] * WIDTH + column - FIRST;
    if !is_touched(row, TILE) { return; }
    multiply(Tile(grouped[at + 1], grouped[at + 2], row, column), lane);
}
