// A weight stored in blocks of BLOCK columns: WORDS of codes each, and a head of HEAD bytes apart.

override FORMAT: u32;  // GGUF's number
override ROWS: u32;
override COLUMNS: u32;
override BLOCK: u32;
override WORDS: u32;

@group(0) @binding(0) var<storage, read> codes: array<u32>;
@group(0) @binding(1) var<storage, read> heads: array<u32>;

fn block_of(row: u32, four: u32) -> u32 { return row * (COLUMNS / BLOCK) + four / (BLOCK / 4); }

// The head of a block as an f16, as two of them, as a byte.
fn head_f16(block: u32) -> f32 { return unpack2x16float(heads[block / 2])[block % 2]; }
fn head_pair(block: u32) -> vec2f { return unpack2x16float(heads[block]); }
fn head_byte(block: u32) -> u32 { return byte_of(heads[block / 4], block % 4); }

// Byte `index` of the codes that begin at a word.
fn code_byte(word: u32, index: u32) -> u32 { return byte_of(codes[word + index / 4], index % 4); }
