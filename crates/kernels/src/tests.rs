//! Every path that this processor has, forced, against f64.

use std::sync::atomic::{AtomicUsize, Ordering};

use half::{bf16, f16};
use proptest::prelude::*;

use crate::{Activations, FEW_ROWS, Format, Options, Packed, Path, Rows, Weights, multiply};

fn paths() -> impl Iterator<Item = Path> {
    Path::ALL.into_iter().filter(|path| path.is_available())
}

/// Numbers without a pattern, in −1 … 1.
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn exact(x: &[f32], w: &[f32], shape: [usize; 3]) -> Vec<f64> {
    with_bounds(x, w, shape)
        .into_iter()
        .map(|(y, _)| y)
        .collect()
}

/// Every output in f64, and how far f32 may be from it.
///
/// Each product and each partial sum `s` is rounded once at most, by an error that is spread evenly over
/// `±u·|s|` at most (`u = 2⁻²⁴`), with standard deviation `u·|s|/√3`. The bound is six standard
/// deviations of the sum of all these errors: it grows with the partial sums that this very output
/// had, and leaves room for no other error.
fn with_bounds(x: &[f32], w: &[f32], [m, n, k]: [usize; 3]) -> Vec<(f64, f64)> {
    let unit = (-24f64).exp2();
    let mut y = Vec::with_capacity(m * n);
    for i in 0..m {
        for j in 0..n {
            let (mut sum, mut squares) = (0f64, 0f64);
            for (x, w) in x[i * k..][..k].iter().zip(&w[j * k..][..k]) {
                let product = f64::from(*x) * f64::from(*w);
                sum += product;
                squares += product * product + sum * sum;
            }
            y.push((sum, 6.0 * unit * (squares / 3.0).sqrt()));
        }
    }
    y
}

/// The worst of all outputs, as a share of its bound.
fn worst_share(y: &[f32], expected: &[(f64, f64)]) -> f64 {
    let share = |(y, (exact, bound)): (&f32, &(f64, f64))| {
        (f64::from(*y) - exact).abs() / bound.max(f64::MIN_POSITIVE)
    };
    y.iter().zip(expected).map(share).fold(0.0, f64::max)
}

/// Largest deviation relative to the length of the two factors, `√k · |x| · |w|` being the size of an
/// ordinary sum.
fn deviation(y: &[f32], exact: &[f64], k: usize) -> f64 {
    let scale = (k.max(1) as f64).sqrt() / 3.0;
    y.iter()
        .zip(exact)
        .map(|(y, exact)| (f64::from(*y) - exact).abs() / scale)
        .fold(0.0, f64::max)
}

/// Int8 activations are off by at most 1/254 of the largest, evenly: 0.4 % of an ordinary sum, of
/// which this is five standard deviations.
const INT8_ACTIVATIONS: f64 = 2e-2;

const SHAPES: [[usize; 3]; 14] = [
    [1, 1, 1],
    [1, 5, 63],
    [1, 17, 300],
    [2, 33, 64],
    [3, 16, 256],
    [5, 47, 257],
    [7, 100, 31],
    [11, 32, 1025],
    [12, 64, 512],
    [16, 48, 130],
    [17, 40, 96],
    [29, 31, 700],
    [200, 70, 65],
    [64, 300, 1100],
];

/// With the weights as they are stored, f32 and bf16 products are off by the rounding of f32 sums and
/// nothing else; integers by the rounding of activations.
#[test]
fn every_path_matches_f64() {
    for path in paths() {
        for [m, n, k] in SHAPES {
            let (x, w) = (noise(m * k, 1), noise(n * k, 2));
            for format in Format::ALL {
                let packed = Packed::pack(Rows::F32(&w), [n, k], format).unwrap();
                let expected = with_bounds(&x, &packed.to_rows(), [m, n, k]);
                let options = Options {
                    path: Some(path),
                    ..Options::default()
                };
                let y = multiply(&x, m, Weights::Packed(&packed), options);
                let worst = match format {
                    Format::F32 | Format::Bf16 => worst_share(&y, &expected),
                    Format::Int8 | Format::Int4 => {
                        let exact: Vec<f64> = expected.iter().map(|(y, _)| *y).collect();
                        deviation(&y, &exact, k) / INT8_ACTIVATIONS
                    }
                };
                assert!(worst < 1.0, "{path:?} {format:?} [{m}, {n}, {k}]: {worst}");
            }
        }
    }
}

