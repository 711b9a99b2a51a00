// What ops of one value, element by element, begin with: rows of WIDTH, an invocation an element.

override WIDTH: u32;
override PIECE: u32 = 0xffffffff;  // columns of x that lie together, and from where to where pieces go
override APART: u32 = 0;

@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

// Whether an invocation has an element; the last workgroup of a row may have too many.
fn is_inside(id: vec3u) -> bool { return id.x < WIDTH; }

fn x_of(id: vec3u) -> f32 {
    return x[id.y * STRIDE + OFFSET + id.x / PIECE * APART + id.x % PIECE];
}

fn put(id: vec3u, value: f32) { y[id.y * WIDTH + id.x] = value; }
