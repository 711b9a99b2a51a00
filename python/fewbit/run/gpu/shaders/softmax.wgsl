// Softmax over a row of logits: the exponential, and a test for NaN and infinity.

const LOWEST: f32 = -3.4e38;

fn exp_below(x: f32) -> f32 { return exp(max(x, -87)); }

// 1 for NaN or an infinity, else 0.
fn is_not_finite(x: f32) -> f32 {
    return select(0.0, 1.0, (bitcast<u32>(x) & 0x7f800000) == 0x7f800000);
}
