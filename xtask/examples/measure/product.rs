//! One product of a linear layer, as `nn::Linear` runs it: activations in, activations out.
//!
//! A pass repeats the product for a quarter of a second and tells the time of the fastest, so that a busy
//! machine disturbs it less. Products of one row go through many copies of the weight, more than any
//! cache holds.

use std::hint::black_box;
use std::time::Instant;

use burn::prelude::*;
use opabinia_nn::Linear;

use crate::weights::{activations, count, fill};
use crate::{Fallible, WeightFormat, Workload};

/// Name, rows, outputs, inputs.
const SHAPES: [(&str, usize, usize, usize); 5] = [
    ("vit", 577, 4096, 1024),
    ("vit-back", 577, 1024, 4096),
    ("convnext", 4096, 1536, 384),
    ("decoder", 700, 14_336, 4096),
    ("token", 1, 14_336, 4096),
];

/// Bytes of weights, as f32, that a product of one row goes through.
const UNCACHED: usize = 1 << 30;
/// Seconds of a pass.
const PATIENCE: f64 = 0.25;

pub(crate) fn workload(name: &str, dtype: WeightFormat, smoke: bool) -> Fallible<Workload> {
    let shape = SHAPES.iter().find(|(shape, ..)| *shape == name);
    let &(_, rows, outputs, inputs) =
        shape.ok_or_else(|| format!("there is no product `{name}`"))?;
    let shrink = if smoke { 8 } else { 1 };
    let (outputs, inputs) = (outputs / shrink, inputs / shrink);
    let device = Device::flex();
    let copies = match rows {
        1 => (UNCACHED / shrink / (outputs * inputs * 4)).max(2),
        _ => 1,
    };
    let layers: Vec<Linear> = (0..copies)
        .map(|_| fill(Linear::new(inputs, outputs, false, &device), dtype))
        .collect();
    let x: Tensor<2> = activations([rows, inputs], &device);
    Ok(Workload {
        parameters: layers.first().map_or(0, count),
        amount: 2.0 * (rows * outputs * inputs) as f64,
        losses: Vec::new(),
        pass: Box::new(move || {
            let (start, mut best) = (Instant::now(), f64::INFINITY);
            for layer in layers.iter().cycle() {
                let once = Instant::now();
                black_box(layer.forward(x.clone()));
                best = best.min(once.elapsed().as_secs_f64());
                if start.elapsed().as_secs_f64() > PATIENCE {
                    break;
                }
            }
            Ok(best)
        }),
    })
}
