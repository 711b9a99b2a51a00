// IQ4_NL IQ4_XS MXFP4 NVFP4: four bits that choose from a table; reference/codebook.py, float4.py.
//
// Words of codes: IQ4_NL and MXFP4 4 of nibbles; IQ4_XS 1 of low scale bits, 32 of nibbles (its head is
// d and the high scale bits); NVFP4 8 of nibbles (its head is the four scales).

// include blocks
// include levels

const IQ4_NL: u32 = 20;
const IQ4_XS: u32 = 23;
const MXFP4: u32 = 39;
const NVFP4: u32 = 40;

// Four signed bytes a word: -127 -104 -83 -65 -49 -35 -22 -10 1 13 25 38 53 69 89 113, or 0 1 2 3 4 6 8 12
// and the same below zero.
fn table() -> vec4u {
    if FORMAT == MXFP4 || FORMAT == NVFP4 {
        return vec4u(0x03020100, 0x0c080604, 0xfdfeff00, 0xf4f8fafc);
    }
    return vec4u(0xbfad9881, 0xf6eaddcf, 0x26190d01, 0x71594535);
}

fn chosen(table: vec4u, code: u32) -> u32 {
    return byte_of(table[code >> 2], code & 3);
}

fn levels4(row: u32, four: u32) -> u32 {
    var word = block_of(row, four) * WORDS;
    let j = four % (BLOCK / 4);
    var q: u32;
    if FORMAT == NVFP4 {
        q = codes[word + j / 4 * 2 + j % 2] >> ((j & 2) * 2);
    } else {
        if FORMAT == IQ4_XS { word += 1 + j / 8 * 4; }
        q = codes[word + j % 4] >> (j & 4);
    }
    let t = table();
    return chosen(t, q & 15) | (chosen(t, (q >> 8) & 15) << 8)
        | (chosen(t, (q >> 16) & 15) << 16) | (chosen(t, (q >> 24) & 15) << 24);
}

fn scale_of(row: u32, four: u32) -> vec2f {
    let block = block_of(row, four);
    let j = four % (BLOCK / 4);
    switch FORMAT {
        case IQ4_NL: { return vec2f(head_f16(block), 0); }
        case IQ4_XS: {
            let k = j / 8;
            let low = (codes[block * WORDS] >> (4 * k)) & 15;
            let high = (heads[block] >> (16 + 2 * k)) & 3;
            return vec2f(head_pair(block).x * f32(i32(low | (high << 4)) - 32), 0);
        }
        case MXFP4: { return vec2f(power(i32(head_byte(block)) - 128), 0); }
        default: { return vec2f(half_ue4m3(byte_of(heads[block], j / 4)), 0); }
    }
}

// 2^n for n from -128 to 127, subnormals too: as the exponent of an f32, or one bit of a small one.
fn power(n: i32) -> f32 {
    if n < -126 { return bitcast<f32>(1u << u32(n + 149)); }
    return bitcast<f32>(u32(n + 127) << 23);
}

// Half the value of an unsigned float of 4 exponent and 3 significand bits; 0x7f is 0.
fn half_ue4m3(code: u32) -> f32 {
    let exponent = (code >> 3) & 15;
    let significand = select(code & 7, (code & 7) | 8, exponent > 0);
    return select(f32(significand) * power(i32(max(exponent, 1)) - 11), 0.0, code == 0x7f);
}
