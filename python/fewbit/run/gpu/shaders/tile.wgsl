// A tile of 64 rows of y by 64 rows of W, as tile_f32.wgsl and tile_int8.wgsl share it.
//
// An invocation holds the sums of 8 rows of y for 4 rows of W. It loads half of a row of x and half
// of a row of W; its neighbour loads the other halves, so a pair reads full memory sectors, and 16
// pairs write to 32 banks of workgroup memory.
//
// A shader that includes this defines `y_row_of`, which maps rows of the tile to rows of y.

// include product

const TILE: u32 = 64;

struct Tile {
    first: u32,   // rows of y: y_row_of(first), y_row_of(first + 1), ...
    count: u32,   // number of rows of y
    row: u32,     // first row of W
    column: u32,  // column of y that this row gives
}

struct Invocation {
    @builtin(local_invocation_id) at: vec3u,
    @builtin(local_invocation_index) index: u32,
}

fn write_quad(tile: Tile, r: u32, c: u32, sums: vec4f) {
    if r >= tile.count { return; }
    let y_row = y_row_of(tile.first + r);
    let row = tile.row + c;
    let column = tile.column + c;
    if is_within(row, column) { write_y(y_row, row, column, sums.x); }
    if is_within(row + 1, column + 1) { write_y(y_row, row + 1, column + 1, sums.y); }
    if is_within(row + 2, column + 2) { write_y(y_row, row + 2, column + 2, sums.z); }
    if is_within(row + 3, column + 3) { write_y(y_row, row + 3, column + 3, sums.w); }
}

// Writes the sums of an invocation. Constant indices keep `sums` in registers.
fn write_tile(tile: Tile, lane: Invocation, sums: array<vec4f, 8>) {
    let r = 8 * lane.at.y;
    let c = 4 * lane.at.x;
    write_quad(tile, r, c, sums[0]);
    write_quad(tile, r + 1, c, sums[1]);
    write_quad(tile, r + 2, c, sums[2]);
    write_quad(tile, r + 3, c, sums[3]);
    write_quad(tile, r + 4, c, sums[4]);
    write_quad(tile, r + 5, c, sums[5]);
    write_quad(tile, r + 6, c, sums[6]);
    write_quad(tile, r + 7, c, sums[7]);
}
