// Computes ln(1 + e) without losing accuracy for small e.

// ln(1 + e) for 0 <= e <= 1, as 2 atanh(e / (2 + e)) by its series. The first term left out is
// below 2e-8 of the result.
fn log_1p_small(e: f32) -> f32 {
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

// ln(1 + e) for any e >= 0.
fn log_1p(e: f32) -> f32 {
    if e <= 1 { return log_1p_small(e); }
    return log(1 + e);
}
