// Formats TQ1_0 and TQ2_0: -1, 0 and 1 in super-blocks of 256 columns.
//
// Words of codes of a super-block, in order:
//     TQ1_0  8 with five trits per byte (32 columns apart), 4 with five (16 apart), 1 with four
//            (4 apart)
//     TQ2_0  16 of 2-bit codes
// Same arithmetic as reference/ternary.py.

// include blocks
// include levels

const TQ1_0: u32 = 34;

fn levels4(row: u32, quad: u32) -> u32 {
    let word = block_of(row, quad) * WORDS;
    let j = quad % 64;
    if FORMAT != TQ1_0 {
        return subtract4((codes[word + j / 32 * 8 + j % 8] >> (j / 8 % 4 * 2)) & 0x03030303, 1);
    }
    if j < 40 { return trits(codes[word + j % 8], j / 8); }
    if j < 60 { return trits(codes[word + 8 + (j - 40) % 4], (j - 40) / 4); }
    return trits(codes[word + 12], j - 60);
}

// Digit `place` of four base-3 fractions, minus 1.
fn trits(word: u32, place: u32) -> u32 {
    var powers = array<u32, 5>(1, 3, 9, 27, 81);
    let bytes = (unpack4xU8(word) * powers[place]) & vec4u(255);
    return subtract4(pack4xU8((bytes * 3) >> vec4u(8)), 1);
}

fn scale_of(row: u32, quad: u32) -> vec2f { return vec2f(header_f16(block_of(row, quad)), 0); }
