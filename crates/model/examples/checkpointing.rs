//! Peak memory and time of a training step with and without gradient checkpointing.
//!
//! ```text
//! cargo run --release -p opabinia-model --example checkpointing -- plain|checkpointing [STEPS]
//! ```
//!
//! One mode per process, because a peak cannot be taken back. The decoder is Llama-shaped, of about
//! 20 million parameters, and reads 8 rows of 256 tokens, all trained.

#![allow(clippy::print_stdout, reason = "what it prints is its result")]

use std::error::Error;
use std::time::Instant;

use burn::module::Module;
use burn::prelude::*;
use opabinia_llm::{Decoder, PromptToken};
use opabinia_model::{LossOptions, ModelConfig, Network, TrainingRow, training_gradients};
use serde_json::json;

const ROWS: usize = 8;
const TOKENS: usize = 256;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let checkpointing = match arguments.first().map(String::as_str) {
        Some("plain") => false,
        Some("checkpointing") => true,
        _ => return Err("usage: checkpointing plain|checkpointing [STEPS]".into()),
    };
    let steps = arguments.get(1).map_or(Ok(3), |steps| steps.parse())?;

    let device = Device::flex().autodiff();
    let config = ModelConfig::from_json(&json!({
        "model_type": "llama", "hidden_size": 384, "num_hidden_layers": 8,
        "num_attention_heads": 6, "intermediate_size": 1024, "vocab_size": 8192,
        "max_position_embeddings": TOKENS,
    }))?;
    let network = Network {
        encoders: Vec::new(),
        connector: None,
        decoder: Decoder::new(&config.decoder, &device),
    };
    println!(
        "{:.1} million parameters",
        network.num_params() as f64 / 1e6
    );
    println!("before the first step: {}", memory()?);

    let ids = 0..(TOKENS * ROWS) as u32;
    let tokens: Vec<PromptToken> = ids.map(|i| PromptToken::Text(i * 31 % 8192)).collect();
    let trained = [true; TOKENS];
    let rows: Vec<TrainingRow<'_>> = tokens
        .chunks(TOKENS)
        .map(|tokens| TrainingRow {
            tokens,
            trained: &trained,
            pictures: &[],
            branches: &[],
        })
        .collect();
    let options = LossOptions {
        checkpointing,
        ..LossOptions::default()
    };
    for _ in 0..steps {
        let start = Instant::now();
        let found = training_gradients(&network, &config, &device, &rows, &options, 1.0)?;
        let seconds = start.elapsed().as_secs_f64();
        let loss = found.sum / found.terms as f64;
        println!("loss {loss:.4} in {seconds:.2} s");
    }
    println!("at the end: {}", memory()?);
    Ok(())
}

/// Resident memory now and at its peak, as the Linux kernel counts it.
fn memory() -> Result<String, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or("unknown").trim().to_owned()
    };
    Ok(format!(
        "{} resident, {} at its peak",
        field("VmRSS:"),
        field("VmHWM:")
    ))
}
