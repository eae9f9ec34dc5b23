//! Times forward and backward passes of networks made of this crate's layers.
//!
//! ```text
//! cargo run --release -p opabinia-nn --example train_step -- decoder|vit|convnext|windows [generic] [one]
//! ```
//!
//! Each figure is the best of several steps without an optimizer: once on all threads of the
//! machine, once as workers of one thread each with their share of the batch, as training runs.
//! `generic` leaves the differentiable CPU kernels out, `one` stops after the first worker.

#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark for developers"
)]

use std::time::Instant;

use burn::module::{Module, ModuleMapper, Param};
use burn::prelude::*;
use opabinia_nn::attention::{merge_heads, split_heads};
use opabinia_nn::conv::ConvShape;
use opabinia_nn::{
    Activation, AttentionMask, Conv2d, Embedding, GatedMlp, LayerNorm, Linear, Mlp, PatchEmbed,
    RmsNorm, Rotary, attention, cross_entropy, grad,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A decoder of 20M parameters in the shape of Llama.
const HIDDEN: usize = 384;
const LAYERS: usize = 8;
const HEADS: usize = 6;
const INTERMEDIATE: usize = 1024;
const VOCAB: usize = 8192;
const LENGTH: usize = 256;

#[derive(Module, Debug)]
struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
}

impl Attention {
    fn new(d: usize, bias: bool, device: &Device) -> Self {
        let linear = || Linear::new(d, d, bias, device);
        Self {
            q: linear(),
            k: linear(),
            v: linear(),
            o: linear(),
        }
    }
}

#[derive(Module, Debug)]
struct DecoderLayer {
    norm1: RmsNorm,
    attention: Attention,
    norm2: RmsNorm,
    mlp: GatedMlp,
}

#[derive(Module, Debug)]
struct Decoder {
    embed: Embedding,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    head: Linear,
}

impl Decoder {
    fn new(device: &Device) -> Self {
        let layer = |_| DecoderLayer {
            norm1: RmsNorm::new(HIDDEN, 1e-5, device),
            attention: Attention::new(HIDDEN, false, device),
            norm2: RmsNorm::new(HIDDEN, 1e-5, device),
            mlp: GatedMlp::new(HIDDEN, INTERMEDIATE, Activation::Silu, device),
        };
        Self {
            embed: Embedding::new(VOCAB, HIDDEN, device),
            layers: (0..LAYERS).map(layer).collect(),
            norm: RmsNorm::new(HIDDEN, 1e-5, device),
            head: Linear::new(HIDDEN, VOCAB, false, device),
        }
    }

    fn loss(&self, batch: usize, device: &Device) -> Tensor<1> {
        let ids: Vec<i32> = (0..batch * LENGTH)
            .map(|i| (i * 2_654_435_761 % VOCAB) as i32)
            .collect();
        let table =
            Rotary::new(HIDDEN / HEADS, 10_000.0, None).table(&[(0..LENGTH).collect()], device);
        let x = self
            .embed
            .forward(Tensor::from_data(ids.as_slice(), device));
        let mut x = x.reshape([batch, LENGTH, HIDDEN]);
        for layer in &self.layers {
            let rotated = |x: Tensor<3>| {
                let x = x.reshape([batch, LENGTH, HEADS, HIDDEN / HEADS]);
                table.rotate(x).swap_dims(1, 2)
            };
            let net = &layer.attention;
            let y = layer.norm1.forward(x.clone());
            let q = rotated(net.q.forward(y.clone()));
            let k = rotated(net.k.forward(y.clone()));
            let v = split_heads(net.v.forward(y), HEADS);
            let y = merge_heads(attention(q, k, v, &AttentionMask::Causal));
            x = x + net.o.forward(y);
            x = x.clone() + layer.mlp.forward(layer.norm2.forward(x));
        }
        let x = self.norm.forward(x).reshape([batch * LENGTH, HIDDEN]);
        let logits = self.head.forward(x);
        let targets: Vec<u32> = (0..ids.len()).map(|i| (i * 7 % VOCAB) as u32).collect();
        cross_entropy(logits, &targets).mean()
    }
}

#[derive(Module, Debug)]
struct VitBlock {
    norm1: LayerNorm,
    attention: Attention,
    norm2: LayerNorm,
    mlp: Mlp,
}

#[derive(Module, Debug)]
struct Vit {
    embed: PatchEmbed,
    blocks: Vec<VitBlock>,
    norm: LayerNorm,
}

/// Patches of 8 px on pictures of 128 px.
const SIDE: usize = 128;
const PATCH: usize = 8;
const VIT_WIDTH: usize = 192;
const VIT_HEADS: usize = 6;
const VIT_LAYERS: usize = 6;

