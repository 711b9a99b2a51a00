// A tile of a matrix product in f32.
//
// 32 columns of x and W at a time go through workgroup memory, where each row of W is decoded once
// for 64 rows of y. They lie there column by column, so an invocation reads four rows of a column
// as one vector: three vectors for 32 fused multiply-adds, two of which its neighbours read too.
// Eight vectors of sums leave enough registers for the workgroups that hide the load latency.

// include activations
// include tile

const DEPTH: u32 = 32;
// vectors per column: columns 4 apart, which a pair loads at once, are in different banks
const PITCH: u32 = 17;

var<workgroup> x_tile: array<vec4f, DEPTH * PITCH>;
var<workgroup> w_tile: array<vec4f, DEPTH * PITCH>;

fn multiply(tile: Tile, lane: Invocation) {
    let own_row = lane.index / 2;
    let has_x = own_row < tile.count;
    let start = x_start(y_row_of(tile.first + min(own_row, tile.count - 1)));
    let row = tile.row + own_row;
    let has_w = is_within(row, tile.column + own_row);
    let busy = 8 * lane.at.y < tile.count;
    var sums: array<vec4f, 8>;
    for (var depth = 0u; depth < COLUMNS; depth += DEPTH) {
        for (var i = lane.index % 2; i < DEPTH / 4; i += 2) {
            let quad = depth / 4 + i;
            var a = vec4f();
            var b = vec4f();
            if has_x && quad < COLUMNS / 4 { a = x4(start + quad); }
            if has_w && quad < COLUMNS / 4 { b = weights4(row, quad); }
            let at = 4 * i * PITCH + own_row / 4;
            x_tile[at][own_row % 4] = a.x;
            x_tile[at + PITCH][own_row % 4] = a.y;
            x_tile[at + 2 * PITCH][own_row % 4] = a.z;
            x_tile[at + 3 * PITCH][own_row % 4] = a.w;
            w_tile[at][own_row % 4] = b.x;
            w_tile[at + PITCH][own_row % 4] = b.y;
            w_tile[at + 2 * PITCH][own_row % 4] = b.z;
            w_tile[at + 3 * PITCH][own_row % 4] = b.w;
        }
        workgroupBarrier();
        for (var k = 0u; busy && k < DEPTH; k++) {
            let a = x_tile[k * PITCH + 2 * lane.at.y];
            let c = x_tile[k * PITCH + 2 * lane.at.y + 1];
            let b = w_tile[k * PITCH + lane.at.x];
            sums[0] = fma(vec4f(a.x), b, sums[0]);
            sums[1] = fma(vec4f(a.y), b, sums[1]);
            sums[2] = fma(vec4f(a.z), b, sums[2]);
            sums[3] = fma(vec4f(a.w), b, sums[3]);
            sums[4] = fma(vec4f(c.x), b, sums[4]);
            sums[5] = fma(vec4f(c.y), b, sums[5]);
            sums[6] = fma(vec4f(c.z), b, sums[6]);
            sums[7] = fma(vec4f(c.w), b, sums[7]);
        }
        workgroupBarrier();
    }
    write_tile(tile, lane, sums);
}
