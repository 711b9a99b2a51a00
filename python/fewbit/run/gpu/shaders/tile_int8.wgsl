// A tile of a product of bytes. In turn 64 columns of both sides go through workgroup memory as four
// codes to a word, with the scales of each PART of columns that has one of its own. An invocation reads
// three vectors of words for 32 products of four bytes each (128 multiply-adds), and once a part the
// scales for 32 sums. These are integers within a part; then the oracle's steps, part after part:
// sum = fma(dot, scale * d, sum), and sum = fma(minimum, d * total of x, sum) where there are minima.

// include activations_int8
// include tile

const DEPTH: u32 = 16;  // words
const PITCH: u32 = 20;  // vectors from word to word: 16 banks apart
const FOURS: u32 = TILE / 4;

var<workgroup> left: array<vec4u, DEPTH * PITCH>;
var<workgroup> right: array<vec4u, DEPTH * PITCH>;
var<workgroup> left_scales: array<vec4f, 2 * FOURS>;  // for each 32 columns; the others for each PART
var<workgroup> totals: array<vec4f, 4 * FOURS>;
var<workgroup> scales: array<vec4f, 4 * FOURS>;
var<workgroup> minima: array<vec4f, 4 * FOURS>;

fn multiply(tile: Tile, lane: Invocation) {
    let own = lane.index / 2;
    let half = lane.index % 2;
    let has_x = own < tile.count;
    let start = x_start(place_of(tile.first + min(own, tile.count - 1)));
    let row = tile.row + own;
    let has_w = is_within(row, tile.column + own);
    let busy = 8 * lane.at.y < tile.count;
    let per = PART / 4;
    var sums: array<vec4f, 8>;
    for (var depth = 0u; depth < COLUMNS / 4; depth += DEPTH) {
        for (var i = half; i < DEPTH; i += 2) {
            let four = depth + i;
            var a = 0u;
            var b = 0u;
            if has_x && four < COLUMNS / 4 { a = packed[start.x + four]; }
            if has_w && four < COLUMNS / 4 { b = levels4(row, four); }
            left[i * PITCH + own / 4][own % 4] = a;
            right[i * PITCH + own / 4][own % 4] = b;
        }
        let block = depth + 8 * half;  // of 32 columns, whose scales are this invocation's
        var pair = vec2u();
        if has_x && block < COLUMNS / 4 {
            let at = start.y + block / 4;
            pair = vec2u(packed[at], packed[at + 1]);
        }
        let d = bitcast<f32>(pair.x);
        left_scales[half * FOURS + own / 4][own % 4] = d;
        for (var i = 8 * half; i < 8 * half + 8; i += per) {
            var s = vec2f();
            if has_w && block < COLUMNS / 4 { s = scale_of(row, depth + i); }
            scales[i / per * FOURS + own / 4][own % 4] = s.x;
            if MINIMA {
                minima[i / per * FOURS + own / 4][own % 4] = s.y;
                totals[i / per * FOURS + own / 4][own % 4] = d * total(pair.y, i % 8);
            }
        }
        workgroupBarrier();
        for (var first = 0u; busy && first < DEPTH; first += per) {
            var dots = array<vec4i, 8>();
            for (var k = first; k < first + per; k++) {
                let a = left[k * PITCH + 2 * lane.at.y];
                let c = left[k * PITCH + 2 * lane.at.y + 1];
                let b = right[k * PITCH + lane.at.x];
                dots[0] += products(a.x, b);
                dots[1] += products(a.y, b);
                dots[2] += products(a.z, b);
                dots[3] += products(a.w, b);
                dots[4] += products(c.x, b);
                dots[5] += products(c.y, b);
                dots[6] += products(c.z, b);
                dots[7] += products(c.w, b);
            }
            let s = scales[first / per * FOURS + lane.at.x];
            let at = first / 8 * FOURS + 2 * lane.at.y;
            let d = left_scales[at];
            let e = left_scales[at + 1];
            sums[0] = fma(vec4f(dots[0]), s * d.x, sums[0]);
            sums[1] = fma(vec4f(dots[1]), s * d.y, sums[1]);
            sums[2] = fma(vec4f(dots[2]), s * d.z, sums[2]);
            sums[3] = fma(vec4f(dots[3]), s * d.w, sums[3]);
            sums[4] = fma(vec4f(dots[4]), s * e.x, sums[4]);
            sums[5] = fma(vec4f(dots[5]), s * e.y, sums[5]);
            sums[6] = fma(vec4f(dots[6]), s * e.z, sums[6]);
            sums[7] = fma(vec4f(dots[7]), s * e.w, sums[7]);
            if MINIMA {
                let m = minima[first / per * FOURS + lane.at.x];
                let t = totals[first / per * FOURS + 2 * lane.at.y];
                let u = totals[first / per * FOURS + 2 * lane.at.y + 1];
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
    put_all(tile, lane, sums);
}

// The sum of a part's codes, of the two sums of 16 in a word.
fn total(sums: u32, word: u32) -> f32 {
    let first = extractBits(bitcast<i32>(sums), 0, 16);
    let last = bitcast<i32>(sums) >> 16;
    if PART == 32 { return f32(first + last); }
    return f32(select(last, first, word == 0));
}

// Four codes of x times those of four rows of W.
fn products(a: u32, b: vec4u) -> vec4i {
    return vec4i(
        dot4I8Packed(a, b.x), dot4I8Packed(a, b.y), dot4I8Packed(a, b.z), dot4I8Packed(a, b.w),
    );
}
