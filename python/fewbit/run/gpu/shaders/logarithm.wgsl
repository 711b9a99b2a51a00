// ln(1 + e) for 0 <= e <= 1, which loses no small e to the 1: 2 atanh(e / (2 + e)) as its series,
// whose first term left out is below 2e-8 of it.
fn log_1p(e: f32) -> f32 {
    let s = e / (2 + e);
    let z = s * s;
    var series = 1.0 / 13;
    series = fma(series, z, 1.0 / 11);
    series = fma(series, z, 1.0 / 9);
    series = fma(series, z, 1.0 / 7);
    series = fma(series, z, 1.0 / 5);
    series = fma(series, z, 1.0 / 3);
    return 2 * fma(series * z, s, s);
}

// ln(1 + e) for e >= 0.
fn log_of_1_and(e: f32) -> f32 {
    if e <= 1 { return log_1p(e); }
    return log(1 + e);
}