/// Rounded activations are those that bf16 holds, and only bf16 weights and many rows have them.
#[test]
fn activations_are_rounded_where_that_is_allowed() {
    for path in paths() {
        for [m, n, k] in SHAPES {
            let (x, w) = (noise(m * k, 17), noise(n * k, 18));
            let short: Vec<f32> = x.iter().map(|v| bf16::from_f32(*v).to_f32()).collect();
            for format in [Format::F32, Format::Bf16] {
                let packed = Packed::pack(Rows::F32(&w), [n, k], format).unwrap();
                let rounded = path.has_bf16() && m > FEW_ROWS && format == Format::Bf16;
                let seen = if rounded { &short } else { &x };
                let expected = with_bounds(seen, &packed.to_rows(), [m, n, k]);
                let options = Options {
                    path: Some(path),
                    activations: Activations::Rounded,
                    ..Options::default()
                };
                let y = multiply(&x, m, Weights::Packed(&packed), options);
                let worst = worst_share(&y, &expected);
                assert!(worst < 1.0, "{path:?} {format:?} [{m}, {n}, {k}]: {worst}");
            }
        }
    }
}

/// Integers have no rounding of their own: with activations that int8 holds, sums are exact.
#[test]
fn integers_are_exact_where_activations_are() {
    for path in paths() {
        for [m, n, k] in SHAPES {
            // ±127 in every block, so that the scale is 1.
            let x: Vec<f32> = noise(m * k, 3)
                .iter()
                .enumerate()
                .map(|(i, v)| {
                    if i % k % 16 == 0 {
                        -127.0
                    } else {
                        (v * 127.0).round()
                    }
                })
                .collect();
            let w = noise(n * k, 4);
            for format in [Format::Int8, Format::Int4] {
                let packed = Packed::pack(Rows::F32(&w), [n, k], format).unwrap();
                let exact = exact(&x, &packed.to_rows(), [m, n, k]);
                let options = Options {
                    path: Some(path),
                    ..Options::default()
                };
                let y = multiply(&x, m, Weights::Packed(&packed), options);
                let worst = deviation(&y, &exact, k) / 127.0;
                assert!(worst < 5e-6, "{path:?} {format:?} [{m}, {n}, {k}]: {worst}");
            }
        }
    }
}

/// The largest weights and activations of both signs: sums of bytes must not saturate.
#[test]
fn extremes_do_not_saturate() {
    let k = 512;
    for path in paths() {
        for (a, b) in [(1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)] {
            let (x, w) = (vec![a; 3 * k], vec![b; 20 * k]);
            for format in Format::ALL {
                let packed = Packed::pack(Rows::F32(&w), [20, k], format).unwrap();
                let options = Options {
                    path: Some(path),
                    ..Options::default()
                };
                for y in multiply(&x, 3, Weights::Packed(&packed), options) {
                    let error = (y - a * b * k as f32).abs() / k as f32;
                    assert!(error < 1e-3, "{path:?} {format:?}: {y}");
                }
            }
        }
    }
}

#[test]
fn what_is_not_finite_stays_so() {
    for path in paths() {
        for m in [1, FEW_ROWS + 4] {
            let (n, k) = (18, 70);
            let mut x = noise(m * k, 5);
            x[3] = f32::NAN;
            let last = m * k - 1;
            x[last] = f32::INFINITY;
            let w = vec![1.0; n * k];
            for format in Format::ALL {
                let packed = Packed::pack(Rows::F32(&w), [n, k], format).unwrap();
                let options = Options {
                    path: Some(path),
                    ..Options::default()
                };
                let y = multiply(&x, m, Weights::Packed(&packed), options);
                for (row, y) in y.chunks(n).enumerate() {
                    let finite = row != 0 && row != m - 1;
                    let right = y.iter().all(|y| y.is_finite() == finite);
                    assert!(right, "{path:?} {format:?} row {row}: {y:?}");
                }
            }
        }
    }
}

