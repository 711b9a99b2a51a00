// Row `position` of the table; a slice of the table that begins at row FIRST has ROWS of them. An
// invocation does four columns.

override FIRST: u32 = 0;

@group(0) @binding(4) var<storage, read_write> y: array<vec4f>;
@group(0) @binding(7) var<storage, read> step: array<u32>;

@compute @workgroup_size(LANES)
fn embed_position(@builtin(global_invocation_id) id: vec3u) {
    let position = step[position_at(id.y)];
    if id.x >= COLUMNS / 4 || position < FIRST || position >= FIRST + ROWS { return; }
    y[id.y * (COLUMNS / 4) + id.x] = weights4(position - FIRST, id.x);
}
