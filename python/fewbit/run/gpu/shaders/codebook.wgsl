// Formats IQ4_NL, IQ4_XS, MXFP4 and NVFP4: four-bit codes that are indices into a table of levels.
//
// Words of codes of a block, in order:
//     IQ4_NL, MXFP4  4 of nibbles
//     IQ4_XS         1 of low scale bits, 32 of nibbles; the header is d and the high scale bits
//     NVFP4          8 of nibbles; the header is the four scales
// Same arithmetic as reference/codebook.py and float4.py.

// include blocks
// include levels

const IQ4_NL: u32 = 20;
const IQ4_XS: u32 = 23;
const MXFP4: u32 = 39;
const NVFP4: u32 = 40;

// The 16 levels as signed bytes: -127 -104 -83 -65 -49 -35 -22 -10 1 13 25 38 53 69 89 113, or
// 0 1 2 3 4 6 8 12 and their negatives.
fn table() -> vec4u {
    if FORMAT == MXFP4 || FORMAT == NVFP4 {
        return vec4u(0x03020100, 0x0c080604, 0xfdfeff00, 0xf4f8fafc);
    }
    return vec4u(0xbfad9881, 0xf6eaddcf, 0x26190d01, 0x71594535);
}

fn look_up(table: vec4u, code: u32) -> u32 {
    return byte_of(table[code >> 2], code & 3);
}

fn levels4(row: u32, quad: u32) -> u32 {
    var word = block_of(row, quad) * WORDS;
    let j = quad % (BLOCK / 4);
    var q: u32;
    if FORMAT == NVFP4 {
        q = codes[word + j / 4 * 2 + j % 2] >> ((j & 2) * 2);
    } else {
        if FORMAT == IQ4_XS { word += 1 + j / 8 * 4; }
        q = codes[word + j % 4] >> (j & 4);
    }
    let t = table();
    return look_up(t, q & 15) | (look_up(t, (q >> 8) & 15) << 8)
        | (look_up(t, (q >> 16) & 15) << 16) | (look_up(t, (q >> 24) & 15) << 24);
}

fn scale_of(row: u32, quad: u32) -> vec2f {
    let block = block_of(row, quad);
    let j = quad % (BLOCK / 4);
    switch FORMAT {
        case IQ4_NL: { return vec2f(header_f16(block), 0); }
        case IQ4_XS: {
            let k = j / 8;
            let low = (codes[block * WORDS] >> (4 * k)) & 15;
            let high = (headers[block] >> (16 + 2 * k)) & 3;
            return vec2f(header_pair(block).x * f32(i32(low | (high << 4)) - 32), 0);
        }
        case MXFP4: { return vec2f(power_of_2(i32(header_byte(block)) - 128), 0); }
        default: { return vec2f(half_ue4m3(byte_of(headers[block], j / 4)), 0); }
    }
}

// 2^n for n from -128 to 127, as the bits of an f32; below -126 it is subnormal.
fn power_of_2(n: i32) -> f32 {
    if n < -126 { return bitcast<f32>(1u << u32(n + 149)); }
    return bitcast<f32>(u32(n + 127) << 23);
}

// Half the value of an unsigned float with 4 exponent and 3 significand bits; 0x7f counts as 0.
fn half_ue4m3(code: u32) -> f32 {
    let exponent = (code >> 3) & 15;
    let significand = select(code & 7, (code & 7) | 8, exponent > 0);
    return select(f32(significand) * power_of_2(i32(max(exponent, 1)) - 11), 0.0, code == 0x7f);
}
