// Between a format of integers and the ops: a value is scale * level + minimum. The format's file
// has `levels4`, four signed bytes, and `scale_of`, both for the columns 4 four .. 4 four + 3.

override PART: u32;  // columns that have one scale, at most 32 and so that it divides 32
override MINIMA: bool;

fn weights4(row: u32, four: u32) -> vec4f {
    let s = scale_of(row, four);
    return fma(vec4f(s.x), numbers(levels4(row, four)), vec4f(s.y));
}
