// What `attend` does first: the keys and values of the new tokens go to their place in the cache,
// [sequences, CAPACITY, KV_HEADS] heads in as many words as their kind takes (kept_*.wgsl). A
// workgroup a head of a token.

override SIZE: u32;      // columns of a head, a multiple of 4
override KV_HEADS: u32;
override CAPACITY: u32;
override KV: u32;        // 0 f32, 1 f16, 2 int8
override OTHER_STRIDE: u32;
override OTHER_OFFSET: u32 = 0;

@group(0) @binding(3) var<storage, read> x: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> keys: array<u32>;
@group(0) @binding(5) var<storage, read_write> values: array<u32>;
@group(0) @binding(6) var<storage, read> other: array<vec4f>;
@group(0) @binding(7) var<storage, read> step: array<u32>;

const TINY: f32 = 0x1p-100;  // a head without anything larger is zero: its scale would be none

@compute @workgroup_size(LANES)
fn store(@builtin(workgroup_id) group: vec3u, lane: Lane) {
    let quads = SIZE / 4;
    let words = 4u >> KV;  // of four columns
    let row = step[sequence_at(group.y)] * CAPACITY + step[position_at(group.y)];
    let to = (row * KV_HEADS + group.x) * (quads * words + select(0u, 1u, KV == 2));
    let key = (group.y * STRIDE + OFFSET) / 4 + group.x * quads;
    let value = (group.y * OTHER_STRIDE + OTHER_OFFSET) / 4 + group.x * quads;
    var scales = vec2f();
    if KV == 2 {  // the largest of a head is kept as 127
        var most = vec2f();
        for (var i = lane.index; i < quads; i += LANES) {
            most = max(most, vec2f(largest(x[key + i]), largest(other[value + i])));
        }
        scales = vec2f(workgroup_max(most.x, lane), workgroup_max(most.y, lane));
        scales = select(scales / 127, vec2f(), scales < vec2f(TINY));
        if lane.index == 0 {
            keys[to + quads] = bitcast<u32>(scales.x);
            values[to + quads] = bitcast<u32>(scales.y);
        }
    }
    for (var i = lane.index; i < quads; i += LANES) {
        let k = packed(x[key + i], scales.x);
        let v = packed(other[value + i], scales.y);
        for (var w = 0u; w < words; w++) {
            keys[to + words * i + w] = k[w];
            values[to + words * i + w] = v[w];
        }
    }
}

fn largest(four: vec4f) -> f32 {
    let sizes = abs(four);
    return max(max(sizes.x, sizes.y), max(sizes.z, sizes.w));
}

// Four columns in the words that they take. A card's division may be off by some units in the last
// place: a quotient beside a half may become the integer on its other side.
fn packed(four: vec4f, scale: f32) -> vec4u {
    if KV == 0 { return bitcast<vec4u>(four); }
    if KV == 1 {
        return vec4u(half(four.x) | half(four.y) << 16, half(four.z) | half(four.w) << 16, 0, 0);
    }
    if scale == 0 { return vec4u(); }
    return vec4u(pack4xI8(vec4i(round(four / scale))), 0, 0, 0);
}

// The bits of x as f16, to nearest even: how pack2x16float rounds is left to the card.
fn half(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    let sign = bits >> 16 & 0x8000u;
    let size = bits & 0x7fffffffu;
    if size > 0x7f800000u { return sign | 0x7e00u; }
    if size >= 0x47800000u { return sign | 0x7c00u; }  // 2^16
    if size >= 0x38800000u { return sign | shifted(size - 0x38000000u, 13); }  // 2^-14
    let shift = min(126 - min(size >> 23, 126u), 25u);  // below, f16 has no exponent: 2^-24 a unit
    return sign | shifted(size & 0x7fffffu | 0x800000u, shift);
}

fn shifted(x: u32, by: u32) -> u32 { return (x + (1u << (by - 1)) - 1 + (x >> by & 1)) >> by; }
