// Rows of a table as the first value of a plan: a slice of it begins at row FIRST and has ROWS of
// them. An invocation does four columns.

override FIRST: u32 = 0;

@group(0) @binding(4) var<storage, read_write> y: array<vec4f>;
@group(0) @binding(7) var<storage, read> step: array<u32>;

fn put_row(row: u32, id: vec3u) {
    if id.x >= COLUMNS / 4 || row < FIRST || row >= FIRST + ROWS { return; }
    y[id.y * (COLUMNS / 4) + id.x] = weights4(row - FIRST, id.x);
}
