// KV cache in int8: for each head four codes to a word, then the head's scale. See kv_f32.wgsl.

@group(0) @binding(5) var<storage, read> keys: array<u32>;
@group(0) @binding(6) var<storage, read> values: array<u32>;

fn key4(at: u32, i: u32) -> vec4f { return to_floats(keys[at * (SIZE / 4 + 1) + i]); }
fn value4(at: u32, i: u32) -> vec4f { return to_floats(values[at * (SIZE / 4 + 1) + i]); }
fn key_scale(at: u32) -> f32 { return bitcast<f32>(keys[at * (SIZE / 4 + 1) + SIZE / 4]); }
fn value_scale(at: u32) -> f32 { return bitcast<f32>(values[at * (SIZE / 4 + 1) + SIZE / 4]); }
