// First half of op `attend`: writes the keys and values of the new tokens to the KV cache.
//
// The cache is [sequences, CAPACITY, KV_HEADS] heads in the layout of kv_*.wgsl. One workgroup per
// head of a token.

override SIZE: u32;      // columns of a head, a multiple of 4
override KV_HEADS: u32;
override CAPACITY: u32;
override KV_TYPE: u32;   // 0 f32, 1 f16, 2 int8
override OTHER_STRIDE: u32;
override OTHER_OFFSET: u32 = 0;

@group(0) @binding(3) var<storage, read> x: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> keys: array<u32>;
@group(0) @binding(5) var<storage, read_write> values: array<u32>;
@group(0) @binding(6) var<storage, read> other: array<vec4f>;
@group(0) @binding(7) var<storage, read> step: array<u32>;

const TINY: f32 = 0x1p-100;  // a head with no larger magnitude is stored as zero

@compute @workgroup_size(LANES)
fn store(@builtin(workgroup_id) workgroup_id: vec3u, lane: Lane) {
    let quads = SIZE / 4;
    let words = 4u >> KV_TYPE;  // per four columns
    let row = step[sequence_at(workgroup_id.y)] * CAPACITY + step[position_at(workgroup_id.y)];
    let to = (row * KV_HEADS + workgroup_id.x) * (quads * words + select(0u, 1u, KV_TYPE == 2));
    let key = (workgroup_id.y * STRIDE + OFFSET) / 4 + workgroup_id.x * quads;
    let value = (workgroup_id.y * OTHER_STRIDE + OTHER_OFFSET) / 4 + workgroup_id.x * quads;
    var scales = vec2f();
    if KV_TYPE == 2 {  // the largest magnitude of a head becomes 127
        var amax = vec2f();
        for (var i = lane.index; i < quads; i += LANES) {
            amax = max(amax, vec2f(max_abs(x[key + i]), max_abs(other[value + i])));
        }
        scales = vec2f(workgroup_max(amax.x, lane), workgroup_max(amax.y, lane));
        scales = select(scales / 127, vec2f(), scales < vec2f(TINY));
        if lane.index == 0 {
            keys[to + quads] = bitcast<u32>(scales.x);
            values[to + quads] = bitcast<u32>(scales.y);
        }
    }
    for (var i = lane.index; i < quads; i += LANES) {
        let k = encode_quad(x[key + i], scales.x);
        let v = encode_quad(other[value + i], scales.y);
        for (var w = 0u; w < words; w++) {
            keys[to + words * i + w] = k[w];
            values[to + words * i + w] = v[w];
        }
    }
}

fn max_abs(quad: vec4f) -> f32 {
    let magnitudes = abs(quad);
    return max(max(magnitudes.x, magnitudes.y), max(magnitudes.z, magnitudes.w));
}

// The words of four columns. Division is not correctly rounded on all devices, so a quotient close
// to a half may round to the other side.
fn encode_quad(quad: vec4f, scale: f32) -> vec4u {
    if KV_TYPE == 0 { return bitcast<vec4u>(quad); }
    if KV_TYPE == 1 {
        return vec4u(
            f16_bits(quad.x) | f16_bits(quad.y) << 16,
            f16_bits(quad.z) | f16_bits(quad.w) << 16, 0, 0,
        );
    }
    if scale == 0 { return vec4u(); }
    return vec4u(pack4xI8(vec4i(round(quad / scale))), 0, 0, 0);
}

// The bits of x as f16, to nearest even. WGSL does not define how pack2x16float rounds.
fn f16_bits(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    let sign = bits >> 16 & 0x8000u;
    let magnitude = bits & 0x7fffffffu;
    if magnitude > 0x7f800000u { return sign | 0x7e00u; }
    if magnitude >= 0x47800000u { return sign | 0x7c00u; }  // 2^16
    if magnitude >= 0x38800000u {  // 2^-14
        return sign | shift_to_even(magnitude - 0x38000000u, 13);
    }
    let shift = min(126 - min(magnitude >> 23, 126u), 25u);  // subnormal f16: units of 2^-24
    return sign | shift_to_even(magnitude & 0x7fffffu | 0x800000u, shift);
}

// x / 2^by, to nearest even.
fn shift_to_even(x: u32, by: u32) -> u32 {
    return (x + (1u << (by - 1)) - 1 + (x >> by & 1)) >> by;
}
