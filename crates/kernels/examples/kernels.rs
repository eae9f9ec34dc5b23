//! How fast the products are, as shares of what this processor can do: measured in one run.
//!
//! ```sh
//! cargo run --release -p opabinia-kernels --example kernels -- [SUBSTRING]
//! ```
//!
//! Peaks are measured, too: register-only loops for the arithmetic, a sum over a gigabyte for memory.
//! Beside each shape stands the same product by Burn's CPU backend, in turns with ours.

#![allow(unsafe_code, reason = "loops of bare instructions, for the peaks")]
#![allow(clippy::print_stdout, reason = "a program that prints a table")]

use std::hint::black_box;
use std::time::Instant;

use burn::prelude::*;
use opabinia_kernels::{Format, Options, Packed, Path, Rows, Weights, multiply};
use rayon::prelude::*;

/// Name, rows, outputs, inputs.
const SHAPES: [(&str, usize, usize, usize); 10] = [
    ("vit-l qkv", 577, 1024, 1024),
    ("vit-l fc1", 577, 4096, 1024),
    ("vit-l fc2", 577, 1024, 4096),
    ("dinov2-g fc1", 729, 4096, 1536),
    ("convnext fc1", 65536 / 16, 1536, 384),
    ("convnext fc2", 65536 / 16, 384, 1536),
    ("8b qkv prefill", 700, 4096, 4096),
    ("8b mlp prefill", 700, 14336, 4096),
    ("8b qkv token", 1, 4096, 4096),
    ("8b mlp token", 1, 14336, 4096),
];

fn main() {
    let only = std::env::args().nth(1).unwrap_or_default();
    let threads = rayon::current_num_threads();
    let (peak, bandwidth) = (peak_gflops(), bandwidth());
    println!(
        "{} threads, {}; f32 peak {peak:.0} GFLOP/s, memory {bandwidth:.1} GB/s\n",
        threads,
        Path::best().name()
    );
    println!(
        "| what | m | n | k | weights | time | GFLOP/s | of f32 peak | GB/s | of memory | flex |"
    );
    println!("|---|--:|--:|--:|---|--:|--:|--:|--:|--:|--:|");
    for (name, m, n, k) in SHAPES {
        if !name.contains(&only) {
            continue;
        }
        let x = values(m * k);
        let w = values(n * k);
        // Enough copies of the weights that no cache holds them, where they are what counts.
        let copies = if m == 1 {
            (1usize << 30).div_ceil(n * k * 4).max(2)
        } else {
            1
        };
        let flex = time_flex(&x, &w, [m, n, k]);
        let short: Vec<half::bf16> = w.iter().map(|w| half::bf16::from_f32(*w)).collect();
        for format in Format::ALL {
            let packed: Vec<Packed> = (0..copies)
                .map(|_| Packed::pack(Rows::F32(&w), [n, k], format).expect("finite"))
                .collect();
            let mut next = (0..copies).cycle();
            let seconds = median(|| {
                let weights = Weights::Packed(&packed[next.next().unwrap_or(0)]);
                black_box(multiply(&x, m, weights, Options::default()));
            });
            row(
                name,
                [m, n, k],
                format.name(),
                seconds,
                packed[0].as_bytes().len(),
                (peak, bandwidth),
                flex,
            );
        }
        for (label, rows, bytes) in [
            ("f32 rows", Rows::F32(&w), 4),
            ("bf16 rows", Rows::Bf16(&short), 2),
        ] {
            if m > 1 {
                let seconds = median(|| {
                    black_box(multiply(
                        &x,
                        m,
                        Weights::Rows(rows, [n, k]),
                        Options::default(),
                    ));
                });
                row(
                    name,
                    [m, n, k],
                    label,
                    seconds,
                    n * k * bytes,
                    (peak, bandwidth),
                    flex,
                );
            }
        }
    }
}

