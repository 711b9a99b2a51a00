// TQ1_0 TQ2_0: -1, 0 and 1 in super-blocks of 256; reference/ternary.py.
//
// Words of codes: TQ1_0 8 of five trits (elements 32 apart), 4 of five (16 apart), 1 of four (4
// apart); TQ2_0 16 of 2-bit codes.

// include blocks
// include levels

const TQ1_0: u32 = 34;

fn levels4(row: u32, four: u32) -> u32 {
    let word = block_of(row, four) * WORDS;
    let j = four % 64;
    if FORMAT != TQ1_0 {
        return less((codes[word + j / 32 * 8 + j % 8] >> (j / 8 % 4 * 2)) & 0x03030303, 1);
    }
    if j < 40 { return trits(codes[word + j % 8], j / 8); }
    if j < 60 { return trits(codes[word + 8 + (j - 40) % 4], (j - 40) / 4); }
    return trits(codes[word + 12], j - 60);
}

// Digit `place` of each of four fractions in base 3, less 1.
fn trits(word: u32, place: u32) -> u32 {
    var powers = array<u32, 5>(1, 3, 9, 27, 81);
    let bytes = (unpack4xU8(word) * powers[place]) & vec4u(255);
    return less(pack4xU8((bytes * 3) >> vec4u(8)), 1);
}

fn scale_of(row: u32, four: u32) -> vec2f { return vec2f(head_f16(block_of(row, four)), 0); }
