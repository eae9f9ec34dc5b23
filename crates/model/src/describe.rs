//! What a model is made of and what an answer will cost, read from headers alone.
//!
//! Nothing is loaded: shapes come from the configuration, stored sizes from the checkpoint's
//! headers. The estimate of time multiplies the work by the speed of this machine, measured for a
//! moment: a matrix product for reading, a pass over memory for writing. It is a lower bound made of
//! the large matrix products; small ones, attention and elementwise work come on top.

use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::prelude::*;
use opabinia_connector::Connector;
use opabinia_llm::{ChatTemplate, Decoder, TemplateHints};
use opabinia_vision::{Encoder, EncoderConfig, EncoderSpec};
use opabinia_weights::{Checkpoint, KeyMap, parameters};
use rayon::prelude::*;
use serde::Serialize;

use crate::config::VisionConfig;
use crate::load::connector_input;
use crate::{ModelConfig, ModelError, gguf, keys};

/// What a model folder holds.
#[derive(Clone, Debug, Serialize)]
pub struct Description {
    /// The folder.
    pub folder: PathBuf,
    /// `model_type` of `config.json`.
    pub model_type: String,
    /// Encoders, connector, decoder.
    pub parts: Vec<Part>,
    /// What a square picture becomes.
    pub picture: Option<Picture>,
    /// Longest packed prompt.
    pub max_length: usize,
    /// Name of the chat template and why it is chosen.
    pub template: (String, String),
    /// What an answer costs.
    pub cost: Cost,
}

/// One part of a model.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    /// `encoder 0`, `connector`, `decoder`.
    pub name: String,
    /// What it is.
    pub what: String,
    /// Numbers in it.
    pub parameters: u64,
    /// Size as stored, where its weights are in the folder.
    pub bytes: Option<u64>,
    /// Shape and constants, a line each.
    pub details: Vec<String>,
}

/// The visual tokens of a square picture.
#[derive(Clone, Debug, Serialize)]
pub struct Picture {
    /// Rows.
    pub rows: usize,
    /// Columns, row ends not counted.
    pub cols: usize,
    /// Tokens in the sequence.
    pub tokens: usize,
}

/// What an answer about one square picture costs.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Cost {
    /// Bytes of all weights as stored; encoders that are not here counted as f32.
    pub weights: u64,
    /// Bytes of keys and values for the longest prompt.
    pub cache: u64,
    /// Bytes of the largest intermediate values, about.
    pub workspace: u64,
    /// Floating-point operations of the encoders and the connector.
    pub encode_flop: f64,
    /// Floating-point operations of reading the prompt.
    pub prefill_flop: f64,
    /// Bytes of weights read for each token of the answer.
    pub bytes_per_token: u64,
    /// Operations per second of a large f32 product on this machine.
    pub measured_flops: f64,
    /// Bytes per second read from memory on this machine.
    pub measured_bandwidth: f64,
    /// Seconds until the first word, at least.
    pub first_token_seconds: f64,
    /// Tokens per second after it, at most.
    pub tokens_per_second: f64,
}

/// Words of a prompt around its picture, template included, for the estimate.
const WORDS: usize = 120;

/// Describes a model folder.
///
/// # Errors
/// If the configuration, the tokenizer or the checkpoint's headers cannot be read.
pub fn describe(folder: &Path) -> Result<Description, ModelError> {
    let config = ModelConfig::from_folder(folder)?;
    let checkpoint = Checkpoint::open(folder)?;
    let (mut parts, encode_flop) = describe_parts(folder, &config, &checkpoint)?;
    let mut cost = Cost {
        encode_flop,
        ..Cost::default()
    };
    let tokens = config
        .vision
        .as_ref()
        .map(|vision| vision.connector.token_grid());
    let visual = tokens.map_or(0, |grid| grid.rows * (grid.cols + 1));
    if let Some(decoder) = parts.pop() {
        finish_cost(&mut cost, &config, &parts, &decoder, visual + WORDS);
        parts.push(decoder);
    }
    Ok(Description {
        folder: folder.to_owned(),
        model_type: config.model_type.clone(),
        parts,
        picture: tokens.map(|grid| Picture {
            rows: grid.rows,
            cols: grid.cols,
            tokens: visual,
        }),
        max_length: config.max_length,
        template: template(folder, &config)?,
        cost,
    })
}