impl Vit {
    fn new(device: &Device) -> Self {
        let norm = || LayerNorm::new(VIT_WIDTH, 1e-6, device);
        let block = |_| VitBlock {
            norm1: norm(),
            attention: Attention::new(VIT_WIDTH, true, device),
            norm2: norm(),
            mlp: Mlp::new(
                VIT_WIDTH,
                4 * VIT_WIDTH,
                VIT_WIDTH,
                Activation::Gelu,
                device,
            ),
        };
        Self {
            embed: PatchEmbed::new(3, VIT_WIDTH, PATCH, true, device),
            blocks: (0..VIT_LAYERS).map(block).collect(),
            norm: norm(),
        }
    }

    fn loss(&self, batch: usize, device: &Device) -> Tensor<1> {
        let pixels = Tensor::<4>::ones([batch, 3, SIDE, SIDE], device);
        let mut x = self.embed.forward(pixels);
        for block in &self.blocks {
            let net = &block.attention;
            let y = block.norm1.forward(x.clone());
            let heads = |layer: &Linear| split_heads(layer.forward(y.clone()), VIT_HEADS);
            let y = attention(
                heads(&net.q),
                heads(&net.k),
                heads(&net.v),
                &AttentionMask::None,
            );
            x = x + net.o.forward(merge_heads(y));
            x = x.clone() + block.mlp.forward(block.norm2.forward(x));
        }
        self.norm.forward(x).square().mean()
    }
}

/// Depths and widths of a small ConvNeXt on pictures of 256 px.
const DEPTHS: [usize; 4] = [2, 2, 4, 2];
const DIMS: [usize; 4] = [32, 64, 128, 256];
const CONV_SIDE: usize = 256;

#[derive(Module, Debug)]
struct ConvBlock {
    mix: Conv2d,
    norm: LayerNorm,
    mlp: Mlp,
    gamma: Param<Tensor<1>>,
}

#[derive(Module, Debug)]
struct ConvStage {
    norm: LayerNorm,
    down: Option<PatchEmbed>,
    blocks: Vec<ConvBlock>,
}

#[derive(Module, Debug)]
struct ConvNext {
    stem: PatchEmbed,
    stages: Vec<ConvStage>,
}

impl Network for ConvNext {
    fn new(device: &Device) -> Self {
        let block = |d: usize| ConvBlock {
            mix: Conv2d::new(
                ConvShape {
                    d_in: d,
                    d_out: d,
                    kernel: 7,
                    stride: 1,
                    padding: 3,
                    groups: d,
                },
                true,
                device,
            ),
            norm: LayerNorm::new(d, 1e-6, device),
            mlp: Mlp::new(d, 4 * d, d, Activation::Gelu, device),
            gamma: Param::from_tensor(Tensor::full([d], 1e-6, device)),
        };
        let stage = |i: usize| ConvStage {
            norm: LayerNorm::new(DIMS[i.saturating_sub(1)], 1e-6, device),
            down: (i > 0).then(|| PatchEmbed::new(DIMS[i - 1], DIMS[i], 2, true, device)),
            blocks: (0..DEPTHS[i]).map(|_| block(DIMS[i])).collect(),
        };
        Self {
            stem: PatchEmbed::new(3, DIMS[0], 4, true, device),
            stages: (0..4).map(stage).collect(),
        }
    }

    fn loss(&self, batch: usize, device: &Device) -> Tensor<1> {
        let pixels = Tensor::<4>::ones([batch, 3, CONV_SIDE, CONV_SIDE], device);
        let x = self.stem.forward(pixels);
        let mut x = x.reshape([batch, CONV_SIDE / 4, CONV_SIDE / 4, DIMS[0]]);
        for stage in &self.stages {
            x = stage.norm.forward(x);
            if let Some(down) = &stage.down {
                x = down.forward_channels_last(x);
            }
            for block in &stage.blocks {
                let y = block.norm.forward(block.mix.depthwise(x.clone()));
                x = x + block.mlp.forward(y) * block.gamma.val().unsqueeze();
            }
        }
        x.square().mean()
    }
}

/// Queries of a connector over windows of several encoders, in the shape of the spatial vision
/// aggregator: every query has keys and values of its own.
const QUERIES: usize = 144;
const WINDOW: usize = 17;
const WINDOW_WIDTH: usize = 128;
const WINDOW_HEADS: usize = 16;

#[derive(Module, Debug)]
struct WindowLayer {
    norm: LayerNorm,
    attention: Attention,
    key_norm: LayerNorm,
    out_norm: LayerNorm,
    mlp: Mlp,
}

#[derive(Module, Debug)]
struct Windows {
    queries: Param<Tensor<2>>,
    layers: Vec<WindowLayer>,
}

impl Network for Windows {
    fn new(device: &Device) -> Self {
        let d = WINDOW_WIDTH;
        let norm = || LayerNorm::new(d, 1e-5, device);
        let layer = |_| WindowLayer {
            norm: norm(),
            attention: Attention::new(d, false, device),
            key_norm: norm(),
            out_norm: norm(),
            mlp: Mlp::with_bias(d, d, d, Activation::Gelu, false, device),
        };
        Self {
            queries: Param::from_tensor(Tensor::ones([QUERIES, d], device)),
            layers: (0..3).map(layer).collect(),
        }
    }

