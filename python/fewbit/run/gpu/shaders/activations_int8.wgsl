// Reads x, the activations of a matrix product, as bytes in the layout of rounding.wgsl.
//
// A row of `packed` holds four codes to a word, then for each chunk of 32 columns two words: its
// scale d, and the sums of its first 16 and its last 16 codes.

// include product

@group(0) @binding(8) var<storage, read> packed: array<u32>;

// First words of the codes, and of the scales and sums, of the x of a row of y.
fn x_start(y_row: u32) -> vec2u {
    let pieces = select(USED, 1, SHARED_X);
    let piece = select(y_row % USED, 0, SHARED_X);
    let row = y_row / USED * (pieces * (COLUMNS / 4 + COLUMNS / 16));
    return vec2u(
        row + piece * (COLUMNS / 4), row + pieces * (COLUMNS / 4) + piece * (COLUMNS / 16),
    );
}
