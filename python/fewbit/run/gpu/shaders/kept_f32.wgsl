// Keys and values as `store` keeps them: f32. `at` counts the heads of the cache, position by
// position, and `i` fours of a head's columns; what these hold is still to be scaled.

@group(0) @binding(5) var<storage, read> keys: array<vec4f>;
@group(0) @binding(6) var<storage, read> values: array<vec4f>;

fn key4(at: u32, i: u32) -> vec4f { return keys[at * (SIZE / 4) + i]; }
fn value4(at: u32, i: u32) -> vec4f { return values[at * (SIZE / 4) + i]; }
fn key_scale(at: u32) -> f32 { return 1; }
fn value_scale(at: u32) -> f32 { return 1; }
