// `linear` for many rows of x: a workgroup of 16 x 16 does a tile of 64 rows of x by 64 of W.
//
// In turn 32 columns of both go through workgroup memory, where W is decoded once for 64 rows of x;
// an invocation keeps 4 x 4 sums. Tiles lie column by column, so that an invocation reads four
// rows of a column as one vector.

override FIRST: u32 = 0;
override WIDTH: u32;
override BIAS: bool = false;
override OTHER: bool = false;
override OTHER_STRIDE: u32 = 0;
override OTHER_OFFSET: u32 = 0;
override AFTER_TAKE: bool = false;

@group(0) @binding(3) var<storage, read> x: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;
@group(0) @binding(6) var<storage, read> other: array<f32>;
@group(0) @binding(7) var<storage, read> step: array<u32>;

const TILE: u32 = 64;
const DEPTH: u32 = 32;
const PITCH: u32 = 17;  // vectors from column to column: one more than needed spreads the banks

var<workgroup> left: array<vec4f, DEPTH * PITCH>;
var<workgroup> right: array<vec4f, DEPTH * PITCH>;

@compute @workgroup_size(16, 16)
fn matmul(
    @builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) at: vec3u,
    @builtin(local_invocation_index) index: u32,
) {
    let tokens = select(step[STEP_TOKENS], step[STEP_OUTPUTS], AFTER_TAKE);
    let token = group.y * TILE;
    let row = group.x * TILE;
    var sums: array<vec4f, 4>;
    for (var depth = 0u; depth < COLUMNS; depth += DEPTH) {
        for (var k = index; k < TILE * DEPTH / 4; k += 256) {
            // eight neighbours take the eight fours of a row
            let r = k / (DEPTH / 4);
            let c = k % (DEPTH / 4);
            var a = vec4f();
            var b = vec4f();
            if depth + 4 * c < COLUMNS {
                if token + r < tokens { a = x[((token + r) * STRIDE + OFFSET + depth) / 4 + c]; }
                if row + r < ROWS { b = weights4(row + r, depth / 4 + c); }
            }
            for (var e = 0u; e < 4; e++) {
                left[(4 * c + e) * PITCH + r / 4][r % 4] = a[e];
                right[(4 * c + e) * PITCH + r / 4][r % 4] = b[e];
            }
        }
        workgroupBarrier();
        for (var k = 0u; k < DEPTH; k++) {
            let a = left[k * PITCH + at.y];
            let b = right[k * PITCH + at.x];
            sums[0] = fma(vec4f(a.x), b, sums[0]);
            sums[1] = fma(vec4f(a.y), b, sums[1]);
            sums[2] = fma(vec4f(a.z), b, sums[2]);
            sums[3] = fma(vec4f(a.w), b, sums[3]);
        }
        workgroupBarrier();
    }
    for (var t = 0u; t < 4; t++) {
        for (var r = 0u; r < 4; r++) {
            let here = token + 4 * at.y + t;
            let column = row + 4 * at.x + r;
            if here < tokens && column < ROWS {
                write(here, FIRST + column, sums[t][r]);
            }
        }
    }
}

fn write(token: u32, column: u32, sum: f32) {
    var result = sum;
    if BIAS { result += bias[column]; }
    if OTHER { result += other[token * OTHER_STRIDE + OTHER_OFFSET + column]; }
    y[token * WIDTH + column] = result;
}
