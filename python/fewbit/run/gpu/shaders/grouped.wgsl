// Places in the order of their experts, in tiles of up to 64 of one expert: the number of tiles; then for
// each tile its expert, where its places begin and how many they are; then the places.

const HEAD: u32 = 4;

// Where tile `index` is described.
fn tile_at(index: u32) -> u32 { return HEAD + 3 * index; }
