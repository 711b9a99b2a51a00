// Weights stored in blocks of BLOCK columns: WORDS words of codes, and a header beside them.
//
// The header of a block is its scale in most formats: 1, 2 or 4 bytes (repack.py).

override FORMAT: u32;  // GGUF's type id
override ROWS: u32;
override COLUMNS: u32;
override BLOCK: u32;
override WORDS: u32;

@group(0) @binding(0) var<storage, read> codes: array<u32>;
@group(0) @binding(1) var<storage, read> headers: array<u32>;

fn block_of(row: u32, quad: u32) -> u32 { return row * (COLUMNS / BLOCK) + quad / (BLOCK / 4); }

// The header of a block as one f16, as two f16, as a byte.
fn header_f16(block: u32) -> f32 { return unpack2x16float(headers[block / 2])[block % 2]; }
fn header_pair(block: u32) -> vec2f { return unpack2x16float(headers[block]); }
fn header_byte(block: u32) -> u32 { return byte_of(headers[block / 4], block % 4); }

// Byte `index` of the codes from `word` on.
fn code_byte(word: u32, index: u32) -> u32 { return byte_of(codes[word + index / 4], index % 4); }