    fn loss(&self, batch: usize, device: &Device) -> Tensor<1> {
        let (n, d) = (batch * QUERIES, WINDOW_WIDTH);
        let latents = Tensor::<3>::ones([n, WINDOW, d], device);
        let mut x = self.queries.val().repeat_dim(0, batch);
        for layer in &self.layers {
            let net = &layer.attention;
            let keys = layer.key_norm.forward(latents.clone());
            let heads = |x: Tensor<3>| split_heads(x, WINDOW_HEADS);
            let q = net
                .q
                .forward(layer.norm.forward(x.clone()))
                .unsqueeze_dim::<3>(1);
            let (k, v) = (net.k.forward(keys.clone()), net.v.forward(keys));
            let seen = attention(heads(q), heads(k), heads(v), &AttentionMask::None);
            let seen = net.o.forward(seen.reshape([n, d]));
            x = layer.mlp.forward(layer.out_norm.forward(x.clone() + seen)) + x;
        }
        x.square().mean()
    }
}

trait Network: Module + Clone + Send + 'static {
    fn new(device: &Device) -> Self;
    fn loss(&self, batch: usize, device: &Device) -> Tensor<1>;
}

impl Network for Decoder {
    fn new(device: &Device) -> Self {
        Self::new(device)
    }
    fn loss(&self, batch: usize, device: &Device) -> Tensor<1> {
        self.loss(batch, device)
    }
}

impl Network for Vit {
    fn new(device: &Device) -> Self {
        Self::new(device)
    }
    fn loss(&self, batch: usize, device: &Device) -> Tensor<1> {
        self.loss(batch, device)
    }
}

/// Gives every worker parameters of its own: graphs that share a leaf wait for each other.
struct OwnLeaves;

impl ModuleMapper for OwnLeaves {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|x| Tensor::from_inner(x.inner()).require_grad())
    }
}

/// Seconds that this thread has been running, where the system says so: steadier than the clock on
/// a machine that others use.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = stat.split_whitespace().next().and_then(|n| n.parse().ok());
    nanoseconds.unwrap_or(0.0) * 1e-9
}

/// Seconds on the clock and of this thread of the best of `steps` steps.
fn best_step<N: Network>(net: &N, batch: usize, steps: usize) -> [f64; 2] {
    let generic = std::env::args().any(|argument| argument == "generic");
    if generic {
        grad::without_kernels(|| time_steps(net, batch, steps))
    } else {
        time_steps(net, batch, steps)
    }
}

fn time_steps<N: Network>(net: &N, batch: usize, steps: usize) -> [f64; 2] {
    let device = Device::flex().autodiff();
    let mut best = [f64::MAX; 2];
    for _ in 0..steps {
        let (start, cpu_start) = (Instant::now(), cpu_seconds());
        let _gradients = net.loss(batch, &device).backward();
        let step = [start.elapsed().as_secs_f64(), cpu_seconds() - cpu_start];
        best = std::array::from_fn(|i| best[i].min(step[i]));
    }
    best
}

/// Steps of workers with one thread each; the slowest worker's.
fn best_of_workers<N: Network>(net: &N, workers: usize, batch: usize) -> [f64; 2] {
    let threads: Vec<_> = (0..workers)
        .map(|_| {
            let net = net.clone().map(&mut OwnLeaves);
            std::thread::spawn(move || {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(1)
                    .build()
                    .unwrap();
                pool.install(move || best_step(&net, batch, 6))
            })
        })
        .collect();
    threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .fold([0.0; 2], |a, b| std::array::from_fn(|i| a[i].max(b[i])))
}

fn measure<N: Network>(batch: usize, per_sample: usize, unit: &str) {
    let device = Device::flex().autodiff();
    let net = N::new(&device);
    println!("{} parameters", net.num_params());
    let rate = |batch: usize, seconds: f64| (batch * per_sample) as f64 / seconds;
    let [_, cpu] = best_of_workers(&net, 1, batch / 2);
    println!(
        "one worker of one thread: {cpu:.3} s of the thread, {:.0} {unit}/s",
        rate(batch / 2, cpu)
    );
    if std::env::args().any(|argument| argument == "one") {
        return;
    }
    let [whole, _] = best_step(&net, batch, 5);
    println!(
        "all threads: {whole:.3} s, {:.0} {unit}/s",
        rate(batch, whole)
    );
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let [clock, cpu] = best_of_workers(&net, workers, batch / workers);
    println!(
        "{workers} workers of one thread: {clock:.3} s, {:.0} {unit}/s; {cpu:.3} s of a thread",
        rate(batch, clock)
    );
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let run = || match arguments.first().map(String::as_str) {
        Some("decoder") => measure::<Decoder>(8, LENGTH, "tokens"),
        Some("vit") => measure::<Vit>(16, 1, "pictures"),
        Some("convnext") => measure::<ConvNext>(8, 1, "pictures"),
        Some("windows") => measure::<Windows>(8, 1, "pictures"),
        _ => println!("decoder, vit, convnext or windows?"),
    };
    run();
}
