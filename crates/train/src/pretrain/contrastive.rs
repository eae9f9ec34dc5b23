//! Language supervision: pictures and captions that belong together, by the sigmoid loss of SigLIP
//! (arXiv 2303.15343, equation 1).
//!
//! ```text
//! picture ─ encoder ─ mean over the grid ─ norm ─ linear ─▶ x, |x| = 1 ┐
//! caption ─ transformer ─ mean over the tokens ─── linear ─▶ y, |y| = 1 ┴─▶ t · x·y + b
//! ```
//!
//! - `t = exp(t')`, and `t'` and `b` are learnt; SigLIP starts them at `ln 10` and `−10`.
//! - Negatives are the other captions of the micro-batch, so its size matters, and the global batch
//!   only averages. Two pictures of a small world can have the very same caption; such pairs are
//!   neither positive nor negative.
//! - Pictures are not augmented: a flip would make "left of" wrong, a crop the count.
//! - The encoder's pooling here is a mean; the attention pooling of the published models is no part
//!   of the features that a language model sees.

use std::sync::Arc;

use burn::module::{Initializer, Module, Param};
use burn::prelude::*;
use opabinia_data::order::shuffled;
use opabinia_data::stream::below;
use opabinia_image::{PixelBatch, Preprocessor};
use opabinia_llm::Tokenizer;
use opabinia_nn::{AttentionMask, Embedding, LayerNorm, Linear};
use opabinia_vision::{Encoder, pixel_tensor};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::documents::document;
use super::encoder::{EncoderChoice, EncoderTask, Outputs, first_value};
use super::loss::{sigmoid_pairs, unit_rows};
use super::pictures::{Pictures, prepared};
use super::start::{Start, plain, start};
use super::transformer::{Transformer, TransformerSizes};
use crate::{BatchSize, LossSum, Metric, Task, TrainError};

/// What contrastive training is to be like, beside the encoder.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContrastiveOptions {
    /// The text tower.
    pub text: TransformerSizes,
    /// Tokens of a caption that are read.
    pub context: usize,
    /// Width of the space where pictures and captions meet.
    pub joint: usize,
    /// First temperature `t`, above 0; SigLIP's is 10.
    pub temperature: f64,
    /// First bias `b`; SigLIP's is −10.
    pub bias: f64,
}

impl ContrastiveOptions {
    fn check(&self) -> Result<(), TrainError> {
        self.text.check("text tower")?;
        let refuse = |text: String| Err(TrainError::Refused(text));
        if self.context == 0 || self.joint == 0 {
            return refuse(format!(
                "captions of {} tokens in a space of width {} cannot be compared: both must be at \
                 least 1",
                self.context, self.joint
            ));
        }
        if !(self.temperature.is_finite() && self.temperature > 0.0 && self.bias.is_finite()) {
            return refuse(format!(
                "a temperature of {} and a bias of {} cannot be learnt from: the temperature must \
                 be above 0",
                self.temperature, self.bias
            ));
        }
        Ok(())
    }
}

/// Both towers.
#[derive(Module, Debug)]
pub struct ContrastiveModel {
    /// The encoder that is kept.
    pub encoder: Encoder,
    image_norm: LayerNorm,
    image_projection: Linear,
    text: TextTower,
    /// `t'`, `[1]`.
    logit_scale: Param<Tensor<1>>,
    /// `b`, `[1]`.
    logit_bias: Param<Tensor<1>>,
}

#[derive(Module, Debug)]
struct TextTower {
    tokens: Embedding,
    /// `[context, d]`.
    position: Param<Tensor<2>>,
    transformer: Transformer,
    projection: Linear,
}

/// Captions of a micro-batch as rows of one length.
#[derive(Clone, Debug, PartialEq)]
struct Captions {
    rows: usize,
    length: usize,
    /// `rows · length` ids, padded on the right.
    tokens: Vec<u32>,
    /// Tokens of each row.
    filled: Vec<usize>,
}

