//! Kind `model`: whole models, from a picture and a question to greedy tokens.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::prelude::*;
use burn::tensor::TensorData;
use opabinia_image::{ImageLimits, ImageSource, RgbImage, load};
use opabinia_llm::{
    ChatTemplate, Conversation, KvCache, NoHook, PromptToken, SamplingOptions, Step, Turn,
};
use opabinia_nn::Trace;
use serde::Deserialize;

use super::case::{Tolerance, compare_values, equal};
use super::{Case, CaseError, Check};
use crate::generate::Generation;
use crate::load::{LoadModel, Model};
use crate::pack::{Packed, Prompt};
use crate::see::Seen;
use crate::{ImagePosition, ModelError};

#[derive(Deserialize)]
struct Run {
    kind: String,
    conv_mode: String,
    prompt: Option<String>,
    turns: Option<Vec<(String, Option<String>)>>,
    image: Option<String>,
    seq_len: Option<usize>,
    image_index_in_ids: Option<Vec<usize>>,
    final_size_hw: Option<(usize, usize)>,
    greedy_ids: Option<Vec<u32>>,
    greedy_text: Option<String>,
    step_logits_steps: Option<Vec<usize>>,
    logits_from_position: Option<usize>,
    prompts: Option<Vec<String>>,
    image_sizes_wh: Option<Vec<(u32, u32)>>,
    lengths: Option<Vec<usize>>,
}

pub(super) fn run(case: &Case) -> Result<Vec<Check>, CaseError> {
    let runs: BTreeMap<String, Run> =
        Deserialize::deserialize(&case.json["runs"]).map_err(|source| CaseError::Json {
            path: case.folder.join("case.json"),
            source,
        })?;
    let options = LoadModel {
        dtype: case.dtype,
        device: case.device.clone(),
        ..LoadModel::default()
    };
    let (model, loaded) = Model::load(&case.folder, &options)?;
    loaded.main.deny_unused()?;
    let tolerance = case.tolerance()?;
    let bench = Bench {
        case,
        model,
        tolerance,
    };
    let mut checks = Vec::new();
    for (name, run) in &runs {
        let found = match run.kind.as_str() {
            "single" => bench.single(name, run),
            "batch" => bench.batch(name, run),
            other => Err(case.wrong(format!("run `{name}` is of kind `{other}`"))),
        };
        checks.extend(found?);
    }
    Ok(checks)
}

struct Bench<'a> {
    case: &'a Case,
    model: Model,
    tolerance: Tolerance,
}

