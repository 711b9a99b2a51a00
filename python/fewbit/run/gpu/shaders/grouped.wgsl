// Layout of (token, expert) pairs sorted by expert, in tiles of up to 64 pairs of one expert.
//
// A header with the number of tiles; for each tile its expert, its first pair and its number of
// pairs; then the pairs.

const HEADER: u32 = 4;

// Index of the three words of a tile.
fn tile_at(index: u32) -> u32 { return HEADER + 3 * index; }
