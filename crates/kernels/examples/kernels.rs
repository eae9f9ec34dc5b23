//! How fast the products are, as shares of what this processor can do: measured in one run.
//!
//! ```sh
//! cargo run --release -p opabinia-kernels --example kernels -- [SUBSTRING]
//! ```
//!
//! The limits are measured, too: register-only loops for the arithmetic, a sum over a gigabyte for memory.
//! Beside each shape stands the same product by Burn's CPU backend, in turns with ours.

#![allow(clippy::print_stdout, reason = "a program that prints a table")]

use std::hint::black_box;
use std::time::Instant;

use burn::prelude::*;
use opabinia_kernels::{
    Activations, Format, Options, Packed, Path, Rows, Weights, limits, multiply,
};

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
    let peak = limits::arithmetic(Path::best(), Format::F32, Activations::Exact);
    let (peak, bandwidth) = (
        peak.unwrap_or(f64::NAN) / 1e9,
        limits::reading(1 << 30) / 1e9,
    );
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