/// Encoders, connector and, last, the decoder; and the operations of looking at one picture.
pub(crate) fn describe_parts(
    folder: &Path,
    config: &ModelConfig,
    checkpoint: &Checkpoint,
) -> Result<(Vec<Part>, f64), ModelError> {
    let device = Device::flex();
    let mut parts = Vec::new();
    let mut encode_flop = 0.0;
    let mut widths = Vec::new();
    for (i, name) in config.vision.iter().flat_map(|v| &v.encoders).enumerate() {
        let select = config
            .vision
            .as_ref()
            .map_or(-2, |vision| vision.select_layer);
        let spec = EncoderSpec::parse(name)?.with_select_layer(select);
        let (encoder, bytes) = local_encoder(folder, i, &spec, &device)?;
        encode_flop += encoder_flop(&encoder);
        widths.push(connector_input(checkpoint, i).unwrap_or_else(|| encoder.width()));
        let grid = config.vision.as_ref().map(|vision| vision.grids[i]);
        parts.push(encoder_part(i, name, &encoder, grid, bytes));
    }
    if let Some(vision) = &config.vision {
        let part = connector_part(vision, config, &widths, checkpoint, &device)?;
        let cells = vision.connector.token_grid().len();
        // Every parameter meets every query about once; windows of several features are few.
        encode_flop += 2.0 * part.parameters as f64 * cells as f64;
        parts.push(part);
    }
    parts.push(decoder_part(config, checkpoint, &device));
    Ok((parts, encode_flop))
}

fn template(folder: &Path, config: &ModelConfig) -> Result<(String, String), ModelError> {
    let tokenizer = gguf::tokenizer(folder)?;
    let choice = ChatTemplate::for_checkpoint(&TemplateHints {
        model_type: &config.model_type,
        conversation_template: config.conversation_template.as_deref(),
        has_token: &|token| tokenizer.token_to_id(token).is_some(),
    })?;
    Ok((choice.template.name.clone(), choice.reason.to_owned()))
}

/// The encoder as its own folder describes it, and its stored size, where that lies with the model;
/// else as published.
fn local_encoder(
    folder: &Path,
    index: usize,
    spec: &EncoderSpec,
    device: &Device,
) -> Result<(Encoder, Option<u64>), ModelError> {
    let Some(tower) = crate::load::tower_folder(folder, index, spec) else {
        return Ok((Encoder::new(spec, spec.entry.config, device)?, None));
    };
    let encoder = Encoder::new(spec, EncoderConfig::read(&tower)?, device)?;
    let checkpoint = Checkpoint::open(&tower)?;
    let (_, bytes) = stored(&parameters(&encoder), &encoder.key_map(), &checkpoint);
    Ok((encoder, bytes))
}

fn encoder_part(
    index: usize,
    name: &str,
    encoder: &Encoder,
    grid: Option<opabinia_nn::Grid>,
    bytes: Option<u64>,
) -> Part {
    let to = grid.map_or_else(String::new, |grid| format!(" → {grid}"));
    Part {
        name: format!("encoder {index}"),
        what: name.to_owned(),
        parameters: encoder.parameters(),
        bytes,
        details: vec![
            format!(
                "{} of {} layers, {}",
                encoder.spec().entry.family,
                encoder.layers(),
                encoder.spec().entry.licence
            ),
            format!(
                "{} px, {} features of width {}{to}",
                encoder.side(),
                encoder.grid(),
                encoder.width()
            ),
        ],
    }
}

fn connector_part(
    vision: &VisionConfig,
    config: &ModelConfig,
    widths: &[usize],
    checkpoint: &Checkpoint,
    device: &Device,
) -> Result<Part, ModelError> {
    use opabinia_connector::ConnectorConfig;

    let connector = vision.connector(widths, config.decoder.hidden)?;
    let module = Connector::new(&connector, device);
    let map = keys::connector(&connector);
    let (count, bytes) = stored(&parameters(&module), &map, checkpoint);
    let (what, details) = match &connector {
        ConnectorConfig::Sva(sva) => {
            let windows = sva.window_sides(sva.token_grid);
            let windows: Vec<String> = windows.iter().map(|n| format!("{n} × {n}")).collect();
            let windows = windows.join(", ");
            let mut details = vec![
                format!(
                    "{:?} layers of width {}, depth {}",
                    sva.layer_type, sva.width, sva.depth
                ),
                format!(
                    "queries on {}",
                    sva.query_grids
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join(" and ")
                ),
                format!("each sees {windows} features of the encoders"),
            ];
            details.push(match sva.in_llm {
                Some(layers) => format!(
                    "{} in-LLM layers, from the decoder's layer {} to {}, {} apart",
                    layers.count,
                    layers.start,
                    layers.last_decoder_layer(),
                    layers.stride
                ),
                None => "no in-LLM layers".into(),
            });
            ("Spatial Vision Aggregator".to_owned(), details)
        }
        ConnectorConfig::Projector(projector) => (
            format!("{:?} projector", projector.kind),
            vec![format!("{} → {}", projector.input, projector.hidden)],
        ),
    };
    Ok(Part {
        name: "connector".into(),
        what,
        parameters: count,
        bytes,
        details,
    })
}

