// What every shader begins with: the step and where things are bound.
//
// A step is one run of the plan over some tokens: `step` holds how many tokens and outputs there
// are, then BATCH entries each of token ids, positions, sequences, and rows that are taken.
//
// Bindings: 0 codes, 1 heads and 2 grid of a weight (its format's file), 3 the input, 4 the output,
// 5, 6, 8 and 9 what else the op reads, 7 the step, 10 a state that it keeps. An input's rows are
// `STRIDE` apart and start at `OFFSET`: it may be some columns of a wider value.

override BATCH: u32 = 1;
override LANES: u32 = 64;
override STRIDE: u32 = 1;
override OFFSET: u32 = 0;
override AFTER_TAKE: bool = false;  // rows are outputs, not tokens

const STEP_TOKENS: u32 = 0;
const STEP_OUTPUTS: u32 = 1;
const STEP_HEAD: u32 = 4;

fn token_at(index: u32) -> u32 { return STEP_HEAD + index; }
fn position_at(index: u32) -> u32 { return STEP_HEAD + BATCH + index; }
fn sequence_at(index: u32) -> u32 { return STEP_HEAD + 2 * BATCH + index; }
fn taken_at(index: u32) -> u32 { return STEP_HEAD + 3 * BATCH + index; }

// Byte `index` of a word.
fn byte_of(word: u32, index: u32) -> u32 { return extractBits(word, 8 * index, 8); }

// Four unsigned bytes below 128, each less `n` (below 128 too), as four signed bytes.
fn less(bytes: u32, n: u32) -> u32 {
    return ((bytes | 0x80808080u) - n * 0x01010101u) ^ 0x80808080u;
}

// Bits 0..3 of a number, each in the lowest place of a byte.
fn spread(bits: u32) -> u32 { return ((bits & 15) * 0x00204081u) & 0x01010101u; }

// Four signed bytes as numbers.
fn numbers(bytes: u32) -> vec4f { return vec4f(unpack4xI8(bytes)); }
