//! Gradients of every operation against Burn's operators and against finite differences.

use burn::tensor::{Distribution, Gradients};
use proptest::prelude::*;

use super::without_kernels;
use crate::conv::ConvShape;
use crate::resample::{Taps, bilinear};
use crate::{
    Activation, AttentionMask, Conv2d, Embedding, LayerNorm, Linear, RmsNorm, Rotary, attention,
    cross_entropy,
};
use burn::module::Param;
use burn::prelude::*;

fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex())
}

fn leaf<const D: usize>(x: &Tensor<D>) -> Tensor<D> {
    Tensor::from_inner(x.clone()).require_grad()
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.without_autodiff().into_data().try_to_vec().unwrap()
}

fn grad_of<const D: usize>(x: &Tensor<D>, gradients: &Gradients) -> Vec<f32> {
    values(x.grad(gradients).expect("a gradient"))
}

/// Scalars that weigh every output differently.
fn weighed<const D: usize>(y: Tensor<D>) -> Tensor<1> {
    let count = y.dims().iter().product::<usize>();
    let weights: Vec<f32> = (0..count)
        .map(|i| ((i * 37 % 101) as f32) / 50.0 - 1.0)
        .collect();
    let weights = Tensor::<1>::from_floats(weights.as_slice(), &Device::flex()).reshape(y.dims());
    (y * Tensor::from_inner(weights)).sum()
}

/// `(output, gradients…)` with the kernels and without them, side by side.
fn compare(tolerance: f32, mut run: impl FnMut() -> Vec<Vec<f32>>) {
    let (ours, burns) = (run(), without_kernels(&mut run));
    assert_eq!(ours.len(), burns.len());
    for (which, (ours, burns)) in ours.iter().zip(&burns).enumerate() {
        assert_eq!(ours.len(), burns.len(), "{which}");
        let largest = burns.iter().fold(1f32, |a, b| a.max(b.abs()));
        for (i, (a, b)) in ours.iter().zip(burns).enumerate() {
            assert!(
                (a - b).abs() <= tolerance * largest,
                "value {i} of result {which}: {a}, not {b}"
            );
        }
    }
}

