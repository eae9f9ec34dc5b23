//! Times encoders of their published size with random weights.
//!
//! ```text
//! cargo run --release -p opabinia-vision --example encoder_speed -- openai/clip-vit-large-patch14-336
//! ```

#![allow(clippy::print_stdout, reason = "what it prints is its result")]

use std::time::Instant;

use burn::prelude::*;
use burn::tensor::Distribution;
use opabinia_vision::{Encoder, EncoderSpec, VisionError};

/// Timed passes; the first one besides creates the random weights.
const PASSES: usize = 3;

fn main() -> Result<(), VisionError> {
    for name in std::env::args().skip(1) {
        let device = Device::default();
        let encoder = Encoder::random(&EncoderSpec::parse(&name)?, &device)?;
        let side = encoder.side() as usize;
        let pixels = Tensor::random([1, 3, side, side], Distribution::Default, &device);
        let run = || {
            encoder
                .encode(pixels.clone(), None)
                .features
                .sum()
                .into_scalar::<f32>()
        };
        run();
        for _ in 0..PASSES {
            let start = Instant::now();
            run();
            println!(
                "{name}: {side} px in {:.3} s",
                start.elapsed().as_secs_f64()
            );
        }
    }
    Ok(())
}
