// Formats Q2_K to Q6_K: super-blocks of 256 columns in blocks of 16 or 32 with their own scales.
//
// Words of codes of a super-block, in order:
//     Q2_K  4 of scales and minimums, 16 of codes
//     Q3_K  8 of high bits, 16 of low bits, 3 of scales
//     Q4_K  3 of scales and minimums, 32 of nibbles
//     Q5_K  3 of scales and minimums, 8 of fifth bits, 32 of nibbles
//     Q6_K  32 of low nibbles, 16 of high bits, 4 of scales
// Same arithmetic as reference/k.py.

// include blocks
// include levels

const Q2_K: u32 = 10;
const Q3_K: u32 = 11;
const Q4_K: u32 = 12;
const Q5_K: u32 = 13;
const Q6_K: u32 = 14;

// Four codes of `bits` bits. Byte e of each 32 bytes holds columns e, e + 32, e + 64, ...
fn bit_plane(word: u32, j: u32, bits: u32, mask: u32) -> u32 {
    let per_byte = 8 / bits;  // codes per byte
    return (codes[word + j / (8 * per_byte) * 8 + j % 8] >> (j / 8 % per_byte * bits)) & mask;
}

fn levels4(row: u32, quad: u32) -> u32 {
    let word = block_of(row, quad) * WORDS;
    let j = quad % 64;
    switch FORMAT {
        case Q2_K: { return bit_plane(word + 4, j, 2, 0x03030303); }
        case Q3_K: {
            let high = bit_plane(word, j, 1, 0x01010101);
            return subtract4(bit_plane(word + 8, j, 2, 0x03030303) | (high << 2), 4);
        }
        case Q4_K: { return bit_plane(word + 3, j, 4, 0x0f0f0f0f); }
        case Q5_K: {
            let fifth = bit_plane(word + 3, j, 1, 0x01010101);
            return bit_plane(word + 11, j, 4, 0x0f0f0f0f) | (fifth << 4);
        }
        default: {
            let low = (codes[word + j / 32 * 16 + j % 16] >> ((j & 16) / 4)) & 0x0f0f0f0f;
            return subtract4(low | (bit_plane(word + 32, j, 2, 0x03030303) << 4), 32);
        }
    }
}

fn scale_of(row: u32, quad: u32) -> vec2f {
    let block = block_of(row, quad);
    let word = block * WORDS;
    let j = quad % 64;
    switch FORMAT {
        case Q2_K: {
            let both = code_byte(word, j / 4);
            return header_pair(block) * vec2f(f32(both & 15), -f32(both >> 4));
        }
        case Q3_K: {
            let k = j / 4;  // four bits in the first 8 bytes, two more in the last 4
            let low = (code_byte(word + 24, k % 8) >> (k / 8 * 4)) & 15;
            let high = (code_byte(word + 26, k % 4) >> (k / 4 * 2)) & 3;
            return vec2f(header_f16(block) * f32(i32(low | (high << 4)) - 32), 0);
        }
        case Q4_K, Q5_K: { return header_pair(block) * scale_and_minimum(word, j / 8); }
        default: {
            let scale = unpack4xI8(codes[word + 48 + j / 16])[j / 4 % 4];
            return vec2f(header_f16(block) * f32(scale), 0);
        }
    }
}

// Scale and negated minimum k of 8: 6 bits each, in 12 bytes.
fn scale_and_minimum(word: u32, k: u32) -> vec2f {
    let own = k % 4;
    let s = code_byte(word, own);
    let m = code_byte(word, own + 4);
    if k < 4 { return vec2f(f32(s & 63), -f32(m & 63)); }
    let low = code_byte(word, own + 8);
    return vec2f(f32((low & 15) | ((s >> 6) << 4)), -f32((low >> 4) | ((m >> 6) << 4)));
}