impl Captions {
    fn new(captions: &[&[u32]]) -> Self {
        let length = captions.iter().map(|row| row.len()).max().unwrap_or(0);
        let mut tokens = Vec::with_capacity(captions.len() * length);
        for (index, caption) in captions.iter().enumerate() {
            tokens.extend_from_slice(caption);
            tokens.resize((index + 1) * length, 0);
        }
        Self {
            rows: captions.len(),
            length,
            tokens,
            filled: captions.iter().map(|row| row.len()).collect(),
        }
    }

    /// Hides padding; nothing if there is none.
    fn mask(&self, device: &Device) -> AttentionMask {
        let (b, t) = (self.rows, self.length);
        if self.filled.iter().all(|&filled| filled == t) {
            return AttentionMask::None;
        }
        let mut hidden = Vec::with_capacity(b * t * t);
        for &filled in &self.filled {
            for _ in 0..t {
                hidden.extend((0..t).map(|key| key >= filled));
            }
        }
        AttentionMask::Hidden(Tensor::from_data(
            TensorData::new(hidden, [b, 1, t, t]),
            device,
        ))
    }

    /// What each token counts in the mean of its row, `[b, t, 1]`.
    fn shares(&self, device: &Device) -> Tensor<3> {
        let mut shares = Vec::with_capacity(self.rows * self.length);
        for &filled in &self.filled {
            let share = 1.0 / filled.max(1) as f32;
            shares.extend((0..self.length).map(|i| if i < filled { share } else { 0.0 }));
        }
        Tensor::from_data(TensorData::new(shares, [self.rows, self.length, 1]), device)
    }
}

impl TextTower {
    fn new(options: &ContrastiveOptions, vocabulary: usize, device: &Device) -> Self {
        let width = options.text.width;
        let position = Initializer::Zeros.init([options.context, width], device);
        Self {
            tokens: Embedding::new(vocabulary, width, device),
            position,
            transformer: Transformer::new(&options.text, device),
            projection: Linear::new(width, options.joint, false, device),
        }
    }

    /// `[b, joint]`, rows of length 1.
    fn forward(&self, captions: &Captions, device: &Device) -> Tensor<2> {
        let (b, t) = (captions.rows, captions.length);
        let ids: Vec<i32> = captions.tokens.iter().map(|id| id.cast_signed()).collect();
        let x = self
            .tokens
            .forward(Tensor::from_data(ids.as_slice(), device));
        let width = x.dims()[1];
        let positions = self.position.val().narrow(0, 0, t).unsqueeze::<3>();
        let x = x.reshape([b, t, width]) + positions;
        let x = self.transformer.forward(x, &captions.mask(device));
        let pooled = (x * captions.shares(device)).sum_dim(1).reshape([b, width]);
        unit_rows(self.projection.forward(pooled))
    }
}

impl ContrastiveModel {
    /// Pictures in the joint space: `[b, 3, px, px]` → `[b, joint]`, rows of length 1.
    pub fn embed_pictures(&self, pixels: Tensor<4>) -> Tensor<2> {
        let features = self.encoder.forward(pixels).features;
        let [b, _, width] = features.dims();
        let pooled = self
            .image_norm
            .forward(features.mean_dim(1).reshape([b, width]));
        unit_rows(self.image_projection.forward(pooled))
    }

    /// `t · x·y + b` for every picture `x` and every text `y`, `[n, n]`.
    fn logits(&self, pictures: Tensor<2>, texts: Tensor<2>) -> Tensor<2> {
        let scale = self.logit_scale.val().exp().unsqueeze();
        pictures.matmul(texts.transpose()) * scale + self.logit_bias.val().unsqueeze()
    }
}

/// A micro-batch.
#[derive(Clone, Debug, PartialEq)]
pub struct ContrastiveBatch {
    pixels: PixelBatch,
    captions: Captions,
    /// `n · n`: whether two captions are the same.
    same: Vec<bool>,
}

/// Contrastive training of an encoder on pictures and captions.
pub struct ContrastiveTask {
    choice: EncoderChoice,
    options: ContrastiveOptions,
    vocabulary: usize,
    preprocessor: Preprocessor,
    pictures: Arc<dyn Pictures>,
    /// For each picture its captions as tokens.
    captions: Vec<Vec<Vec<u32>>>,
}

