// Products of few rows of x: a workgroup does four rows of W for one place.

// include reduce
// include product

fn four_rows(place: u32, row: u32, column: u32, lane: Lane) {
    // rows outside read the last one; their results go nowhere
    let rows = min(row + vec4u(0, 1, 2, 3), vec4u(ROWS - 1));
    let total = workgroup_sum(dots(place, rows, lane.index), lane);
    if lane.index < 4 && is_within(row + lane.index, column + lane.index) {
        write(place, row + lane.index, column + lane.index, total[lane.index]);
    }
}
