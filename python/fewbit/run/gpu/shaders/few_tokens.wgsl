// Matrix products for few tokens: one workgroup for four rows of W and one row of x.

// include reduce
// include product

fn four_rows(y_row: u32, row: u32, column: u32, lane: Lane) {
    // rows out of bounds read the last row; their results are not written
    let rows = min(row + vec4u(0, 1, 2, 3), vec4u(ROWS - 1));
    let total = workgroup_sum(dots(y_row, rows, lane.index), lane);
    if lane.index < 4 && is_within(row + lane.index, column + lane.index) {
        write_y(y_row, row + lane.index, column + lane.index, total[lane.index]);
    }
}
