//! The beta distribution with α = β = 0.6, by which Lee et al. (2024) choose the noise levels to visit.

/// α and β of diffusers' `_convert_to_beta`.
const SHAPE: f64 = 0.6;

/// The value below which the share `q` (0 to 1) of the distribution lies: scipy's `beta.ppf(q, 0.6, 0.6)`.
pub(super) fn beta_quantile(q: f64) -> f64 {
    if q > 0.5 {
        return 1.0 - lower_quantile(1.0 - q);
    }
    lower_quantile(q)
}

/// The quantile of a share of at most ½, by Newton's method. The distribution is symmetric, so that half of its mass is what lies below ½.
fn lower_quantile(q: f64) -> f64 {
    let wanted = 2.0 * q * mass_below(0.5);
    // The first term of the series; the density falls from there on, so that Newton's steps come from one side.
    let mut x = (SHAPE * wanted).powf(1.0 / SHAPE).min(0.5);
    for _ in 0..50 {
        let density = (x * (1.0 - x)).powf(SHAPE - 1.0);
        let next = (x - (mass_below(x) - wanted) / density).clamp(0.0, 0.5);
        if x == 0.0 || (next - x).abs() <= f64::EPSILON * x {
            break;
        }
        x = next;
    }
    x
}

/// ∫₀ˣ t^(−0.4) (1 − t)^(−0.4) dt for x ≤ ½, by the binomial series.
fn mass_below(x: f64) -> f64 {
    let (mut term, mut sum) = (1.0, 0.0);
    for power in 0..64 {
        let n = f64::from(power);
        sum += term / (SHAPE + n);
        term *= x * (n + 1.0 - SHAPE) / (n + 1.0);
    }
    x.powf(SHAPE) * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_scipy() {
        // scipy 1.17.1: scipy.stats.beta.ppf(q, 0.6, 0.6)
        for (q, expected) in QUANTILES {
            assert!((beta_quantile(q) - expected).abs() < 1e-13, "{q}: {} and {expected}", beta_quantile(q));
        }
    }

    const QUANTILES: [(f64, f64); 9] = [
        (0.0, 0.0),
        (0.001, 1.855873851745199e-05),
        (0.04, 0.00866376938478334),
        (0.25, 0.17568037865269498),
        (0.5, 0.5000000000000001),
        (0.7, 0.7659829961247643),
        (0.75, 0.824319621347305),
        (0.96, 0.9913362306152167),
        (1.0, 1.0),
    ];
}
