// Inputs and output of attend.wgsl and attend_tile.wgsl; kv_*.wgsl has the keys and values.

override SIZE: u32;      // columns of a head, a multiple of 4
override HEADS: u32;
override KV_HEADS: u32;
override SCALE: f32;
override WINDOW: u32 = 0;
override HAS_SINKS: bool = false;
override CAPACITY: u32;

@group(0) @binding(3) var<storage, read> q: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4f>;
@group(0) @binding(7) var<storage, read> step: array<u32>;
@group(0) @binding(8) var<storage, read> sinks: array<f32>;

const LOWEST: f32 = -3.4e38;