fn row(
    name: &str,
    [m, n, k]: [usize; 3],
    format: &str,
    seconds: f64,
    bytes: usize,
    (peak, bandwidth): (f64, f64),
    flex: f64,
) {
    let gflops = 2.0 * (m * n * k) as f64 / seconds / 1e9;
    let read = bytes as f64 / seconds / 1e9;
    println!(
        "| {name} | {m} | {n} | {k} | {format} | {:.2} ms | {gflops:.0} | {:.0} % | {read:.1} | {:.0} % | {:.2} × |",
        seconds * 1e3,
        100.0 * gflops / peak,
        100.0 * read / bandwidth,
        flex / seconds
    );
}

fn values(count: usize) -> Vec<f32> {
    (0..count)
        .map(|i| ((i * 2_654_435_761) % 1999) as f32 / 1000.0 - 1.0)
        .collect()
}

/// Median of enough runs for half a second, after one to warm up.
fn median(mut f: impl FnMut()) -> f64 {
    f();
    let (start, mut times) = (Instant::now(), Vec::new());
    while times.len() < 3 || start.elapsed().as_secs_f64() < 0.5 {
        let start = Instant::now();
        f();
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn time_flex(x: &[f32], w: &[f32], [m, n, k]: [usize; 3]) -> f64 {
    let device = Device::flex();
    let tensor = |values: &[f32], shape: [usize; 2]| {
        Tensor::<2>::from_data(TensorData::new(values.to_vec(), shape), &device)
    };
    let (x, w) = (tensor(x, [m, k]), tensor(w, [n, k]));
    median(|| {
        black_box(x.clone().matmul(w.clone().transpose()));
    })
}

/// Sum of what all threads reach in registers.
fn peak_gflops() -> f64 {
    let mut best = 0f64;
    for _ in 0..5 {
        let start = Instant::now();
        let flops: f64 = (0..rayon::current_num_threads())
            .into_par_iter()
            .map(|_| fma_loop(4_000_000))
            .sum();
        best = best.max(flops / start.elapsed().as_secs_f64() / 1e9);
    }
    best
}

#[cfg(target_arch = "x86_64")]
fn fma_loop(rounds: usize) -> f64 {
    use std::arch::x86_64::*;
    #[target_feature(enable = "avx512f")]
    fn wide(rounds: usize) -> f64 {
        let mut sums = [_mm512_setzero_ps(); 16];
        let (a, b) = (
            _mm512_set1_ps(black_box(0.5)),
            _mm512_set1_ps(black_box(0.25)),
        );
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(a, b, *sum);
            }
        }
        black_box(sums);
        (rounds * 16 * 16 * 2) as f64
    }
    #[target_feature(enable = "avx2,fma")]
    fn narrow(rounds: usize) -> f64 {
        let mut sums = [_mm256_setzero_ps(); 12];
        let (a, b) = (
            _mm256_set1_ps(black_box(0.5)),
            _mm256_set1_ps(black_box(0.25)),
        );
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(a, b, *sum);
            }
        }
        black_box(sums);
        (rounds * 12 * 8 * 2) as f64
    }
    if Path::Avx512.is_available() {
        // SAFETY: the processor has it.
        unsafe { wide(rounds) }
    } else if Path::Avx2.is_available() {
        // SAFETY: the processor has it.
        unsafe { narrow(rounds) }
    } else {
        plain_loop(rounds)
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn fma_loop(rounds: usize) -> f64 {
    plain_loop(rounds)
}

fn plain_loop(rounds: usize) -> f64 {
    let mut sums = [0f32; 64];
    let (a, b) = (black_box(0.5f32), black_box(0.25f32));
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum += a * b;
        }
        black_box(&mut sums);
    }
    (rounds * 64 * 2) as f64
}

/// Bytes per second that all threads together read, once through a gigabyte.
fn bandwidth() -> f64 {
    let memory = vec![1u64; 1 << 27];
    let part = memory.len() / rayon::current_num_threads();
    let mut best = 0f64;
    for _ in 0..5 {
        let start = Instant::now();
        let sum: u64 = memory
            .par_chunks(part)
            .map(|part| {
                let mut sums = [0u64; 32];
                for part in part.as_chunks::<32>().0 {
                    for (sum, value) in sums.iter_mut().zip(part) {
                        *sum ^= value;
                    }
                }
                sums.iter().sum::<u64>()
            })
            .sum();
        black_box(sum);
        best = best.max(memory.len() as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e9);
    }
    best
}
