// A tile of a product in f32. In turn 32 columns of both sides go through workgroup memory, where W is
// decoded once for 64 places. They lie there column by column, so that an invocation reads four rows
// of a column as one vector: three vectors for 32 fused multiply-adds, of which neighbours share two.
// Eight vectors of sums fit the registers with room for enough workgroups to hide the loads.

// include activations
// include tile

const DEPTH: u32 = 32;
const PITCH: u32 = 17;  // vectors from column to column; 4 apart, a pair's columns are in other banks

var<workgroup> left: array<vec4f, DEPTH * PITCH>;
var<workgroup> right: array<vec4f, DEPTH * PITCH>;

fn multiply(tile: Tile, lane: Invocation) {
    let own = lane.index / 2;
    let has_x = own < tile.count;
    let start = x_start(place_of(tile.first + min(own, tile.count - 1)));
    let row = tile.row + own;
    let has_w = is_within(row, tile.column + own);
    let busy = 8 * lane.at.y < tile.count;
    var sums: array<vec4f, 8>;
    for (var depth = 0u; depth < COLUMNS; depth += DEPTH) {
        for (var i = lane.index % 2; i < DEPTH / 4; i += 2) {
            let four = depth / 4 + i;
            var a = vec4f();
            var b = vec4f();
            if has_x && four < COLUMNS / 4 { a = x4(start + four); }
            if has_w && four < COLUMNS / 4 { b = weights4(row, four); }
            let at = 4 * i * PITCH + own / 4;
            left[at][own % 4] = a.x;
            left[at + PITCH][own % 4] = a.y;
            left[at + 2 * PITCH][own % 4] = a.z;
            left[at + 3 * PITCH][own % 4] = a.w;
            right[at][own % 4] = b.x;
            right[at + PITCH][own % 4] = b.y;
            right[at + 2 * PITCH][own % 4] = b.z;
            right[at + 3 * PITCH][own % 4] = b.w;
        }
        workgroupBarrier();
        for (var k = 0u; busy && k < DEPTH; k++) {
            let a = left[k * PITCH + 2 * lane.at.y];
            let c = left[k * PITCH + 2 * lane.at.y + 1];
            let b = right[k * PITCH + lane.at.x];
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
    put_all(tile, lane, sums);
}
