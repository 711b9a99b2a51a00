//! The cost as a function of steps along one or two directions: where it is least.

/// The best steps along two directions, of a quadratic with these sums.
pub struct Quadratic {
    /// u H u, u H v, v H v.
    uu: f64,
    uv: f64,
    vv: f64,
    /// u and v times the gradient.
    u: f64,
    v: f64,
}

impl Quadratic {
    /// Of the directions u and v, given H u and H v; without v if not `both`.
    #[inline(always)]
    pub fn new([u, v]: [&[f64]; 2], [hu, hv]: [&[f64]; 2], gradient: &[f64], both: bool) -> Self {
        Self {
            uu: dot(u, hu),
            uv: dot(u, hv),
            vv: dot(v, hv),
            u: dot(u, gradient),
            v: if both { dot(v, gradient) } else { 0.0 },
        }
    }

    /// The best step along u, with that along v free if there is one.
    #[inline(always)]
    pub fn along_u(&self) -> f64 {
        let determinant = self.uu * self.vv - self.uv * self.uv;
        if determinant > 1e-9 * self.uu * self.vv {
            return (self.u * self.vv - self.v * self.uv) / determinant;
        }
        if self.uu > 0.0 { self.u / self.uu } else { 0.0 }
    }

    /// The best step along v after the step `taken` along u.
    #[inline(always)]
    pub fn along_v(&self, taken: f64) -> f64 {
        if self.vv > 0.0 { (self.v - taken * self.uv) / self.vv } else { 0.0 }
    }

    /// By how much the step along u alone changes the objective.
    #[inline(always)]
    pub fn change(&self, step: f64) -> f64 {
        step * (step * self.uu - 2.0 * self.u)
    }
}

#[inline(always)]
fn dot(a: &[f64], b: &[f64]) -> f64 {
    // Eight sums side by side, as one would wait for each addition.
    let mut sums = [0f64; 8];
    let (eights, others) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    for (a, b) in eights.0.iter().zip(others.0) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = eights.1.iter().zip(others.1).map(|(a, b)| a * b).sum();
    rest + sums.iter().sum::<f64>()
}