fn decoder_part(config: &ModelConfig, checkpoint: &Checkpoint, device: &Device) -> Part {
    let decoder = &config.decoder;
    let module = Decoder::new(decoder, device);
    let (count, bytes) = stored(&parameters(&module), &keys::decoder(decoder), checkpoint);
    let heads = format!(
        "{} layers of width {}, {} query and {} key heads of {}",
        decoder.layers, decoder.hidden, decoder.heads, decoder.kv_heads, decoder.head_dim
    );
    let mut details = vec![
        heads,
        format!(
            "feed-forward {}, vocabulary {}",
            decoder.intermediate, decoder.vocab
        ),
        format!(
            "rotary base {}, {} positions",
            decoder.rope_theta, decoder.max_position
        ),
    ];
    if let Some(window) = decoder.sliding_window {
        details.push(format!("sliding window of {window}"));
    }
    Part {
        name: "decoder".into(),
        what: format!("{:?}", decoder.family),
        parameters: count,
        bytes,
        details,
    }
}

/// Numbers of parameters, and their bytes in the checkpoint if all are there.
fn stored(
    parameters: &[opabinia_weights::ParameterInfo],
    map: &KeyMap,
    checkpoint: &Checkpoint,
) -> (u64, Option<u64>) {
    let size = |shape: &[usize]| shape.iter().map(|n| *n as u64).product::<u64>();
    let count = parameters
        .iter()
        .map(|parameter| size(&parameter.shape))
        .sum();
    let bytes = parameters.iter().map(|parameter| {
        checkpoint.parameter_bytes(&map.file_key(&parameter.path), &parameter.shape)
    });
    (count, bytes.sum())
}

/// Operations of the large products of an encoder for one picture.
fn encoder_flop(encoder: &Encoder) -> f64 {
    let side = encoder.side() as usize;
    match encoder.config() {
        EncoderConfig::ConvNext(config) => {
            let stage = |(i, (&depth, &d)): (usize, (&usize, &usize))| {
                let cells = (side / (4 << i)).pow(2) as f64;
                depth as f64 * cells * (16.0 * (d * d) as f64 + 98.0 * d as f64)
            };
            config
                .depths
                .iter()
                .zip(&config.dims)
                .enumerate()
                .map(stage)
                .sum()
        }
        EncoderConfig::Clip(vit)
        | EncoderConfig::Dinov2(vit)
        | EncoderConfig::Siglip(opabinia_vision::siglip::SiglipConfig { vit, .. }) => {
            let (n, d) = (encoder.grid().len() as f64, vit.width as f64);
            let attention = 4.0 * n * n * d * encoder.layers() as f64;
            2.0 * n * encoder.parameters() as f64 + attention
        }
    }
}

fn finish_cost(
    cost: &mut Cost,
    config: &ModelConfig,
    parts: &[Part],
    decoder: &Part,
    prompt: usize,
) {
    let decoder_config = &config.decoder;
    let table = (decoder_config.vocab * decoder_config.hidden) as u64;
    // The embedding table is looked up, not multiplied.
    let tables = if decoder_config.tied_head { 0 } else { table };
    let multiplied = decoder.parameters.saturating_sub(tables) as f64;
    let n = prompt as f64;
    let width = (decoder_config.heads * decoder_config.head_dim) as f64;
    cost.prefill_flop = 2.0 * n * multiplied + 2.0 * n * n * width * decoder_config.layers as f64;
    let size = |part: &Part| part.bytes.unwrap_or(part.parameters * 4);
    cost.weights = parts.iter().map(size).sum::<u64>() + size(decoder);
    let per_value = size(decoder) as f64 / decoder.parameters.max(1) as f64;
    cost.bytes_per_token = (multiplied * per_value) as u64;
    cost.cache = config
        .max_length
        .saturating_mul(decoder_config.cache_bytes_per_token()) as u64;
    cost.workspace = (prompt * decoder_config.intermediate * 4 * 3) as u64;
    (cost.measured_flops, cost.measured_bandwidth) = (measure_flops(), measure_bandwidth());
    cost.first_token_seconds = (cost.encode_flop + cost.prefill_flop) / cost.measured_flops;
    cost.tokens_per_second = cost.measured_bandwidth / cost.bytes_per_token.max(1) as f64;
}

/// Operations per second of a large f32 product: the best of a few.
fn measure_flops() -> f64 {
    const N: usize = 768;
    let x = Tensor::<2>::ones([N, N], &Device::flex());
    let time = |_| {
        let start = Instant::now();
        let _ = x.clone().matmul(x.clone());
        start.elapsed().as_secs_f64()
    };
    let best = (0..4).map(time).fold(f64::INFINITY, f64::min);
    2.0 * (N * N * N) as f64 / best.max(1e-9)
}

/// Bytes per second read from memory by all threads: the best of a few.
fn measure_bandwidth() -> f64 {
    let values = vec![1u64; 32 << 20];
    let time = |_| {
        let start = Instant::now();
        let sum: u64 = values
            .par_chunks(1 << 16)
            .map(|part| part.iter().sum::<u64>())
            .sum();
        std::hint::black_box(sum);
        start.elapsed().as_secs_f64()
    };
    let best = (0..3).map(time).fold(f64::INFINITY, f64::min);
    (values.len() * 8) as f64 / best.max(1e-9)
}
