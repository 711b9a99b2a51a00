// IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S IQ1_S IQ1_M: super-blocks of 256 whose elements share indices into a
// grid; reference/iq.py, iq1.py.
//
// `grid` holds the points: magnitudes in two words for eight elements, in one for the four of
// IQ3; of IQ1 8 g + 16, which is above 0. Words of codes are the file's, d left out: IQ1_M's has no
// place of its own.

// include blocks
// include levels

const IQ2_XXS: u32 = 16;
const IQ2_XS: u32 = 17;
const IQ3_XXS: u32 = 18;
const IQ1_S: u32 = 19;
const IQ3_S: u32 = 21;
const IQ2_S: u32 = 22;
const IQ1_M: u32 = 29;

@group(0) @binding(2) var<storage, read> grid: array<u32>;

// The two bytes `index` of the codes that begin at a word.
fn code_pair(word: u32, index: u32) -> u32 {
    return (codes[word + index / 2] >> (16 * (index % 2))) & 0xffff;
}

// Four magnitudes above 0 with the signs of four bits.
fn signed4(magnitudes: u32, signs: u32) -> u32 {
    let ones = spread(signs);
    return (magnitudes ^ (ones * 255)) + ones;
}

// Seven signs and the eighth that makes their number even.
fn even(signs: u32) -> u32 { return signs | ((countOneBits(signs) & 1) << 7); }

// The point's index for the four elements, which of its halves, and the eight signs.
struct Place { word: u32, signs: u32 }

fn place(word: u32, j: u32) -> Place {
    let eight = j / 2;
    let half = j % 2;
    switch FORMAT {
        case IQ2_XXS: {
            let at = word + eight / 4 * 2;
            let signs = (codes[at + 1] >> (7 * (eight % 4))) & 127;
            return Place(2 * byte_of(codes[at], eight % 4) + half, even(signs));
        }
        case IQ2_XS: {
            let both = code_pair(word, eight);
            return Place(2 * (both & 511) + half, even(both >> 9));
        }
        case IQ2_S: {
            let high = (code_byte(word + 16, eight / 4) >> (eight % 4 * 2)) & 3;
            let index = code_byte(word, eight) | (high << 8);
            return Place(2 * index + half, code_byte(word + 8, eight));
        }
        case IQ3_XXS: {
            let signs = (codes[word + 16 + eight / 4] >> (7 * (eight % 4))) & 127;
            return Place(code_byte(word, j), even(signs));
        }
        default: {
            let ninth = (code_byte(word + 16, j / 8) >> (j % 8)) & 1;
            return Place(code_byte(word, j) | (ninth << 8), code_byte(word + 18, eight));
        }
    }
}

fn levels4(row: u32, four: u32) -> u32 {
    let word = block_of(row, four) * WORDS;
    let j = four % 64;
    if FORMAT == IQ1_S || FORMAT == IQ1_M { return around(word, j); }
    let at = place(word, j);
    return signed4(grid[at.word], at.signs >> (4 * (j % 2)));
}

// 8 g + 1, or 8 g - 1 where the shift is set.
fn around(word: u32, j: u32) -> u32 {
    let eight = j / 2;
    var high: u32;
    var down: u32;
    if FORMAT == IQ1_S {
        let bits = code_pair(word + 8, eight / 4);
        high = (bits >> (3 * (eight % 4))) & 7;
        down = bits >> 15;
    } else {
        let bits = (codes[word + 8 + eight / 8] >> (4 * (eight % 8))) & 15;
        high = bits & 7;
        down = bits >> 3;
    }
    let index = code_byte(word, eight) | (high << 8);
    return less(grid[2 * index + j % 2], select(15u, 17u, down == 1));
}

fn scale_of(row: u32, four: u32) -> vec2f {
    let block = block_of(row, four);
    let word = block * WORDS;
    let j = four % 64;
    var d: f32;
    var scale: u32;
    var factor = 0.125;
    switch FORMAT {
        case IQ2_XXS: { scale = codes[word + j / 8 * 2 + 1] >> 28; }
        case IQ2_XS: { scale = (codes[word + 16 + j / 32] >> (j / 4 % 8 * 4)) & 15; }
        case IQ2_S: { scale = (codes[word + 18 + j / 32] >> (j / 4 % 8 * 4)) & 15; }
        case IQ3_XXS: { scale = codes[word + 16 + j / 8] >> 28; factor = 0.25; }
        case IQ3_S: { scale = (codes[word + 26] >> (j / 8 * 4)) & 15; factor = 1.0; }
        case IQ1_S: { scale = (code_pair(word + 8, j / 8) >> 12) & 7; }
        default: { scale = (code_pair(word + 12, j / 16) >> (j / 4 % 4 * 3)) & 7; }
    }
    if FORMAT == IQ1_M {
        let fours = (vec2u(codes[word + 12], codes[word + 13]) & vec2u(0xf000f000));
        let bits = ((fours.x & 0xffff) >> 12) | ((fours.x >> 28) << 4)
            | (((fours.y & 0xffff) >> 12) << 8) | ((fours.y >> 28) << 12);
        d = unpack2x16float(bits).x;
    } else {
        d = head_f16(block);
    }
    return vec2f(d * f32(2 * scale + 1) * factor, 0);
}
