//! The decoder against Hugging Face transformers, on tiny random models of every family and of
//! every option that changes the numbers; `data/decoders/README.md` says how they were made.
//!
//! Three claims for each case: a prompt in one pass, cached steps behind it, and the same with
//! weights stored as bfloat16. A fourth test makes typical mistakes on purpose and demands that
//! the cases notice, because a comparison that cannot fail proves nothing.

#![allow(missing_docs, clippy::unwrap_used)]

use std::path::PathBuf;

use burn::prelude::*;
use opabinia_llm::{Decoder, DecoderConfig, DecoderFamily, KvCache, NoHook, Step};
use opabinia_nn::{Activation, RotaryScaling};
use opabinia_weights::{Checkpoint, KeyMap, LoadOptions, WeightDtype, load_into};
use safetensors::SafeTensors;

const CASES: [&str; 9] = [
    "gemma",
    "llama_attention_bias",
    "llama_grouped",
    "llama_rope_dynamic",
    "llama_rope_linear",
    "llama_rope_llama3",
    "llama_tied",
    "mistral_window",
    "phi3_window",
];

/// Tokens of the long prompt; cached steps follow it up to the end of the ids.
const PROMPT: usize = 20;
/// Tokens of the short prompt, inside the sliding window and the trained context, which are 8.
const SHORT_PROMPT: usize = 6;
/// Cached steps after either prompt.
const STEPS: usize = 4;

/// `|a − b| ≤ 2e-5 + 2e-5·|b|`: f32 sums of 40 terms in another order, through two layers.
const ABSOLUTE: f32 = 2e-5;
const RELATIVE: f32 = 2e-5;

struct Case {
    name: &'static str,
    folder: PathBuf,
    config: DecoderConfig,
    /// `[2, 24]`.
    ids: Vec<Vec<u32>>,
    io: Vec<u8>,
}

impl Case {
    fn open(name: &'static str) -> Self {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("tests/data/decoders")
            .join(name);
        let read = |file: &str| {
            let path = folder.join(file);
            std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        };
        let json = serde_json::from_slice(&read("config.json")).unwrap();
        let config = DecoderConfig::from_json(&json).unwrap();
        let io = read("io.safetensors");
        let ids = SafeTensors::deserialize(&io)
            .unwrap()
            .tensor("ids")
            .unwrap();
        let length = ids.shape()[1];
        let flat: Vec<u32> = ids
            .data()
            .as_chunks()
            .0
            .iter()
            .map(|&bytes| u32::from_le_bytes(bytes))
            .collect();
        let ids = flat.chunks(length).map(<[u32]>::to_vec).collect();
        Self {
            name,
            folder,
            config,
            ids,
            io,
        }
    }

    /// What transformers computed, row-major.
    fn expected(&self, name: &str) -> Vec<f32> {
        let io = SafeTensors::deserialize(&self.io).unwrap();
        let data = io.tensor(name).unwrap();
        data.data()
            .as_chunks()
            .0
            .iter()
            .map(|&bytes| f32::from_le_bytes(bytes))
            .collect()
    }

    /// The case's weights in a decoder of `config`, which is the case's own or a mistaken one.
    fn load(&self, config: &DecoderConfig, dtype: WeightDtype, device: &Device) -> Decoder {
        let checkpoint = Checkpoint::open(&self.folder).unwrap();
        let decoder = Decoder::new(config, device);
        let options = LoadOptions::new(dtype);
        let (decoder, report) =
            load_into(decoder, &checkpoint, &key_map(config), &options).unwrap();
        report.deny_unused().unwrap();
        decoder
    }

    fn decoder(&self) -> Decoder {
        self.load(&self.config, WeightDtype::AsStored, &Device::flex())
    }

    fn check(&self, what: &str, found: &[f32]) {
        let off = excess(found, &self.expected(what));
        assert!(
            off <= 1.0,
            "{}: `{what}` is off by {off} times the tolerance",
            self.name
        );
    }

