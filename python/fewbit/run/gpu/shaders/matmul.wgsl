// Op `linear` for many tokens, in tiles, by tile_f32.wgsl or tile_int8.wgsl.

// include tile

@group(0) @binding(7) var<storage, read> step: array<u32>;

fn y_row_of(index: u32) -> u32 { return index; }

@compute @workgroup_size(16, 8)
fn matmul(@builtin(workgroup_id) workgroup_id: vec3u, lane: Invocation) {
    let tokens = select(step[STEP_TOKENS], step[STEP_OUTPUTS], AFTER_TAKE);
    let first = workgroup_id.y * TILE;
    let row = workgroup_id.x * TILE;
    multiply(Tile(first, min(tokens - first, TILE), row, FIRST_ROW + row), lane);
}