impl ContrastiveTask {
    /// Pictures, and for each of them one or several captions, of which every visit draws one.
    ///
    /// # Errors
    /// If the sizes do not fit, if a picture has no caption, or if the numbers of pictures and
    /// captions differ.
    pub fn new(
        choice: EncoderChoice,
        options: ContrastiveOptions,
        tokenizer: &Tokenizer,
        pictures: Arc<dyn Pictures>,
        captions: &[Vec<String>],
    ) -> Result<Self, TrainError> {
        options.check()?;
        if pictures.count() != captions.len() {
            return Err(TrainError::Refused(format!(
                "{} pictures came with captions for {}",
                pictures.count(),
                captions.len()
            )));
        }
        let encoder = choice.build(Outputs::Last, &Device::flex())?;
        let captions = captions
            .par_iter()
            .enumerate()
            .map(|(index, texts)| caption_tokens(tokenizer, texts, index, options.context))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            choice,
            options,
            vocabulary: tokenizer.vocab_size(),
            preprocessor: encoder.preprocessor(),
            pictures,
            captions,
        })
    }

    fn first_value(&self, path: &str, shape: &[usize]) -> Start {
        match path {
            "logit_scale" => Start::Constant(self.options.temperature.ln()),
            "logit_bias" => Start::Constant(self.options.bias),
            "text.tokens.weight" | "text.position" => Start::Normal(0.02),
            path if path.starts_with("encoder.") => first_value(&self.choice.config, path, shape),
            path => plain(path, shape, Start::Xavier),
        }
    }
}

/// The captions of a picture as tokens, at most `context` each.
fn caption_tokens(
    tokenizer: &Tokenizer,
    texts: &[String],
    index: usize,
    context: usize,
) -> Result<Vec<Vec<u32>>, TrainError> {
    let mut captions = Vec::with_capacity(texts.len());
    for text in texts {
        let mut tokens = document(tokenizer, text)?;
        tokens.truncate(context);
        if !tokens.is_empty() {
            captions.push(tokens);
        }
    }
    if captions.is_empty() {
        return Err(TrainError::Refused(format!(
            "picture {index} has no caption: contrastive training needs one for each"
        )));
    }
    Ok(captions)
}

impl EncoderTask for ContrastiveTask {
    fn module(&self, seed: u64, device: &Device) -> Result<ContrastiveModel, TrainError> {
        let encoder = self.choice.build(Outputs::Last, device)?;
        let width = encoder.width();
        let model = ContrastiveModel {
            image_norm: LayerNorm::new(width, 1e-6, device),
            image_projection: Linear::new(width, self.options.joint, false, device),
            text: TextTower::new(&self.options, self.vocabulary, device),
            logit_scale: Initializer::Zeros.init([1], device),
            logit_bias: Initializer::Zeros.init([1], device),
            encoder,
        };
        let mut model = start(model, seed, |path, shape| self.first_value(path, shape));
        model.encoder = self.choice.with_weights(model.encoder, device)?;
        Ok(model)
    }

    /// The captions as the tokenizer has cut them.
    fn supervision(&self) -> Result<Option<String>, TrainError> {
        let mut hash = Sha256::new();
        for caption in self.captions.iter().flatten() {
            hash.update((caption.len() as u64).to_le_bytes());
            for token in caption {
                hash.update(token.to_le_bytes());
            }
        }
        let digest = hash.finalize();
        Ok(Some(digest.iter().map(|b| format!("{b:02x}")).collect()))
    }

    fn encoder(module: &ContrastiveModel) -> &Encoder {
        &module.encoder
    }
}

impl Task for ContrastiveTask {
    type Module = ContrastiveModel;
    type Batch = ContrastiveBatch;

    fn samples(&self) -> usize {
        self.captions.len()
    }

    fn plan(&self, seed: u64, epoch: usize, batch: usize) -> Vec<Vec<u32>> {
        shuffled(self.captions.len(), batch.max(1), seed, epoch)
    }

