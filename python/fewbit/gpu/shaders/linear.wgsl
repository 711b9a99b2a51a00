// x W^T (+ bias) (+ another value) for few rows of x: a workgroup does four rows of W for one of x.
//
// Neighbouring lanes take neighbouring fours of columns, so their loads are one run of memory; the
// x that they load once serves four rows. A slice of W begins at row FIRST of the WIDTH outputs.

// include reduce

override FIRST: u32 = 0;
override WIDTH: u32;
override BIAS: bool = false;
override OTHER: bool = false;
override OTHER_STRIDE: u32 = 0;
override OTHER_OFFSET: u32 = 0;

@group(0) @binding(3) var<storage, read> x: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;
@group(0) @binding(6) var<storage, read> other: array<f32>;

@compute @workgroup_size(LANES)
fn linear(
    @builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, lane: Lane
) {
    let row = 4 * (group.x + group.z * groups.x);
    if row >= ROWS { return; }
    let start = (group.y * STRIDE + OFFSET) / 4;
    let last = ROWS - 1;  // rows past the end repeat the last one; their results go nowhere
    let rows = min(vec4u(row, row + 1, row + 2, row + 3), vec4u(last));
    var sum = vec4f();
    for (var i = lane.index; i < COLUMNS / 4; i += LANES) {
        let v = x[start + i];
        sum += vec4f(
            dot(v, weights4(rows.x, i)), dot(v, weights4(rows.y, i)),
            dot(v, weights4(rows.z, i)), dot(v, weights4(rows.w, i)),
        );
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
