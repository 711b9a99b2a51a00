// Matrix products x W^T (+ bias) (+ another value) include this: bounds and the write of a result.
//
// `y` is seen as rows of WIDTH columns. With experts, y_row = token * USED + slot is the product of
// a token with one of its USED experts; without experts USED is 1. The W that is bound is a slice,
// from row FIRST_ROW on, of a matrix or of the stacked matrices of all experts. Row numbers are
// relative to the slice, modulo 2^32: a row before the slice is a large number, so it is out of
// bounds too.

override FIRST_ROW: u32 = 0;
override WIDTH: u32;
override USED: u32 = 1;
override SHARED_X: bool = true;  // the experts of a token share one row of x
override HAS_BIAS: bool = false;
override ADDS_OTHER: bool = false;
override OTHER_STRIDE: u32 = 0;
override OTHER_OFFSET: u32 = 0;

@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;
@group(0) @binding(6) var<storage, read> other: array<f32>;

// True if a row is in the slice and its column in the result.
fn is_within(row: u32, column: u32) -> bool { return row < ROWS && column < WIDTH; }

// True if at least one of `count` rows is in the slice.
fn is_touched(row: u32, count: u32) -> bool { return row < ROWS || row + (count - 1) < row; }

fn write_y(y_row: u32, row: u32, column: u32, sum: f32) {
    var result = sum;
    if HAS_BIAS { result += bias[FIRST_ROW + row]; }
    if ADDS_OTHER { result += other[y_row * OTHER_STRIDE + OTHER_OFFSET + column]; }
    y[y_row * WIDTH + column] = result;
}
