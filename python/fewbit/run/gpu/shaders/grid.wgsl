// Formats IQ1_S to IQ3_S: super-blocks of 256 columns; codes are indices into a grid of points.
//
// `grid` holds the points: the magnitudes of eight columns in two words, for IQ3 of four columns in
// one word, and for IQ1 8 g + 16, which is positive. The words of codes are those of the file
// without d; IQ1_M spreads d over its scales. Same arithmetic as reference/iq.py and iq1.py.

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

// 16-bit code `index` of the codes from `word` on.
fn code_pair(word: u32, index: u32) -> u32 {
    return (codes[word + index / 2] >> (16 * (index % 2))) & 0xffff;
}

// Four magnitudes above 0, with the sign of each in a bit.
fn signed4(magnitudes: u32, signs: u32) -> u32 {
    let ones = bits_to_bytes(signs);
    return (magnitudes ^ (ones * 255)) + ones;
}

// Seven sign bits and the eighth, which makes the number of set bits even.
fn with_parity(signs: u32) -> u32 { return signs | ((countOneBits(signs) & 1) << 7); }

// The word of the grid for four columns, and the signs of their octet.
struct Point { word: u32, signs: u32 }

fn point_of(word: u32, j: u32) -> Point {
    let octet = j / 2;
    let half = j % 2;
    switch FORMAT {
        case IQ2_XXS: {
            let at = word + octet / 4 * 2;
            let signs = (codes[at + 1] >> (7 * (octet % 4))) & 127;
            return Point(2 * byte_of(codes[at], octet % 4) + half, with_parity(signs));
        }
        case IQ2_XS: {
            let both = code_pair(word, octet);
            return Point(2 * (both & 511) + half, with_parity(both >> 9));
        }
        case IQ2_S: {
            let high = (code_byte(word + 16, octet / 4) >> (octet % 4 * 2)) & 3;
            let index = code_byte(word, octet) | (high << 8);
            return Point(2 * index + half, code_byte(word + 8, octet));
        }
        case IQ3_XXS: {
            let signs = (codes[word + 16 + octet / 4] >> (7 * (octet % 4))) & 127;
            return Point(code_byte(word, j), with_parity(signs));
        }
        default: {
            let ninth = (code_byte(word + 16, j / 8) >> (j % 8)) & 1;
            return Point(code_byte(word, j) | (ninth << 8), code_byte(word + 18, octet));
        }
    }
}

fn levels4(row: u32, quad: u32) -> u32 {
    let word = block_of(row, quad) * WORDS;
    let j = quad % 64;
    if FORMAT == IQ1_S || FORMAT == IQ1_M { return iq1_levels(word, j); }
    let at = point_of(word, j);
    return signed4(grid[at.word], at.signs >> (4 * (j % 2)));
}

// Levels of IQ1: 8 g + 1, or 8 g - 1 where the shift bit is set.
fn iq1_levels(word: u32, j: u32) -> u32 {
    let octet = j / 2;
    var high: u32;
    var down: u32;
    if FORMAT == IQ1_S {
        let bits = code_pair(word + 8, octet / 4);
        high = (bits >> (3 * (octet % 4))) & 7;
        down = bits >> 15;
    } else {
        let bits = (codes[word + 8 + octet / 8] >> (4 * (octet % 8))) & 15;
        high = bits & 7;
        down = bits >> 3;
    }
    let index = code_byte(word, octet) | (high << 8);
    return subtract4(grid[2 * index + j % 2], select(15u, 17u, down == 1));
}

fn scale_of(row: u32, quad: u32) -> vec2f {
    let block = block_of(row, quad);
    let word = block * WORDS;
    let j = quad % 64;
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
        let nibbles = (vec2u(codes[word + 12], codes[word + 13]) & vec2u(0xf000f000));
        let bits = ((nibbles.x & 0xffff) >> 12) | ((nibbles.x >> 28) << 4)
            | (((nibbles.y & 0xffff) >> 12) << 8) | ((nibbles.y >> 28) << 12);
        d = unpack2x16float(bits).x;
    } else {
        d = header_f16(block);
    }
    return vec2f(d * f32(2 * scale + 1) * factor, 0);
}
