// Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 in blocks of 32, Q1_0 of 128, Q2_0 of 64; reference/legacy.py, ternary.py.
//
// Words of codes: Q4 four of nibbles (element j in the low half of byte j, j + 16 in the high half),
// Q5 the fifth bits, then those four, Q8_0 eight, Q1_0 and Q2_0 four of packed bits.

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

fn levels4(row: u32, four: u32) -> u32 {
    let word = block_of(row, four) * WORDS;
    let j = four % (BLOCK / 4);
    switch FORMAT {
        case Q4_0: { return less(nibbles(word, j), 8); }
        case Q4_1: { return nibbles(word, j); }
        case Q5_0, Q5_1: {
            let code = nibbles(word + 1, j) | (spread(codes[word] >> (4 * j)) << 4);
            return select(code, less(code, 16), FORMAT == Q5_0);
        }
        case Q8_0: { return codes[word + j]; }
        case Q1_0: { return less(2 * spread(codes[word + j / 8] >> (4 * (j % 8))), 1); }
        default: {
            let two = byte_of(codes[word + j / 4], j % 4);
            return less((two | (two << 6) | (two << 12) | (two << 18)) & 0x03030303, 1);
        }
    }
}

fn scale_of(row: u32, four: u32) -> vec2f {
    let block = block_of(row, four);
    if FORMAT == Q4_1 || FORMAT == Q5_1 { return head_pair(block); }
    return vec2f(head_f16(block), 0);
}
