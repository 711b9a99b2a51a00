// Functions that the gate and activation ops share: sigmoid and GELU.
//
// WGSL does not guarantee infinities, so arguments of exp are clamped to where the result is
// finite: results below e^-87 of the input are not exact.

fn logistic(x: f32) -> f32 { return 1 / (1 + exp(clamp(-x, -87, 87))); }

// x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3)); x is clamped to 30 because its cube would overflow.
fn gelu_of(x: f32) -> f32 {
    let c = clamp(x, -30, 30);
    return x / (1 + exp(clamp(-c * fma(c * c, 0.07135481, 1.5957692), -87, 87)));
}
