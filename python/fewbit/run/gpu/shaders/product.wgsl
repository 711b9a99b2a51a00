// What products begin with, x W^T (+ bias) (+ another value).
//
// A place has WIDTH columns of y: a row's, or those of one of the USED experts of a row. The W that is
// bound is a slice, from row FIRST on, of a matrix or of experts' matrices one below the other. Rows
// are counted from there, modulo 2^32: what lies above the slice is a large number, and outside too.

override FIRST: u32 = 0;
override WIDTH: u32;
override USED: u32 = 1;
override SHARED: bool = true;  // a row of x for all its experts, not one each
override BIAS: bool = false;
override OTHER: bool = false;
override OTHER_STRIDE: u32 = 0;
override OTHER_OFFSET: u32 = 0;

@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;
@group(0) @binding(6) var<storage, read> other: array<f32>;

// Whether a row is in the slice, and its column in the result.
fn is_within(row: u32, column: u32) -> bool { return row < ROWS && column < WIDTH; }

// Whether one of `count` rows is in the slice.
fn is_touched(row: u32, count: u32) -> bool { return row < ROWS || row + (count - 1) < row; }

fn write(place: u32, row: u32, column: u32, sum: f32) {
    var result = sum;
    if BIAS { result += bias[FIRST + row]; }
    if OTHER { result += other[place * OTHER_STRIDE + OTHER_OFFSET + column]; }
    y[place * WIDTH + column] = result;
}
