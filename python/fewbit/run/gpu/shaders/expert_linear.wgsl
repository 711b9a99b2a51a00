// Op `expert_linear` for few tokens: products with the matrices of the experts that a token uses.
//
// Each of the USED experts of a token gives WIDTH columns (+ bias), side by side. dots.wgsl or
// dots_int8.wgsl multiplies. The second input is the route: expert indices and weights.

// include few_tokens

@compute @workgroup_size(LANES)
fn expert_linear(
    @builtin(workgroup_id) workgroup_id: vec3u, @builtin(num_workgroups) num_workgroups: vec3u,
    lane: Lane,
) {
    let quads = (WIDTH + 3) / 4;
    let index = workgroup_id.x + workgroup_id.z * num_workgroups.x;
    if index >= USED * quads { return; }
    let slot = index / quads;
    let column = 4 * (index % quads);
    let expert = u32(other[workgroup_id.y * OTHER_STRIDE + OTHER_OFFSET + slot]);
    let row = expert * WIDTH + column - FIRST_ROW;
    if is_touched(row, 4) { four_rows(workgroup_id.y * USED + slot, row, column, lane); }
}
