// x / sqrt(sum of x^2 + eps) over parts of SIZE.

// include norm

@compute @workgroup_size(LANES)
fn l2_norm(@builtin(workgroup_id) group: vec3u, lane: Lane) {
    let start = start_of(group);
    let root = sqrt(squares(start, 0, lane) + EPS);
    for (var i = lane.index; i < SIZE; i += LANES) {
        y[target_of(group) + i] = x[start + i] / root;
    }
}
