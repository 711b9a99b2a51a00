// What gates are made of. Infinities are not portable, so exp's argument stays where its result is
// a number: nothing here is below e^-87 of its input, as it should be past that.

fn logistic(x: f32) -> f32 { return 1 / (1 + exp(clamp(-x, -87, 87))); }

// x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3)); beyond 30 the cube would only overflow.
fn gelu_of(x: f32) -> f32 {
    let c = clamp(x, -30, 30);
    return x / (1 + exp(clamp(-c * fma(c * c, 0.07135481, 1.5957692), -87, 87)));
}
