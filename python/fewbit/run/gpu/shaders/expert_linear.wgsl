// For each of a row's USED experts the product with that expert's matrix (+ bias), WIDTH columns
// each, side by side, for few rows of x; by dots.wgsl or dots_int8.wgsl. The other value is the route.

// include few

@compute @workgroup_size(LANES)
fn expert_linear(
    @builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, lane: Lane
) {
    let fours = (WIDTH + 3) / 4;
    let index = group.x + group.z * groups.x;
    if index >= USED * fours { return; }
    let slot = index / fours;
    let column = 4 * (index % fours);
    let expert = u32(other[group.y * OTHER_STRIDE + OTHER_OFFSET + slot]);
    let row = expert * WIDTH + column - FIRST;
    if is_touched(row, 4) { four_rows(group.y * USED + slot, row, column, lane); }
}