    /// Logits of the tokens `start .. end` of every row, `[2, end − start, vocab]` row-major.
    fn logits(
        &self,
        decoder: &Decoder,
        start: usize,
        end: usize,
        cache: &mut KvCache,
        device: &Device,
    ) -> Vec<f32> {
        let tokens: Vec<u32> = self
            .ids
            .iter()
            .flat_map(|row| &row[start..end])
            .copied()
            .collect();
        let DecoderConfig { hidden, vocab, .. } = *decoder.config();
        let rows = self.ids.len();
        let embeddings = decoder
            .embed(&tokens, device)
            .reshape([rows, end - start, hidden]);
        let step = Step::contiguous(embeddings, start);
        let states = decoder.forward(step, cache, &mut NoHook);
        let logits = decoder.logits(states.reshape([tokens.len(), hidden]));
        assert_eq!(logits.dims(), [tokens.len(), vocab]);
        logits.into_data().try_to_vec().unwrap()
    }

    /// Logits of the long prompt in one pass.
    fn prompt(&self, decoder: &Decoder, device: &Device) -> Vec<f32> {
        self.logits(decoder, 0, PROMPT, &mut KvCache::new(), device)
    }

    /// Logits of the cached steps behind the first `prompt` tokens, `[2, STEPS, vocab]`.
    fn steps(&self, decoder: &Decoder, prompt: usize) -> Vec<f32> {
        let device = Device::flex();
        let mut cache = KvCache::new();
        let _ = self.logits(decoder, 0, prompt, &mut cache, &device);
        let steps: Vec<Vec<f32>> = (prompt..prompt + STEPS)
            .map(|at| self.logits(decoder, at, at + 1, &mut cache, &device))
            .collect();
        let vocab = decoder.config().vocab;
        let rows = 0..self.ids.len();
        rows.flat_map(|row| {
            steps
                .iter()
                .map(move |step| &step[row * vocab..(row + 1) * vocab])
        })
        .flatten()
        .copied()
        .collect()
    }
}

/// Where the published files keep what the decoder's modules are called.
fn key_map(config: &DecoderConfig) -> KeyMap {
    let queries = config.heads * config.head_dim;
    let keys = config.kv_heads * config.head_dim;
    let up = config.intermediate;
    let map = match config.family {
        DecoderFamily::Phi3 => KeyMap::new()
            .part(r"\.q_proj\.", ".qkv_proj.", 0..queries)
            .part(r"\.k_proj\.", ".qkv_proj.", queries..queries + keys)
            .part(
                r"\.v_proj\.",
                ".qkv_proj.",
                queries + keys..queries + 2 * keys,
            )
            .part(r"\.gate_proj\.", ".gate_up_proj.", 0..up)
            .part(r"\.up_proj\.", ".gate_up_proj.", up..2 * up),
        _ => KeyMap::new(),
    };
    map.rename(r"^(embed_tokens|layers|norm)\.", "model.${1}.")
}

/// The largest difference, in multiples of the tolerance.
fn excess(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let ratios = found
        .iter()
        .zip(expected)
        .map(|(a, b)| (a - b).abs() / (ABSOLUTE + RELATIVE * b.abs()));
    // Not `f32::max`, which would swallow a NaN.
    ratios.fold(
        0.0,
        |worst, ratio| if ratio <= worst { worst } else { ratio },
    )
}

fn root_mean_square(values: impl ExactSizeIterator<Item = f32>) -> f32 {
    let count = values.len() as f32;
    (values.map(|v| v * v).sum::<f32>() / count).sqrt()
}

#[test]
fn a_prompt_gives_the_logits_of_transformers() {
    let device = Device::flex();
    for case in CASES.map(Case::open) {
        case.check("logits", &case.prompt(&case.decoder(), &device));
    }
}

/// GPUs and training do not take the hand-written CPU kernels; an autodiff device does not either.
#[test]
fn the_path_without_cpu_kernels_gives_them_too() {
    let device = Device::flex().autodiff();
    for case in CASES.map(Case::open) {
        let decoder = case.load(&case.config, WeightDtype::AsStored, &device);
        case.check("logits", &case.prompt(&decoder, &device));
    }
}