/// Four positions that all see, and questions of twenty that see themselves: `[1, 1, t, s]`.
fn questions(t: usize, s: usize) -> Tensor<4, Bool> {
    let one =
        |query: usize| (0..s).map(move |key| key > query || (key >= 4 && key / 20 != query / 20));
    let hidden: Vec<bool> = (0..t).flat_map(one).collect();
    Tensor::from_data(TensorData::new(hidden, [1, 1, t, s]), &Device::flex())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn linear(rows in 1usize..70, d_in in 1usize..40, d_out in 1usize..40, bias in any::<bool>()) {
        let (x, w, b) = (random([rows, 1, d_in]), random([d_out, d_in]), random([d_out]));
        compare(1e-5, || {
            let (x, w, b) = (leaf(&x), leaf(&w), leaf(&b));
            let layer = Linear {
                weight: Param::from_tensor(w.clone()),
                bias: bias.then(|| Param::from_tensor(b.clone())),
                lora: None,
                packed: crate::packed::PackedSlot::default(),
            };
            let (w, b) = (layer.weight.val(), layer.bias.as_ref().map(Param::val));
            let y = layer.forward(x.clone());
            let gradients = weighed(y.clone()).backward();
            let mut all = vec![values(y), grad_of(&x, &gradients), grad_of(&w, &gradients)];
            all.extend(b.map(|b| grad_of(&b, &gradients)));
            all
        });
    }

    #[test]
    fn activations(count in 1usize..300, which in 0usize..5) {
        let act = [
            Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu, Activation::Silu,
            Activation::Relu,
        ][which];
        let (x, up) = (random([count]) * 3.0, random([count]));
        compare(3e-6, || {
            let (x, up) = (leaf(&x), leaf(&up));
            let y = act.forward(x.clone());
            let alone = weighed(y.clone()).backward();
            let z = act.gated(x.clone(), up.clone());
            let both = weighed(z.clone()).backward();
            vec![
                values(y), grad_of(&x, &alone), values(z), grad_of(&x, &both), grad_of(&up, &both),
            ]
        });
    }

    #[test]
    fn norms(rows in 1usize..40, d in 1usize..150, offset in any::<bool>()) {
        let (x, w, b) = (random([rows, d]), random([d]), random([d]));
        let mut rms = if offset {
            RmsNorm::with_unit_offset(d, 1e-5, &Device::flex())
        } else {
            RmsNorm::new(d, 1e-5, &Device::flex())
        };
        let mut layer = LayerNorm::new(d, 1e-3, &Device::flex());
        compare(2e-4, || {
            let x = leaf(&x);
            rms.weight = Param::from_tensor(leaf(&w));
            layer.weight = Param::from_tensor(leaf(&w));
            layer.bias = Param::from_tensor(leaf(&b));
            let y = rms.forward(x.clone());
            let of_rms = weighed(y.clone()).backward();
            let z = layer.forward(x.clone());
            let of_layer = weighed(z.clone()).backward();
            vec![
                values(y), grad_of(&x, &of_rms), grad_of(&rms.weight.val(), &of_rms),
                values(z), grad_of(&x, &of_layer), grad_of(&layer.weight.val(), &of_layer),
                grad_of(&layer.bias.val(), &of_layer),
            ]
        });
    }

    /// Rows of a batch at positions of their own, or one row for all.
    #[test]
    fn rotation(b in 1usize..4, t in 1usize..6, heads in 1usize..4, half in 1usize..9, own in any::<bool>()) {
        let x = random([b, t, heads, 2 * half]);
        let rows = if own { b } else { 1 };
        let positions: Vec<Vec<usize>> = (0..rows).map(|r| (7 * r..7 * r + t).collect()).collect();
        compare(1e-5, || {
            let x = leaf(&x);
            let table = Rotary::new(2 * half, 100.0, None)
                .table(&positions, &Device::flex().autodiff());
            let y = table.rotate(x.clone());
            let gradients = weighed(y.clone()).backward();
            vec![values(y), grad_of(&x, &gradients)]
        });
    }

    /// Grouped heads, strided inputs, every kind of mask, rows that see nothing and keys that whole blocks
    /// do not see among them.
    #[test]
    fn attention_of_every_kind(
        b in 1usize..3, kv in 1usize..3, group in 1usize..4,
        t in 1usize..80, extra in 0usize..20, kind in 0usize..4, d in 1usize..20,
    ) {
        let s = t + extra;
        let q = random([b, t, kv * group, d]);
        let (k, v) = (random([b, s, kv, d]), random([b, kv, s, d]));
        let hidden = Tensor::<4>::random([b, 1, t, s], Distribution::Default, &Device::flex())
            .greater_elem(0.4);
        // The first query sees nothing.
        let first = Tensor::<1, Int>::arange(0..t as i64, &Device::flex())
            .reshape([1, 1, t, 1]).expand([b, 1, t, s]).equal_elem(0);
        let hidden = if kind == 3 { questions(t, s).expand([b, 1, t, s]) } else { hidden.bool_or(first) };
        compare(2e-5, || {
            let (q, k, v) = (leaf(&q), leaf(&k), leaf(&v));
            let mask = match kind {
                0 => AttentionMask::None,
                1 => AttentionMask::Causal,
                _ => AttentionMask::Hidden(hidden.clone().autodiff()),
            };
            let y = attention(
                q.clone().swap_dims(1, 2), k.clone().swap_dims(1, 2), v.clone(), &mask);
            let seen = if kind == 2 { y.clone().slice([0..b, 0..kv * group, 1.min(t - 1)..t, 0..d]) } else { y };
            let gradients = weighed(seen.clone()).backward();
            if kind == 2 && t == 1 {
                return vec![]; // Burn has no answer where nothing is seen at all.
            }
            vec![
                values(seen), grad_of(&q, &gradients), grad_of(&k, &gradients),
                grad_of(&v, &gradients),
            ]
        });
    }

    #[test]
    fn cross_entropies(rows in 1usize..20, vocab in 1usize..200) {
        let scores = random([rows, vocab]) * 4.0;
        let targets: Vec<u32> = (0..rows).map(|i| (i * 31 % vocab) as u32).collect();
        compare(2e-6, || {
            let scores = leaf(&scores);
            let y = cross_entropy(scores.clone(), &targets);
            let gradients = weighed(y.clone()).backward();
            let alone = cross_entropy(scores.clone().inner(), &targets);
            vec![values(y), values(alone), grad_of(&scores, &gradients)]
        });
    }

    /// Pictures smaller than the kernel, channels that fill no whole register.
    #[test]
    fn depthwise(
        b in 1usize..7, rows in 1usize..12, cols in 1usize..12, d in 1usize..40, side in 0usize..3,
    ) {
        let kernel = [3, 5, 7][side];
        let shape = ConvShape {
            d_in: d, d_out: d, kernel, stride: 1, padding: kernel / 2, groups: d,
        };
        let (x, w, bias) = (random([b, rows, cols, d]), random([d, 1, kernel, kernel]), random([d]));
        let mut layer = Conv2d::new(shape, true, &Device::flex());
        compare(1e-5, || {
            let x = leaf(&x);
            layer.weight = Param::from_tensor(leaf(&w));
            layer.bias = Some(Param::from_tensor(leaf(&bias)));
            let y = layer.depthwise(x.clone());
            let gradients = weighed(y.clone()).backward();
            vec![
                values(y), grad_of(&x, &gradients), grad_of(&layer.weight.val(), &gradients),
                grad_of(&layer.bias.as_ref().unwrap().val(), &gradients),
            ]
        });
    }

    #[test]
    fn resampling(
        b in 1usize..3, rows in 1usize..9, cols in 1usize..9, d in 1usize..20,
        to_rows in 1usize..12, to_cols in 1usize..12, cubic in any::<bool>(),
    ) {
        let x = random([b, rows, cols, d]);
        compare(1e-5, || {
            let x = leaf(&x);
            let y = if cubic {
                let taps = |n: usize, to: usize| Taps::cubic(n, to, to as f64 / n as f64);
                taps(cols, to_cols).apply(taps(rows, to_rows).apply(x.clone(), 1), 2)
            } else {
                bilinear(x.clone(), (to_rows, to_cols)) * 2.0
            };
            let gradients = weighed(y.clone()).backward();
            vec![values(y), grad_of(&x, &gradients)]
        });
    }

    #[test]
    fn lookups(n in 1usize..50, vocab in 1usize..20, d in 1usize..9) {
        let table = random([vocab, d]);
        let ids: Vec<i32> = (0..n).map(|i| (i * i % vocab) as i32).collect();
        compare(1e-5, || {
            let mut layer = Embedding::new(vocab, d, &Device::flex());
            layer.weight = Param::from_tensor(leaf(&table));
            let ids = Tensor::<1, Int>::from_data(ids.as_slice(), &Device::flex().autodiff());
            let y = layer.forward(ids);
            let gradients = weighed(y.clone()).backward();
            vec![values(y), grad_of(&layer.weight.val(), &gradients)]
        });
    }
}

