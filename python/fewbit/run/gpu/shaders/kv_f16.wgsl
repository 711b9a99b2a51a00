// KV cache in f16: two values to a word. See kv_f32.wgsl.

@group(0) @binding(5) var<storage, read> keys: array<vec2u>;
@group(0) @binding(6) var<storage, read> values: array<vec2u>;

fn key4(at: u32, i: u32) -> vec4f { return halves(keys[at * (SIZE / 4) + i]); }
fn value4(at: u32, i: u32) -> vec4f { return halves(values[at * (SIZE / 4) + i]); }
fn key_scale(at: u32) -> f32 { return 1; }
fn value_scale(at: u32) -> f32 { return 1; }

fn halves(words: vec2u) -> vec4f {
    return vec4f(unpack2x16float(words.x), unpack2x16float(words.y));
}