impl Bench<'_> {
    fn single(&self, name: &str, run: &Run) -> Result<Vec<Check>, CaseError> {
        let mut checks = Vec::new();
        let template = ChatTemplate::by_name(&run.conv_mode).map_err(ModelError::from)?;
        let conversation = conversation(run);
        let prompt = self.model.prompt_with(template, &conversation)?;
        if let Some(text) = &run.prompt {
            checks.push(equal(&format!("{name}.prompt"), &prompt.text, text));
        }
        checks.push(self.input_ids(name, &prompt)?);

        let mut trace = Trace::on();
        let picture = run
            .image
            .as_ref()
            .map(|image| self.picture(image))
            .transpose()?;
        let seen = match &picture {
            Some(picture) => vec![self.model.see(picture, &mut trace)?],
            None => Vec::new(),
        };
        let packed = self.model.pack(&[(&prompt, &seen)])?;
        checks.extend(shape_checks(name, run, &packed, &seen));
        let (hidden, cache) = self
            .model
            .forward(&packed, ImagePosition::Config, &mut trace)?;
        checks.extend(self.traced(name, trace)?);
        checks.extend(self.logits(name, run, hidden.clone())?);
        checks.extend(self.greedy(name, run, &packed, hidden, cache)?);
        Ok(checks)
    }

    fn input_ids(&self, name: &str, prompt: &Prompt) -> Result<Check, CaseError> {
        let name = format!("{name}.input_ids");
        let ids = ids_of(&prompt.tokens);
        Ok(compare_values(
            &name,
            &ids,
            &self.case.tensor(&name)?.values,
            EXACT,
        ))
    }

    /// Every intermediate value that the case holds for this run.
    fn traced(&self, run: &str, trace: Trace) -> Result<Vec<Check>, CaseError> {
        let mut checks = Vec::new();
        for (key, data) in trace.into_tensors() {
            let key = match key.strip_prefix("pixels") {
                Some(encoder) => format!("pixels.{run}.tower{encoder}"),
                None => format!("{run}.{key}"),
            };
            if self.case.tensors.contains_key(&key) {
                checks.push(self.case.compare(&key, &data, self.tolerance)?);
            }
        }
        Ok(checks)
    }

    fn logits(&self, name: &str, run: &Run, hidden: Tensor<3>) -> Result<Vec<Check>, CaseError> {
        let mut checks = Vec::new();
        let length = hidden.dims()[1];
        let mut from = |key: String, first: usize| -> Result<(), CaseError> {
            if self.case.tensors.contains_key(&key) {
                let logits = self.scores(hidden.clone(), first..length);
                checks.push(self.case.compare(&key, &logits, self.tolerance)?);
            }
            Ok(())
        };
        let tail = self.case.tensors.get(&format!("{name}.logits_tail"));
        let tail = tail
            .and_then(|tensor| tensor.shape.get(1))
            .copied()
            .unwrap_or(0);
        from(format!("{name}.logits_tail"), length.saturating_sub(tail))?;
        from(
            format!("{name}.logits_from"),
            run.logits_from_position.unwrap_or(0).min(length),
        )?;
        Ok(checks)
    }

    /// `[1, n, vocab]` of some positions.
    fn scores(&self, hidden: Tensor<3>, positions: std::ops::Range<usize>) -> TensorData {
        let [b, _, d] = hidden.dims();
        let n = positions.len();
        let rows = hidden.slice([0..b, positions, 0..d]).reshape([b * n, d]);
        let logits = self.model.network.decoder.logits(rows);
        let vocab = logits.dims()[1];
        logits.reshape([b, n, vocab]).into_data()
    }

    /// Greedy tokens through the public generation, and logits of single steps behind the cache.
    fn greedy(
        &self,
        name: &str,
        run: &Run,
        packed: &Packed,
        hidden: Tensor<3>,
        mut cache: KvCache,
    ) -> Result<Vec<Check>, CaseError> {
        let Some(expected) = &run.greedy_ids else {
            return Ok(Vec::new());
        };
        let generation = Generation {
            sampling: SamplingOptions {
                max_new_tokens: expected.len().max(1),
                ..SamplingOptions::default()
            },
            // A small chunk, so that pictures are cut in two.
            prefill_chunk: 100,
            stop_at_template_end: false,
            ..Generation::default()
        };
        let mut answers = self.model.generate(packed, &generation, &mut |_, _| true)?;
        let answer = answers.pop().ok_or_else(|| self.case.wrong("no answer"))?;
        let ends = self.model.end_ids(&generation);
        let written: Vec<u32> = expected
            .iter()
            .copied()
            .filter(|id| !ends.contains(id))
            .collect();
        let mut checks = Vec::new();
        if self.case.reduced_tolerance().is_none() {
            checks.push(equal(&format!("{name}.greedy_ids"), &answer.ids, &written));
            if let Some(text) = &run.greedy_text {
                let ours = answer.text.as_str();
                checks.push(equal(&format!("{name}.greedy_text"), &ours, &text.as_str()));
            }
        }
        let vocab = self.model.config.decoder.vocab;
        if let Some(id) = expected.iter().find(|&&id| id as usize >= vocab) {
            let reason = format!("greedy id {id} of run `{name}` is no row of the embedding table");
            return Err(self.case.wrong(reason));
        }
        let Some(steps) = &run.step_logits_steps else {
            return Ok(checks);
        };
        let length = packed.len();
        let mut logits = vec![self.scores(hidden, length - 1..length)];
        for (i, &id) in expected.iter().enumerate() {
            let embedding = self.model.network.decoder.embed(&[id], &self.model.device);
            let step = Step::contiguous(embedding.unsqueeze_dim(0), length + i);
            let hidden = self
                .model
                .network
                .decoder
                .forward(step, &mut cache, &mut NoHook);
            logits.push(self.scores(hidden, 0..1));
        }
        let key = format!("{name}.step_logits");
        let ours: Vec<f64> = steps
            .iter()
            .filter_map(|&step| logits.get(step))
            .flat_map(|data| {
                data.clone()
                    .convert::<f64>()
                    .iter::<f64>()
                    .collect::<Vec<_>>()
            })
            .collect();
        checks.push(self.case.compare_list(&key, &ours, self.tolerance)?);
        Ok(checks)
    }

    /// Several rows of unequal length at once.
    fn batch(&self, name: &str, run: &Run) -> Result<Vec<Check>, CaseError> {
        let texts = run.prompts.clone().unwrap_or_default();
        let sizes = run.image_sizes_wh.clone().unwrap_or_default();
        let mut prompts = Vec::new();
        for text in texts {
            let tokens = self
                .model
                .tokenizer
                .encode_with_images(&text)
                .map_err(ModelError::from)?;
            prompts.push(Prompt { text, tokens });
        }
        let pictures = sizes
            .iter()
            .map(|&size| self.picture_of_size(size))
            .map(|picture| Ok(vec![self.model.see(&picture?, &mut Trace::off())?]))
            .collect::<Result<Vec<Vec<Arc<Seen>>>, CaseError>>()?;
        let rows: Vec<(&Prompt, &[Arc<Seen>])> = prompts
            .iter()
            .zip(&pictures)
            .map(|(p, s)| (p, s.as_slice()))
            .collect();
        let packed = self.model.pack(&rows)?;

        let mut checks = vec![self.padded_ids(name, &prompts)?];
        let lengths: Vec<usize> = packed.rows.iter().map(|row| row.length).collect();
        let expected = run.lengths.clone().unwrap_or_default();
        checks.push(equal(&format!("{name}.lengths"), &lengths, &expected));
        let mask: Vec<f64> = lengths
            .iter()
            .flat_map(|&n| (0..packed.len()).map(move |i| f64::from(u8::from(i < n))))
            .collect();
        let key = format!("{name}.attention_mask");
        checks.push(compare_values(
            &key,
            &mask,
            &self.case.tensor(&key)?.values,
            EXACT,
        ));
        let grids: Vec<f64> = pictures
            .iter()
            .flatten()
            .flat_map(|seen| &seen.connected.grids)
            .flat_map(|grid| [grid.rows as f64, grid.cols as f64])
            .collect();
        let key = format!("{name}.final_sizes");
        checks.push(compare_values(
            &key,
            &grids,
            &self.case.tensor(&key)?.values,
            EXACT,
        ));

        let (hidden, _) = self
            .model
            .forward(&packed, ImagePosition::Config, &mut Trace::off())?;
        let [_, _, d] = hidden.dims();
        let last = lengths.iter().enumerate().map(|(i, &n)| {
            hidden
                .clone()
                .slice([i..i + 1, n - 1..n, 0..d])
                .reshape([1, d])
        });
        let last = Tensor::<2>::cat(last.collect(), 0);
        let logits = self.model.network.decoder.logits(last).into_data();
        checks.push(
            self.case
                .compare(&format!("{name}.last_logits"), &logits, self.tolerance)?,
        );
        Ok(checks)
    }

    /// Ids of every row against the reference's padded ones, where its mask says they count.
    fn padded_ids(&self, name: &str, prompts: &[Prompt]) -> Result<Check, CaseError> {
        let key = format!("{name}.input_ids");
        let padded = self.case.tensor(&key)?;
        let mask = self.case.tensor(&format!("{name}.attention_mask_in"))?;
        let counted = padded
            .values
            .iter()
            .zip(&mask.values)
            .filter(|(_, mask)| **mask > 0.5);
        let theirs: Vec<f64> = counted.map(|(id, _)| *id).collect();
        let ours: Vec<f64> = prompts
            .iter()
            .flat_map(|prompt| ids_of(&prompt.tokens))
            .collect();
        Ok(compare_values(&key, &ours, &theirs, EXACT))
    }

    fn picture(&self, image: &str) -> Result<RgbImage, CaseError> {
        let path = self.case.folder.join("images").join(format!("{image}.png"));
        Ok(load(&ImageSource::File(path), &ImageLimits::default())?)
    }

    /// A batch names its pictures by size only.
    fn picture_of_size(&self, size: (u32, u32)) -> Result<RgbImage, CaseError> {
        for image in ["square", "wide", "tall"] {
            let picture = self.picture(image)?;
            if picture.size() == size {
                return Ok(picture);
            }
        }
        Err(self
            .case
            .wrong(format!("no picture of {} × {} pixels", size.0, size.1)))
    }
}

