// Op `linear` for few tokens: x W^T (+ bias) (+ another value), by dots.wgsl or dots_int8.wgsl.

// include few_tokens

@compute @workgroup_size(LANES)
fn linear(
    @builtin(workgroup_id) workgroup_id: vec3u, @builtin(num_workgroups) num_workgroups: vec3u,
    lane: Lane,
) {
    let row = 4 * (workgroup_id.x + workgroup_id.z * num_workgroups.x);
    if row < ROWS { four_rows(workgroup_id.y, row, FIRST_ROW + row, lane); }
}