#[test]
fn nothing_times_nothing() {
    for path in paths() {
        let options = Options {
            path: Some(path),
            ..Options::default()
        };
        let run = |m: usize, [n, k]: [usize; 2], bias: Option<&[f32]>| {
            let w = vec![1f32; n * k];
            let options = Options { bias, ..options };
            multiply(
                &vec![1.0; m * k],
                m,
                Weights::Rows(Rows::F32(&w), [n, k]),
                options,
            )
        };
        assert!(run(0, [3, 4], None).is_empty());
        assert!(run(2, [0, 4], None).is_empty());
        assert_eq!(run(2, [2, 0], None), [0.0; 4]);
        assert_eq!(run(2, [2, 0], Some(&[1.0, 2.0])), [1.0, 2.0, 1.0, 2.0]);
    }
}

/// Rows as they lie in a file give what packed ones give, to the bit.
#[test]
fn rows_are_packed_on_the_way() {
    for path in paths() {
        for [m, n, k] in SHAPES {
            let (x, w) = (noise(m * k, 6), noise(n * k, 7));
            let short: Vec<bf16> = w.iter().map(|w| bf16::from_f32(*w)).collect();
            let half: Vec<f16> = w.iter().map(|w| f16::from_f32(*w)).collect();
            for (rows, format) in [
                (Rows::F32(&w), Format::F32),
                (Rows::Bf16(&short), Format::Bf16),
                (Rows::F16(&half), Format::F32),
            ] {
                let packed = Packed::pack(rows, [n, k], format).unwrap();
                let options = Options {
                    path: Some(path),
                    ..Options::default()
                };
                let a = multiply(&x, m, Weights::Packed(&packed), options);
                let b = multiply(&x, m, Weights::Rows(rows, [n, k]), options);
                assert_eq!(a, b, "{path:?} {format:?} [{m}, {n}, {k}]");
            }
        }
    }
}

/// More panels than are packed at a time.
#[test]
fn long_matrices_are_packed_in_pieces() {
    let [m, n, k] = [20, 2100, 4100];
    let (x, w) = (noise(m * k, 8), noise(n * k, 9));
    let rows = Rows::F32(&w);
    let packed = Packed::pack(rows, [n, k], Format::F32).unwrap();
    // How many pieces there are depends on the number of threads.
    let threads = rayon::ThreadPoolBuilder::new().num_threads(2);
    let [y, whole] = threads.build().unwrap().install(|| {
        [Weights::Rows(rows, [n, k]), Weights::Packed(&packed)]
            .map(|weights| multiply(&x, m, weights, Options::default()))
    });
    assert_eq!(y, whole);
    for (i, j) in [(0, 0), (19, 2099), (7, 1030), (13, 2047)] {
        let (x, w) = (&x[i * k..][..k], &w[j * k..][..k]);
        let exact: f64 = x
            .iter()
            .zip(w)
            .map(|(x, w)| f64::from(*x) * f64::from(*w))
            .sum();
        assert!((f64::from(y[i * n + j]) - exact).abs() < 1e-3);
    }
}

/// Bytes that become fewer after they were counted are no reason to read what was never written.
#[test]
#[should_panic(expected = "a packed weight of another size")]
fn bytes_that_change_are_refused() {
    struct Fewer(Vec<u8>, AtomicUsize);
    impl AsRef<[u8]> for Fewer {
        fn as_ref(&self) -> &[u8] {
            match self.1.fetch_add(1, Ordering::Relaxed) {
                0 => &self.0,
                _ => &[],
            }
        }
    }
    let bytes = Format::F32.bytes([20, 3]).unwrap();
    let fewer = Fewer(vec![0; bytes], AtomicUsize::new(0));
    let packed = Packed::from_bytes(fewer, [20, 3], Format::F32).unwrap();
    let _ = multiply(&[1.0; 3], 1, Weights::Packed(&packed), Options::default());
}