/// A query that sees nothing has no output and changes nothing.
#[test]
fn what_sees_nothing_has_no_gradient() {
    let (q, k, v) = (
        leaf(&random([1, 1, 2, 4])),
        leaf(&random([1, 1, 3, 4])),
        leaf(&random([1, 1, 3, 4])),
    );
    let hidden = Tensor::<4, Bool>::from_data(
        [[[[true, true, true], [true, false, true]]]],
        &Device::flex().autodiff(),
    );
    let y = attention(
        q.clone(),
        k.clone(),
        v.clone(),
        &AttentionMask::Hidden(hidden),
    );
    let gradients = y.sum().backward();
    assert!(grad_of(&q, &gradients).iter().all(|g| *g == 0.0));
    let of_v = grad_of(&v, &gradients);
    assert_eq!(of_v[..4], [0.0; 4]);
    for g in &of_v[4..8] {
        assert!((g - 1.0).abs() < 1e-6);
    }
    assert_eq!(of_v[8..], [0.0; 4]);
}

/// Parameters that do not train cost no product, and tensors without gradients are constants.
#[test]
fn constants_get_no_gradient() {
    let device = Device::flex().autodiff();
    let x = leaf(&random([3, 4]));
    let layer = Linear::new(4, 2, true, &device).no_grad();
    let gradients = layer.forward(x.clone()).sum().backward();
    assert!(x.grad(&gradients).is_some());
    assert!(layer.weight.val().grad(&gradients).is_none());
    let trained = Linear::new(4, 2, true, &device);
    let gradients = trained.forward(random([3, 4])).sum().backward();
    assert!(trained.weight.val().grad(&gradients).is_some());
}

/// The same gradients where Burn recomputes cheap operations.
#[test]
fn balanced_checkpointing_is_taken_too() {
    let x = random([3, 4]);
    let run = |device: Device| {
        let layer = LayerNorm::new(4, 1e-5, &device);
        let x = Tensor::<2>::from_data(x.to_data(), &device).require_grad();
        let y = Activation::Gelu.forward(layer.forward(x.clone() * 2.0) + 1.0);
        grad_of(&x, &y.square().sum().backward())
    };
    let plain = run(Device::flex().autodiff());
    let balanced = run(Device::flex().autodiff().gradient_checkpointing());
    assert_eq!(plain, balanced);
}

/// One thread or three: the same bits.
#[test]
fn the_number_of_threads_changes_nothing() {
    let (x, w, b) = (random([700, 48]), random([48, 48]), random([48]));
    let run = |threads: usize| {
        let (x, w, b) = (x.clone(), w.clone(), b.clone());
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(move || {
            let (x, w, b) = (leaf(&x), leaf(&w), leaf(&b));
            let mut norm = LayerNorm::new(48, 1e-5, &Device::flex());
            norm.weight = Param::from_tensor(b.clone());
            norm.bias = Param::from_tensor(leaf(&b.clone().inner()));
            let y = norm.forward(crate::linear::apply(x.clone(), w.clone(), Some(b.clone())));
            let heads = y.reshape([2, 350, 4, 12]).swap_dims(1, 2);
            let seen = attention(heads.clone(), heads.clone(), heads, &AttentionMask::Causal);
            let y = Activation::Gelu.forward(seen.swap_dims(1, 2).reshape([700, 48]));
            let targets: Vec<u32> = (0..700).map(|i| i % 48).collect();
            let gradients = cross_entropy(y, &targets).mean().backward();
            [
                grad_of(&x, &gradients),
                grad_of(&w, &gradients),
                grad_of(&b, &gradients),
            ]
        })
    };
    assert_eq!(run(1), run(3));
}