    fn load(
        &self,
        samples: &[u32],
        random: &mut ChaCha8Rng,
    ) -> Result<Option<ContrastiveBatch>, TrainError> {
        if samples.is_empty() {
            return Ok(None);
        }
        let pixels = prepared(self.pictures.as_ref(), samples, &self.preprocessor)?;
        let captions: Vec<&[u32]> = samples
            .iter()
            .map(|&sample| {
                // Every picture has a caption, `new` has seen to that.
                let choices = &self.captions[sample as usize];
                choices[below(random, choices.len() as u64) as usize].as_slice()
            })
            .collect();
        let same = captions
            .iter()
            .flat_map(|first| captions.iter().map(move |second| first == second))
            .collect();
        Ok(Some(ContrastiveBatch {
            pixels,
            captions: Captions::new(&captions),
            same,
        }))
    }

    fn terms(&self, batch: &ContrastiveBatch) -> usize {
        batch.captions.rows
    }

    fn size(&self, batch: &ContrastiveBatch) -> BatchSize {
        BatchSize {
            samples: batch.captions.rows,
            tokens: batch.captions.tokens.len(),
            pictures: batch.pixels.batch(),
        }
    }

    fn loss(
        &self,
        module: &ContrastiveModel,
        batch: &ContrastiveBatch,
        device: &Device,
    ) -> Result<LossSum, TrainError> {
        let pictures = module.embed_pictures(pixel_tensor(batch.pixels.clone(), device));
        let texts = module.text.forward(&batch.captions, device);
        let logits = module.logits(pictures, texts);
        let found = retrieved(&logits, &batch.same);
        Ok(LossSum {
            sum: sigmoid_pairs(logits, counted_pairs(&batch.same, device)),
            metrics: vec![Metric {
                name: "retrieval".into(),
                sum: found as f64,
                count: batch.captions.rows as f64,
            }],
        })
    }
}

/// 1 for a pair that counts, 0 for a picture and the equal caption of another, `[n, n]`.
fn counted_pairs(same: &[bool], device: &Device) -> Tensor<2> {
    let n = same.len().isqrt();
    let counts = |(place, same): (usize, &bool)| f32::from(!*same || place / n == place % n);
    let values: Vec<f32> = same.iter().enumerate().map(counts).collect();
    Tensor::from_data(TensorData::new(values, [n, n]), device)
}

/// Pictures whose most likely caption is theirs.
fn retrieved(logits: &Tensor<2>, same: &[bool]) -> usize {
    let [n, _] = logits.dims();
    let best = logits.clone().inner().argmax(1).into_data();
    best.iter::<i64>()
        .enumerate()
        .filter(|&(picture, caption)| {
            usize::try_from(caption).is_ok_and(|caption| same[picture * n + caption])
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_captions_are_no_negatives() {
        let (a, b) = ([1, 2, 3], [4, 5]);
        let captions: [&[u32]; 3] = [&a, &b, &a];
        let same: Vec<bool> = captions
            .iter()
            .flat_map(|x| captions.iter().map(move |y| x == y))
            .collect();
        let counted = counted_pairs(&same, &Device::flex()).into_data();
        let expected = [1., 1., 0., 1., 1., 1., 0., 1., 1.];
        assert_eq!(counted.try_to_vec::<f32>().unwrap(), expected);
    }

    #[test]
    fn any_equal_caption_is_found() {
        let device = Device::flex().autodiff();
        let logits = Tensor::<2>::from_floats([[0., 1.], [0., 1.]], &device);
        assert_eq!(retrieved(&logits, &[true, false, false, true]), 1);
        assert_eq!(retrieved(&logits, &[true; 4]), 2);
    }

    #[test]
    fn padding_counts_nothing_in_a_mean() {
        let captions = Captions::new(&[&[7, 8], &[9]]);
        assert_eq!(captions.tokens, [7, 8, 9, 0]);
        let device = Device::flex();
        let shares = captions.shares(&device).into_data();
        assert_eq!(shares.try_to_vec::<f32>().unwrap(), [0.5, 0.5, 1.0, 0.0]);
        let AttentionMask::Hidden(mask) = captions.mask(&device) else {
            panic!("a shorter row is masked")
        };
        let hidden = mask.into_data().try_to_vec::<bool>().unwrap();
        assert_eq!(
            hidden,
            [false, false, false, false, false, true, false, true]
        );
    }
}