const EXACT: Tolerance = Tolerance {
    max_abs: 0.0,
    rel: 0.0,
};

/// Ids as the reference has them, −200 for an image.
fn ids_of(tokens: &[PromptToken]) -> Vec<f64> {
    tokens
        .iter()
        .map(|token| match token {
            PromptToken::Text(id) => f64::from(*id),
            PromptToken::Image => -200.0,
        })
        .collect()
}

fn conversation(run: &Run) -> Conversation {
    let mut turns = Vec::new();
    for (question, answer) in run.turns.iter().flatten() {
        turns.push(Turn::user(question));
        turns.push(answer.as_ref().map_or_else(Turn::open, Turn::assistant));
    }
    Conversation::new(turns).with_images(usize::from(run.image.is_some()))
}

fn shape_checks(name: &str, run: &Run, packed: &Packed, seen: &[Arc<Seen>]) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Some(length) = run.seq_len {
        checks.push(equal(&format!("{name}.seq_len"), &packed.len(), &length));
    }
    if let Some(indices) = &run.image_index_in_ids {
        let ours: Vec<usize> = packed.rows[0]
            .pictures
            .iter()
            .map(|span| span.start)
            .collect();
        checks.push(equal(&format!("{name}.image_index"), &ours, indices));
    }
    if let (Some(size), Some(seen)) = (run.final_size_hw, seen.first()) {
        let grid = (seen.view.rows, seen.view.cols);
        checks.push(equal(&format!("{name}.final_size"), &grid, &size));
    }
    checks
}
