// Prefix of every shader module: the step buffer, the binding numbers, and bytes in words.
//
// A step is one run of the plan over a batch of tokens. The buffer `step` holds a header (the
// numbers of tokens and outputs), then four arrays of BATCH words: token ids, positions, sequences,
// and the tokens whose logits are outputs.
//
// Bindings: 0 codes, 1 headers and 2 grid of a weight, 3 the input, 4 the output, 5, 6, 8 and 9
// further inputs of the op, 7 the step, 10 the recurrent state. Rows of the input start at OFFSET
// and are STRIDE columns apart: the input may be some columns of a wider value.

override BATCH: u32 = 1;
override LANES: u32 = 64;
override STRIDE: u32 = 1;
override OFFSET: u32 = 0;
override AFTER_TAKE: bool = false;  // rows are outputs, not tokens

const STEP_TOKENS: u32 = 0;
const STEP_OUTPUTS: u32 = 1;
const STEP_HEADER: u32 = 4;

fn token_at(index: u32) -> u32 { return STEP_HEADER + index; }
fn position_at(index: u32) -> u32 { return STEP_HEADER + BATCH + index; }
fn sequence_at(index: u32) -> u32 { return STEP_HEADER + 2 * BATCH + index; }
fn output_row_at(index: u32) -> u32 { return STEP_HEADER + 3 * BATCH + index; }

// Byte `index` of a word.
fn byte_of(word: u32, index: u32) -> u32 { return extractBits(word, 8 * index, 8); }

// Subtracts n (below 128) from each of four unsigned bytes (below 128): four signed bytes.
fn subtract4(bytes: u32, n: u32) -> u32 {
    return ((bytes | 0x80808080u) - n * 0x01010101u) ^ 0x80808080u;
}

// Bits 0..3, each as the lowest bit of a byte.
fn bits_to_bytes(bits: u32) -> u32 { return ((bits & 15) * 0x00204081u) & 0x01010101u; }

// Four signed bytes as floats.
fn to_floats(bytes: u32) -> vec4f { return vec4f(unpack4xI8(bytes)); }
