// Q2_K .. Q6_K: super-blocks of 256 whose blocks have scales of their own; reference/k.py.
//
// Words of codes: Q2_K 4 of scales and minima, 16 of codes; Q3_K 8 of high bits, 16 of low codes, 3 of
// scales; Q4_K 3 of scales and minima, 32 of nibbles; Q5_K those 3, 8 of fifth bits, 32 of nibbles;
// Q6_K 32 of low nibbles, 16 of high bits, 4 of scales.

// include blocks
// include levels

const Q2_K: u32 = 10;
const Q3_K: u32 = 11;
const Q4_K: u32 = 12;
const Q5_K: u32 = 13;
const Q6_K: u32 = 14;

// Four codes of a plane whose words hold elements e, e + 32, e + 64, ... (32 bytes apart) of `bits`.
fn plane(word: u32, j: u32, bits: u32, mask: u32) -> u32 {
    let per = 8 / bits;  // elements of a byte
    return (codes[word + j / (8 * per) * 8 + j % 8] >> (j / 8 % per * bits)) & mask;
}

fn levels4(row: u32, four: u32) -> u32 {
    let word = block_of(row, four) * WORDS;
    let j = four % 64;
    switch FORMAT {
        case Q2_K: { return plane(word + 4, j, 2, 0x03030303); }
        case Q3_K: {
            let high = plane(word, j, 1, 0x01010101);
            return less(plane(word + 8, j, 2, 0x03030303) | (high << 2), 4);
        }
        case Q4_K: { return plane(word + 3, j, 4, 0x0f0f0f0f); }
        case Q5_K: {
            let fifth = plane(word + 3, j, 1, 0x01010101);
            return plane(word + 11, j, 4, 0x0f0f0f0f) | (fifth << 4);
        }
        default: {
            let low = (codes[word + j / 32 * 16 + j % 16] >> ((j & 16) / 4)) & 0x0f0f0f0f;
            return less(low | (plane(word + 32, j, 2, 0x03030303) << 4), 32);
        }
    }
}

fn scale_of(row: u32, four: u32) -> vec2f {
    let block = block_of(row, four);
    let word = block * WORDS;
    let j = four % 64;
    switch FORMAT {
        case Q2_K: {
            let both = code_byte(word, j / 4);
            return head_pair(block) * vec2f(f32(both & 15), -f32(both >> 4));
        }
        case Q3_K: {
            let k = j / 4;  // four bits in the first 8 bytes, two more in the last 4
            let low = (code_byte(word + 24, k % 8) >> (k / 8 * 4)) & 15;
            let high = (code_byte(word + 26, k % 4) >> (k / 4 * 2)) & 3;
            return vec2f(head_f16(block) * f32(i32(low | (high << 4)) - 32), 0);
        }
        case Q4_K, Q5_K: { return head_pair(block) * six(word, j / 8); }
        default: {
            let scale = unpack4xI8(codes[word + 48 + j / 16])[j / 4 % 4];
            return vec2f(head_f16(block) * f32(scale), 0);
        }
    }
}

// Scale and minimum k of 8 each, of 6 bits, in 12 bytes; the minimum with its sign turned.
fn six(word: u32, k: u32) -> vec2f {
    let own = k % 4;
    let s = code_byte(word, own);
    let m = code_byte(word, own + 4);
    if k < 4 { return vec2f(f32(s & 63), -f32(m & 63)); }
    let low = code_byte(word, own + 8);
    return vec2f(f32((low & 15) | ((s >> 6) << 4)), -f32((low >> 4) | ((m >> 6) << 4)));
}
