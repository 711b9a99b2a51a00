// x W^T (+ bias) (+ another value) for few rows of x, by dots.wgsl or dots_int8.wgsl.

// include few

@compute @workgroup_size(LANES)
fn linear(
    @builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, lane: Lane
) {
    let row = 4 * (group.x + group.z * groups.x);
    if row < ROWS { four_rows(group.y, row, FIRST + row, lane); }
}
