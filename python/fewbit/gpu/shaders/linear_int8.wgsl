// `linear` for few rows of rounded activations and a matrix of integer levels: four products of
// bytes at a time, their sum an integer. A workgroup does four rows of W for one of x.
//
// Rows of `packed` hold four codes to a word, then a scale for each 32; see rounding.wgsl.

// include reduce

override FIRST: u32 = 0;
override WIDTH: u32;
override BIAS: bool = false;
override OTHER: bool = false;
override OTHER_STRIDE: u32 = 0;
override OTHER_OFFSET: u32 = 0;

@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;
@group(0) @binding(6) var<storage, read> other: array<f32>;
@group(0) @binding(8) var<storage, read> packed: array<u32>;

@compute @workgroup_size(LANES)
fn linear_int8(
    @builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, lane: Lane
) {
    let row = 4 * (group.x + group.z * groups.x);
    if row >= ROWS { return; }
    let start = group.y * (COLUMNS / 4 + COLUMNS / 32);
    let last = ROWS - 1;  // rows past the end repeat the last one; their results go nowhere
    let rows = min(vec4u(row, row + 1, row + 2, row + 3), vec4u(last));
    var sum = vec4f();
    for (var i = lane.index; i < COLUMNS / 4; i += LANES) {
        let x = packed[start + i];
        let d = bitcast<f32>(packed[start + COLUMNS / 4 + i / 8]);
        let total = f32(dot4I8Packed(x, 0x01010101));
        sum = fma(vec4f(d), vec4f(
            product(rows.x, i, x, total), product(rows.y, i, x, total),
            product(rows.z, i, x, total), product(rows.w, i, x, total),
        ), sum);
    }
    let total = workgroup_sum(sum, lane);
    if lane.index < min(4u, ROWS - row) {
        let column = FIRST + row + lane.index;
        var result = total[lane.index];
        if BIAS { result += bias[column]; }
        if OTHER { result += other[group.y * OTHER_STRIDE + OTHER_OFFSET + column]; }
        y[group.y * WIDTH + column] = result;
    }
}

// Four columns of a row times four codes whose sum is `total`.
fn product(row: u32, four: u32, x: u32, total: f32) -> f32 {
    let s = scale_of(row, four);
    return fma(s.x, f32(dot4I8Packed(levels4(row, four), x)), s.y * total);
}