/// Guessed tokens are checked together: their scores must be those that one at a time gives.
#[test]
fn few_rows_do_not_depend_on_each_other() {
    for path in paths() {
        let (n, k) = (50, 1300);
        let (x, w) = (noise(FEW_ROWS * k, 10), noise(n * k, 11));
        for format in Format::ALL {
            let packed = Packed::pack(Rows::F32(&w), [n, k], format).unwrap();
            let options = Options {
                path: Some(path),
                ..Options::default()
            };
            let single: Vec<f32> = x
                .chunks(k)
                .flat_map(|x| multiply(x, 1, Weights::Packed(&packed), options))
                .collect();
            for m in 1..=FEW_ROWS {
                let y = multiply(&x[..m * k], m, Weights::Packed(&packed), options);
                assert_eq!(y, single[..m * n], "{path:?} {format:?} {m} rows");
            }
        }
    }
}

#[test]
fn bias_and_activation_come_last() {
    let finish = |y: &mut [f32]| y.iter_mut().for_each(|y| *y = y.max(0.0));
    for path in paths() {
        for [m, n, k] in SHAPES {
            let (x, w, bias) = (noise(m * k, 12), noise(n * k, 13), noise(n, 14));
            let weights = Weights::Rows(Rows::F32(&w), [n, k]);
            let plain = Options {
                path: Some(path),
                ..Options::default()
            };
            let mut expected = multiply(&x, m, weights, plain);
            for row in expected.chunks_mut(n) {
                row.iter_mut()
                    .zip(&bias)
                    .for_each(|(y, b)| *y = (*y + b).max(0.0));
            }
            let all = Options {
                bias: Some(&bias),
                finish: Some(&finish),
                ..plain
            };
            assert_eq!(multiply(&x, m, weights, all), expected, "{path:?}");
        }
    }
}

/// The same on one thread as on all.
#[test]
fn threads_change_nothing() {
    let [m, n, k] = [40, 700, 600];
    let (x, w) = (noise(m * k, 15), noise(n * k, 16));
    for format in Format::ALL {
        let packed = Packed::pack(Rows::F32(&w), [n, k], format).unwrap();
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| multiply(&x, m, Weights::Packed(&packed), Options::default()))
        };
        assert_eq!(on(1), on(3), "{format:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_shape_on_any_path(m in 0usize..40, n in 0usize..70, k in 0usize..600, seed in any::<u64>()) {
        let (x, w) = (noise(m * k, seed), noise(n * k, seed.wrapping_add(1)));
        for format in Format::ALL {
            let packed = Packed::pack(Rows::F32(&w), [n, k], format).unwrap();
            let expected = with_bounds(&x, &packed.to_rows(), [m, n, k]);
            let exact: Vec<f64> = expected.iter().map(|(y, _)| *y).collect();
            for path in paths() {
                let options = Options { path: Some(path), ..Options::default() };
                let y = multiply(&x, m, Weights::Packed(&packed), options);
                prop_assert_eq!(y.len(), m * n);
                let worst = match format {
                    Format::F32 | Format::Bf16 => worst_share(&y, &expected),
                    Format::Int8 | Format::Int4 => deviation(&y, &exact, k) / INT8_ACTIVATIONS,
                };
                prop_assert!(worst < 1.0, "{:?} {:?}: {}", path, format, worst);
            }
        }
    }

    /// Whatever lies in a file of the right size is a matrix, and no product of it fails.
    #[test]
    fn any_bytes_are_a_matrix(bytes in prop::collection::vec(any::<u8>(), 4096 + 64), path in 0usize..7) {
        let path = Path::ALL[path];
        if path.is_available() {
            let packed = Packed::from_bytes(bytes, [16, 256], Format::Int8).unwrap();
            let options = Options { path: Some(path), ..Options::default() };
            let y = multiply(&[1.0; 256], 1, Weights::Packed(&packed), options);
            prop_assert_eq!(y.len(), 16);
        }
    }
}
