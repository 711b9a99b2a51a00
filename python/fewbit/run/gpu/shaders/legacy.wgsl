// Formats Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 in blocks of 32, Q1_0 of 128 and Q2_0 of 64.
//
// Words of codes of a block, in order:
//     Q4_0, Q4_1  4 of nibbles: column j in the low half of byte j, column j + 16 in the high half
//     Q5_0, Q5_1  1 of fifth bits, then 4 of nibbles
//     Q8_0        8 of bytes
//     Q1_0, Q2_0  4 of packed codes
// Same arithmetic as reference/legacy.py and ternary.py.

// include blocks
// include levels

const Q4_0: u32 = 2;
const Q4_1: u32 = 3;
const Q5_0: u32 = 6;
const Q5_1: u32 = 7;
const Q8_0: u32 = 8;
const Q1_0: u32 = 41;
const Q2_0: u32 = 42;

fn nibbles(word: u32, j: u32) -> u32 { return (codes[word + j % 4] >> (j & 4)) & 0x0f0f0f0f; }

fn levels4(row: u32, quad: u32) -> u32 {
    let word = block_of(row, quad) * WORDS;
    let j = quad % (BLOCK / 4);
    switch FORMAT {
        case Q4_0: { return subtract4(nibbles(word, j), 8); }
        case Q4_1: { return nibbles(word, j); }
        case Q5_0, Q5_1: {
            let code = nibbles(word + 1, j) | (bits_to_bytes(codes[word] >> (4 * j)) << 4);
            return select(code, subtract4(code, 16), FORMAT == Q5_0);
        }
        case Q8_0: { return codes[word + j]; }
        case Q1_0: { return subtract4(2 * bits_to_bytes(codes[word + j / 8] >> (4 * (j % 8))), 1); }
        default: {
            let two = byte_of(codes[word + j / 4], j % 4);
            return subtract4((two | (two << 6) | (two << 12) | (two << 18)) & 0x03030303, 1);
        }
    }
}

fn scale_of(row: u32, quad: u32) -> vec2f {
    let block = block_of(row, quad);
    if FORMAT == Q4_1 || FORMAT == Q5_1 { return header_pair(block); }
    return vec2f(header_f16(block), 0);
}
