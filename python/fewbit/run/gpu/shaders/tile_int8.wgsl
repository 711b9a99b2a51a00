// A tile of a matrix product of int8 activations and integer levels.
//
// 64 columns of x and W at a time go through workgroup memory, four codes to a word, with the scale
// of each SCALE_GROUP columns of W. An invocation reads three vectors of words for 32 products of
// four bytes (128 multiply-adds), and the scales of 32 sums once per scale group. Sums within a
// scale group are integers. Groups are then added in the order of the oracle: sum = fma(dot, scale
// * d, sum), and with minimums sum = fma(minimum, d * (sum of codes of x), sum).

// include activations_int8
// include tile

const DEPTH: u32 = 16;  // words of a row
const PITCH: u32 = 20;  // vectors per word: 16 banks apart
const QUADS: u32 = TILE / 4;

var<workgroup> x_tile: array<vec4u, DEPTH * PITCH>;
var<workgroup> w_tile: array<vec4u, DEPTH * PITCH>;
var<workgroup> x_scales: array<vec4f, 2 * QUADS>;  // per 32 columns; the others per SCALE_GROUP
var<workgroup> x_sums: array<vec4f, 4 * QUADS>;
var<workgroup> w_scales: array<vec4f, 4 * QUADS>;
var<workgroup> w_minimums: array<vec4f, 4 * QUADS>;

fn multiply(tile: Tile, lane: Invocation) {
    let own_row = lane.index / 2;
    let half = lane.index % 2;
    let has_x = own_row < tile.count;
    let start = x_start(y_row_of(tile.first + min(own_row, tile.count - 1)));
    let row = tile.row + own_row;
    let has_w = is_within(row, tile.column + own_row);
    let busy = 8 * lane.at.y < tile.count;
    let group_words = SCALE_GROUP / 4;
    var sums: array<vec4f, 8>;
    for (var depth = 0u; depth < COLUMNS / 4; depth += DEPTH) {
        for (var i = half; i < DEPTH; i += 2) {
            let quad = depth + i;
            var a = 0u;
            var b = 0u;
            if has_x && quad < COLUMNS / 4 { a = packed[start.x + quad]; }
            if has_w && quad < COLUMNS / 4 { b = levels4(row, quad); }
            x_tile[i * PITCH + own_row / 4][own_row % 4] = a;
            w_tile[i * PITCH + own_row / 4][own_row % 4] = b;
        }
        let block = depth + 8 * half;  // the 32 columns whose scales this invocation loads
        var pair = vec2u();
        if has_x && block < COLUMNS / 4 {
            let at = start.y + block / 4;
            pair = vec2u(packed[at], packed[at + 1]);
        }
        let d = bitcast<f32>(pair.x);
        x_scales[half * QUADS + own_row / 4][own_row % 4] = d;
        for (var i = 8 * half; i < 8 * half + 8; i += group_words) {
            var s = vec2f();
            if has_w && block < COLUMNS / 4 { s = scale_of(row, depth + i); }
            w_scales[i / group_words * QUADS + own_row / 4][own_row % 4] = s.x;
            if HAS_MINIMUM {
                w_minimums[i / group_words * QUADS + own_row / 4][own_row % 4] = s.y;
                let sum = d * sum_of_codes(pair.y, i % 8);
                x_sums[i / group_words * QUADS + own_row / 4][own_row % 4] = sum;
            }
        }
        workgroupBarrier();
        for (var first = 0u; busy && first < DEPTH; first += group_words) {
            var dots = array<vec4i, 8>();
            for (var k = first; k < first + group_words; k++) {
                let a = x_tile[k * PITCH + 2 * lane.at.y];
                let c = x_tile[k * PITCH + 2 * lane.at.y + 1];
                let b = w_tile[k * PITCH + lane.at.x];
                dots[0] += products(a.x, b);
                dots[1] += products(a.y, b);
                dots[2] += products(a.z, b);
                dots[3] += products(a.w, b);
                dots[4] += products(c.x, b);
                dots[5] += products(c.y, b);
                dots[6] += products(c.z, b);
                dots[7] += products(c.w, b);
            }
            let s = w_scales[first / group_words * QUADS + lane.at.x];
            let at = first / 8 * QUADS + 2 * lane.at.y;
            let d = x_scales[at];
            let e = x_scales[at + 1];
            sums[0] = fma(vec4f(dots[0]), s * d.x, sums[0]);
            sums[1] = fma(vec4f(dots[1]), s * d.y, sums[1]);
            sums[2] = fma(vec4f(dots[2]), s * d.z, sums[2]);
            sums[3] = fma(vec4f(dots[3]), s * d.w, sums[3]);
            sums[4] = fma(vec4f(dots[4]), s * e.x, sums[4]);
            sums[5] = fma(vec4f(dots[5]), s * e.y, sums[5]);
            sums[6] = fma(vec4f(dots[6]), s * e.z, sums[6]);
            sums[7] = fma(vec4f(dots[7]), s * e.w, sums[7]);
            if HAS_MINIMUM {
                let m = w_minimums[first / group_words * QUADS + lane.at.x];
                let t = x_sums[first / group_words * QUADS + 2 * lane.at.y];
                let u = x_sums[first / group_words * QUADS + 2 * lane.at.y + 1];
                sums[0] = fma(m, vec4f(t.x), sums[0]);
                sums[1] = fma(m, vec4f(t.y), sums[1]);
                sums[2] = fma(m, vec4f(t.z), sums[2]);
                sums[3] = fma(m, vec4f(t.w), sums[3]);
                sums[4] = fma(m, vec4f(u.x), sums[4]);
                sums[5] = fma(m, vec4f(u.y), sums[5]);
                sums[6] = fma(m, vec4f(u.z), sums[6]);
                sums[7] = fma(m, vec4f(u.w), sums[7]);
            }
        }
        workgroupBarrier();
    }
    write_tile(tile, lane, sums);
}

// The sum of the codes of a scale group, from the two sums of 16 codes in a word.
fn sum_of_codes(sums: u32, word: u32) -> f32 {
    let first = extractBits(bitcast<i32>(sums), 0, 16);
    let last = bitcast<i32>(sums) >> 16;
    if SCALE_GROUP == 32 { return f32(first + last); }
    return f32(select(last, first, word == 0));
}

// Four codes of x times four codes of each of four rows of W.
fn products(a: u32, b: vec4u) -> vec4i {
    return vec4i(
        dot4I8Packed(a, b.x), dot4I8Packed(a, b.y), dot4I8Packed(a, b.z), dot4I8Packed(a, b.w),
    );
}
