// For each of a row's USED experts the product with that expert's matrix (+ bias), WIDTH columns
// each, side by side: a workgroup does four rows of one expert's matrix for one row of x.
//
// The experts' matrices lie one below the other; a slice of them begins at row FIRST and has ROWS,
// and rows that lie in another slice are left to it. Each expert has the same row of x, or its own.

// include reduce

override FIRST: u32 = 0;
override WIDTH: u32;
override USED: u32;
override BIAS: bool = false;
override SHARED: bool;  // one row of x for all experts
override OTHER_STRIDE: u32;
override OTHER_OFFSET: u32 = 0;

@group(0) @binding(3) var<storage, read> x: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;
@group(0) @binding(6) var<storage, read> routed: array<f32>;

@compute @workgroup_size(LANES)
fn expert_linear(
    @builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, lane: Lane
) {
    let fours = (WIDTH + 3) / 4;
    let index = group.x + group.z * groups.x;
    if index >= USED * fours { return; }
    let slot = index / fours;
    let row = 4 * (index % fours);
    let expert = u32(routed[group.y * OTHER_STRIDE + OTHER_OFFSET + slot]);
    let from_first = expert * WIDTH + row;
    if from_first + 4 <= FIRST || from_first >= FIRST + ROWS { return; }
    // rows of other slices and experts read some row here; their results go nowhere
    let whole = vec4u(from_first, from_first + 1, from_first + 2, from_first + 3);
    let rows = clamp(whole, vec4u(FIRST), vec4u(FIRST + ROWS - 1)) - FIRST;
    var start = (group.y * STRIDE + OFFSET) / 4;
    if !SHARED { start += slot * (COLUMNS / 4); }
    var sum = vec4f();
    for (var i = lane.index; i < COLUMNS / 4; i += LANES) {
        let v = x[start + i];
        sum += vec4f(
            dot(v, weights4(rows.x, i)), dot(v, weights4(rows.y, i)),
            dot(v, weights4(rows.z, i)), dot(v, weights4(rows.w, i)),
        );
    }
    let total = workgroup_sum(sum, lane);
    let own = from_first + lane.index;
    if lane.index < min(4u, WIDTH - row) && own >= FIRST && own < FIRST + ROWS {
        var result = total[lane.index];
        if BIAS { result += bias[own]; }
        y[(group.y * USED + slot) * WIDTH + row + lane.index] = result;
    }
}
