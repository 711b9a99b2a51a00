// Embedding tables: copies a row of a table to y, four columns per invocation.
//
// The table that is bound is a slice of ROWS rows that starts at row FIRST_ROW.

override FIRST_ROW: u32 = 0;

@group(0) @binding(4) var<storage, read_write> y: array<vec4f>;
@group(0) @binding(7) var<storage, read> step: array<u32>;

fn write_row(row: u32, id: vec3u) {
    if id.x >= COLUMNS / 4 || row < FIRST_ROW || row >= FIRST_ROW + ROWS { return; }
    y[id.y * (COLUMNS / 4) + id.x] = weights4(row - FIRST_ROW, id.x);
}
