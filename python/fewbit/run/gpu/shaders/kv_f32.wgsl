// KV cache in f32. kv_f16.wgsl and kv_int8.wgsl have the same functions for the other types.
//
// `at` is the index of a head in the cache (sequence, position, key/value head), and `i` the index
// of four columns of the head. The true value is key4 * key_scale, or value4 * value_scale.

@group(0) @binding(5) var<storage, read> keys: array<vec4f>;
@group(0) @binding(6) var<storage, read> values: array<vec4f>;

fn key4(at: u32, i: u32) -> vec4f { return keys[at * (SIZE / 4) + i]; }
fn value4(at: u32, i: u32) -> vec4f { return values[at * (SIZE / 4) + i]; }
fn key_scale(at: u32) -> f32 { return 1; }
fn value_scale(at: u32) -> f32 { return 1; }
