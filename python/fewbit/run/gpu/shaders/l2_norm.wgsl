// Op `l2_norm`: x / sqrt(sum of x^2 + eps), for each head of SIZE columns.

// include norm

@compute @workgroup_size(LANES)
fn l2_norm(@builtin(workgroup_id) workgroup_id: vec3u, lane: Lane) {
    let start = x_start(workgroup_id);
    let root = sqrt(squares(start, 0, lane) + EPS);
    for (var i = lane.index; i < SIZE; i += LANES) {
        y[y_start(workgroup_id) + i] = x[start + i] / root;
    }
}
