//! The normal and Student's t distribution, as far as error bars need them.
//!
//! Written here because the four functions are all that is wanted of a statistics library. The
//! formulas are those of Abramowitz and Stegun, *Handbook of Mathematical Functions*: 7.1.6 and
//! 7.1.14 (error function), 26.5.8 (incomplete beta), with Lanczos's approximation of ln Γ. All are
//! good to about 13 digits.

use std::f64::consts::{PI, SQRT_2};

/// Probability that a standard normal variable is at most `x`.
#[must_use]
pub fn normal_cdf(x: f64) -> f64 {
    0.5 * erfc(-x / SQRT_2)
}

/// The `p`-quantile of the standard normal distribution; infinite at 0 and 1.
///
/// Bisection: the distribution function is exact, and nobody waits for these quantiles.
#[must_use]
pub fn normal_quantile(p: f64) -> f64 {
    if p <= 0.0 {
        return f64::NEG_INFINITY;
    }
    if p >= 1.0 {
        return f64::INFINITY;
    }
    bisect(-40.0, 40.0, |x| normal_cdf(x) < p)
}

/// Probability that Student's t with `freedom` degrees is further from 0 than `t` on either side.
#[must_use]
pub fn t_two_sided(t: f64, freedom: f64) -> f64 {
    if t.is_infinite() {
        return 0.0;
    }
    incomplete_beta(freedom / 2.0, 0.5, freedom / (freedom + t * t))
}

/// The value that Student's t with `freedom` degrees exceeds on either side with probability `p`.
#[must_use]
pub fn t_critical(p: f64, freedom: f64) -> f64 {
    if p >= 1.0 {
        return 0.0;
    }
    let mut high = 1.0;
    while t_two_sided(high, freedom) > p && high < 1e300 {
        high *= 2.0;
    }
    bisect(0.0, high, |t| t_two_sided(t, freedom) > p)
}

/// ln of the number of ways to choose `k` of `n`.
#[must_use]
pub fn ln_choose(n: u64, k: u64) -> f64 {
    let ln_factorial = |n: u64| ln_gamma(n as f64 + 1.0);
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
}

/// Where `below` turns from true to false, to the last bit.
fn bisect(mut low: f64, mut high: f64, below: impl Fn(f64) -> bool) -> f64 {
    loop {
        let middle = f64::midpoint(low, high);
        if middle <= low || middle >= high {
            return middle;
        }
        if below(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
}

/// 1 − erf(x).
fn erfc(x: f64) -> f64 {
    if x < 0.0 {
        return 2.0 - erfc(-x);
    }
    if x < 2.0 {
        1.0 - erf_series(x)
    } else {
        erfc_fraction(x)
    }
}

/// erf(x) = 2/√π · e^(−x²) · Σ 2ⁿ x^(2n+1) / (1·3·…·(2n+1)); all terms are positive.
fn erf_series(x: f64) -> f64 {
    let mut term = x;
    let mut sum = x;
    let mut n = 0.0;
    while term > sum * 1e-17 {
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
    }
    2.0 / PI.sqrt() * (-x * x).exp() * sum
}

/// Laplace's continued fraction √π · e^(x²) · erfc(x) = 1/(x + ½/(x + 1/(x + 3⁄2/(x + …)))),
/// from the inside out.
fn erfc_fraction(x: f64) -> f64 {
    let inner = (1..=120)
        .rev()
        .fold(x, |below, n| x + f64::from(n) / 2.0 / below);
    (-x * x).exp() / PI.sqrt() / inner
}

/// ln Γ(x) for x > 0, after Lanczos with g = 7 and nine coefficients.
fn ln_gamma(x: f64) -> f64 {
    const FIRST: f64 = 0.999_999_999_999_809_9;
    const REST: [f64; 8] = [
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    if x < 0.5 {
        return (PI / (PI * x).sin()).ln() - ln_gamma(1.0 - x);
    }
    let x = x - 1.0;
    let sum = REST
        .iter()
        .zip(1..)
        .fold(FIRST, |sum, (c, i)| sum + c / (x + f64::from(i)));
    let t = x + 7.5;
    0.5 * (2.0 * PI).ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

/// The regularised incomplete beta function I_x(a, b).
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    // The fraction converges fast below the mean only; above it the symmetry helps.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(b, a, 1.0 - x);
    }
    let ln_front = ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (1.0 - x).ln();
    ln_front.exp() / a / beta_fraction(a, b, x)
}

/// The continued fraction of the incomplete beta function, after Lentz.
fn beta_fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away_from_0 = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut value = 1.0;
    let mut c = 1.0;
    let mut d = 0.0;
    for step in 1..10_000u32 {
        let m = f64::from(step / 2);
        let numerator = if step % 2 == 0 {
            m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m))
        } else {
            -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0))
        };
        d = 1.0 / away_from_0(1.0 + numerator * d);
        c = away_from_0(1.0 + numerator / c);
        value *= c * d;
        if (c * d - 1.0).abs() < 1e-16 {
            break;
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn close(found: f64, expected: f64) {
        let difference = (found - expected).abs();
        assert!(
            difference <= 1e-12 * expected.abs().max(1e-3),
            "{found} {expected}"
        );
    }

    /// Values of any table of the normal distribution.
    #[test]
    fn normal() {
        close(normal_cdf(0.0), 0.5);
        close(normal_cdf(1.0), 0.841_344_746_068_543);
        close(normal_cdf(-1.0), 1.0 - 0.841_344_746_068_543);
        close(normal_cdf(-4.0), 3.167_124_183_311_992e-5);
        close(normal_quantile(0.975), 1.959_963_984_540_054);
        close(normal_quantile(0.5), 0.0);
        assert_eq!(normal_quantile(1.0), f64::INFINITY);
        assert_eq!(normal_quantile(0.0), f64::NEG_INFINITY);
    }

    /// One degree is Cauchy's distribution (1/2 beyond ±1), two degrees have a closed form.
    #[test]
    fn student() {
        close(t_two_sided(1.0, 1.0), 0.5);
        close(t_two_sided(0.0, 7.0), 1.0);
        let t = 3.0_f64;
        close(t_two_sided(t, 2.0), 1.0 - t / (2.0 + t * t).sqrt());
        close(t_critical(0.05, 10.0), 2.228_138_851_986_275);
        close(t_critical(0.05, 1.0), 12.706_204_736_174_7);
        assert_eq!(t_critical(1.0, 5.0), 0.0);
        assert_eq!(t_two_sided(f64::INFINITY, 5.0), 0.0);
    }

    #[test]
    fn ways_to_choose() {
        close(ln_choose(5, 2).exp(), 10.0);
        close(ln_choose(50, 0), 0.0);
        assert!((ln_choose(50, 25).exp() / 126_410_606_437_752.0 - 1.0).abs() < 1e-12);
    }
}