#[test]
fn cached_steps_give_the_logits_of_transformers() {
    for case in CASES.map(Case::open) {
        case.check("step_logits", &case.steps(&case.decoder(), PROMPT));
    }
}

/// The steps in which the sliding window loses its first key and dynamic scaling sets in.
#[test]
fn cached_steps_cross_the_window_and_the_trained_context() {
    for case in CASES.map(Case::open) {
        case.check("short_logits", &case.steps(&case.decoder(), SHORT_PROMPT));
    }
}

/// Keys stay in the cache as they were rotated, although the frequencies have changed since; the
/// reference does so too, and a pass over all tokens at once therefore gives something else.
#[test]
fn dynamic_scaling_leaves_cached_keys_alone() {
    let case = Case::open("llama_rope_dynamic");
    let device = Device::flex();
    let decoder = case.decoder();
    let at_once = case.logits(&decoder, 0, PROMPT + STEPS, &mut KvCache::new(), &device);
    let vocab = case.config.vocab;
    let tails = at_once
        .chunks((PROMPT + STEPS) * vocab)
        .flat_map(|row| &row[PROMPT * vocab..]);
    let tails: Vec<f32> = tails.copied().collect();
    assert!(excess(&tails, &case.expected("step_logits")) > 100.0);
}

/// With the same rounded weights in both programs the tolerance is that of f32, since activations
/// stay f32. Against the f32 weights the rounding itself shows: 8 significant bits are a relative
/// error of up to 2⁻⁸ in every weight, which two layers bring to 0.4 % to 0.7 % of the logits; 2 %
/// is the bound.
#[test]
fn bf16_weights_are_f32_arithmetic_on_rounded_weights() {
    let device = Device::flex();
    for case in CASES.map(Case::open) {
        let decoder = case.load(&case.config, WeightDtype::Bf16, &device);
        let found = case.prompt(&decoder, &device);
        case.check("bf16_logits", &found);

        let exact = case.expected("logits");
        let error = root_mean_square(found.iter().zip(&exact).map(|(a, b)| a - b));
        let size = root_mean_square(exact.iter().copied());
        assert!(
            error < 0.02 * size,
            "{}: rounding costs {}",
            case.name,
            error / size
        );
    }
}

/// Typical mistakes, each against the case that must notice it.
#[test]
fn the_cases_notice_mistakes() {
    type Mistake = (&'static str, fn(&mut DecoderConfig));
    let mistakes: [Mistake; 14] = [
        ("gemma", |c| c.activation = Activation::Gelu),
        ("gemma", |c| c.family = DecoderFamily::Llama),
        ("gemma", |c| c.norm_eps = 1e-2),
        ("llama_grouped", |c| c.rope_theta = 10_000.0),
        ("llama_grouped", |c| c.activation = Activation::GeluTanh),
        ("llama_rope_dynamic", |c| c.rope_scaling = None),
        ("llama_rope_linear", |c| c.rope_scaling = None),
        ("llama_rope_llama3", |c| c.rope_scaling = None),
        ("llama_rope_llama3", |c| {
            c.rope_scaling = Some(RotaryScaling::Linear { factor: 8.0 });
        }),
        ("mistral_window", |c| c.sliding_window = None),
        ("mistral_window", |c| c.sliding_window = Some(7)),
        ("mistral_window", |c| c.sliding_window = Some(9)),
        ("phi3_window", |c| c.sliding_window = Some(7)),
        ("phi3_window", |c| c.sliding_window = Some(9)),
    ];
    for (i, (name, mistake)) in mistakes.into_iter().enumerate() {
        let case = Case::open(name);
        let mut config = case.config.clone();
        mistake(&mut config);
        let decoder = case.load(&config, WeightDtype::AsStored, &Device::flex());
        for (what, found) in [
            ("logits", case.prompt(&decoder, &Device::flex())),
            ("step_logits", case.steps(&decoder, PROMPT)),
        ] {
            let off = excess(&found, &case.expected(what));
            assert!(
                off > 20.0,
                "mistake {i} in {name}: `{what}` is off by only {off}"
            );
        }
    }
}
