// The x of a product as bytes, as rounding.wgsl packs it: four codes to a word, then for each 32 columns
// their scale d and the sums of the first and the last 16 codes.

// include product

@group(0) @binding(8) var<storage, read> packed: array<u32>;

// Where a place's words begin, and its pairs.
fn x_start(place: u32) -> vec2u {
    let parts = select(USED, 1, SHARED);
    let part = select(place % USED, 0, SHARED);
    let row = place / USED * (parts * (COLUMNS / 4 + COLUMNS / 16));
    return vec2u(row + part * (COLUMNS / 4), row + parts * (COLUMNS / 4) + part * (COLUMNS / 16));
}
