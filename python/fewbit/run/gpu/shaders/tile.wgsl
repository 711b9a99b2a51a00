// A tile of a product, up to 64 places by 64 rows of W, by a workgroup of 16 x 8 invocations: what
// tile_f32.wgsl and tile_int8.wgsl share. An invocation has the sums of 8 places and 4 rows. For the
// loads it has a row of x and a row of W, half of each: its neighbour has the other half, so a
// pair reads whole sectors of memory, and a run of 16 pairs writes to 32 banks of workgroup memory.
//
// A shader that includes this says by `place_of` which places the tile's are.

// include product

const TILE: u32 = 64;

struct Tile {
    first: u32,   // the tile's places are place_of(first), place_of(first + 1), ...
    count: u32,   // so many
    row: u32,     // its rows of W, from here on
    column: u32,  // and of these the columns of the result
}

struct Invocation {
    @builtin(local_invocation_id) at: vec3u,
    @builtin(local_invocation_index) index: u32,
}

fn put(tile: Tile, r: u32, c: u32, sums: vec4f) {
    if r >= tile.count { return; }
    let place = place_of(tile.first + r);
    let row = tile.row + c;
    let column = tile.column + c;
    if is_within(row, column) { write(place, row, column, sums.x); }
    if is_within(row + 1, column + 1) { write(place, row + 1, column + 1, sums.y); }
    if is_within(row + 2, column + 2) { write(place, row + 2, column + 2, sums.z); }
    if is_within(row + 3, column + 3) { write(place, row + 3, column + 3, sums.w); }
}

// The sums of an invocation; each by a constant index, as they are registers.
fn put_all(tile: Tile, lane: Invocation, sums: array<vec4f, 8>) {
    let r = 8 * lane.at.y;
    let c = 4 * lane.at.x;
    put(tile, r, c, sums[0]);
    put(tile, r + 1, c, sums[1]);
    put(tile, r + 2, c, sums[2]);
    put(tile, r + 3, c, sums[3]);
    put(tile, r + 4, c, sums[4]);
    put(tile, r + 5, c, sums[5]);
    put(tile, r + 6, c, sums[6]);
    put(tile, r + 7, c, sums[7]);
}
