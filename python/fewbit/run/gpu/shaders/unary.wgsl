// Element-wise ops of one value include this: rows of WIDTH columns, one invocation per element.

override WIDTH: u32;
// x may lie in pieces of PIECE_WIDTH columns that are PIECE_STRIDE columns apart
override PIECE_WIDTH: u32 = 0xffffffff;
override PIECE_STRIDE: u32 = 0;

@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

// False for invocations past the end of a row.
fn is_inside(id: vec3u) -> bool { return id.x < WIDTH; }

fn x_at(id: vec3u) -> f32 {
    return x[id.y * STRIDE + OFFSET + id.x / PIECE_WIDTH * PIECE_STRIDE + id.x % PIECE_WIDTH];
}

fn write_y(id: vec3u, value: f32) { y[id.y * WIDTH + id.x] = value; }
