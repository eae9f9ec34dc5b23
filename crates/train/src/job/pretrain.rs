//! The stages that make something to start from: encoders, and a decoder with its tokenizer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use opabinia_data::{Sample, SampleSet};
use opabinia_image::ImageLimits;
use opabinia_llm::{ChatTemplate, Conversation, IMAGE_PLACEHOLDER, Role, Tokenizer, Turn};
use opabinia_vision::{EncoderConfig, EncoderSpec};
use sha2::{Digest, Sha256};

use super::stages::For;
use super::{Done, Driven, Job, Order, names};
use crate::TrainError;
use crate::pretrain::{
    ContrastiveOptions, ContrastiveTask, DecoderSizes, DenseTask, EncoderChoice, EncoderTask,
    LabelFiles, LanguageTask, MaeOptions, MaeTask, PictureFiles, TokenizerOptions,
    TransformerSizes, train_tokenizer,
};
use crate::recipe::{
    ContrastiveTable, DecoderTable, DenseTable, EncoderTable, MaeTable, TextTable, TokenizerTable,
};

/// The folder of a run that holds the tokenizer that was trained for it.
const TOKENIZER: &str = "tokenizer";

impl Job<'_> {
    pub(super) fn language(
        &self,
        table: &DecoderTable,
        tokenizer: &TokenizerTable,
        order: Order<'_>,
    ) -> Result<Done, TrainError> {
        let template = ChatTemplate::by_name(&tokenizer.template)
            .map_err(|error| TrainError::Refused(error.to_string()))?;
        let samples = self.samples(&self.recipe.data.files)?;
        let folder = self.folder.join(TOKENIZER);
        let tokens = self.tokenizer(table, tokenizer, template, &samples, &folder)?;
        let sizes = DecoderSizes {
            hidden: table.hidden,
            layers: table.layers,
            heads: table.heads,
            kv_heads: table.kv_heads,
            intermediate: table.intermediate,
            max_position: table.max_position,
            rope_theta: table.rope_theta,
            tied_head: table.tied_head,
            attention: table.attention,
        };
        let task = |samples: &[Sample]| {
            let texts = documents(template, samples)?;
            let length = table.row_length;
            LanguageTask::new(
                sizes.clone(),
                tokens.clone(),
                &texts,
                length,
                self.recipe.seed,
            )
        };
        let validation = match &self.recipe.data.validation {
            Some(file) => {
                let samples = self.samples(std::slice::from_ref(file))?;
                Some(Arc::new(task(&samples)?))
            }
            None => None,
        };
        let task = task(&samples)?;
        let config = sizes.decoder(&tokens)?;
        let driven = Driven {
            module: task.module(self.recipe.seed, &self.device),
            name_of: &names::decoder(&config),
            data: hash_of(&samples),
            task: Arc::new(task),
            validation,
        };
        let dtype = self.weights();
        self.drive(driven, order, |task, module, out| {
            task.finish(&module, template, &folder, out, dtype)
        })
    }

    /// The run's tokenizer: that of an earlier call, if a checkpoint was trained with it, or a new
    /// one.
    fn tokenizer(
        &self,
        table: &DecoderTable,
        wanted: &TokenizerTable,
        template: &ChatTemplate,
        samples: &[Sample],
        folder: &Path,
    ) -> Result<Tokenizer, TrainError> {
        let is_there = folder.join("tokenizer_config.json").is_file();
        // Without a checkpoint, an earlier call may have been killed while it wrote this one.
        let is_whole = || Ok::<_, TrainError>(self.run_folder()?.newest()?.is_some());
        if is_there && (!self.keeps || is_whole()?) {
            return Ok(Tokenizer::from_folder(folder)?);
        }
        let mut texts = vec![template.system.clone()];
        for sample in samples {
            texts.extend(sample.turns.iter().map(|turn| without_picture(&turn.text)));
        }
        let options = TokenizerOptions {
            vocabulary: wanted.vocabulary,
            template: wanted.template.clone(),
            max_length: table.max_position,
        };
        if self.keeps {
            std::fs::create_dir_all(folder).map_err(super::io("make", folder))?;
            return train_tokenizer(texts.into_iter(), &options, folder);
        }
        let elsewhere = tempfile::tempdir().map_err(super::io("make", &std::env::temp_dir()))?;
        train_tokenizer(texts.into_iter(), &options, elsewhere.path())
    }

    pub(super) fn contrastive(
        &self,
        table: &EncoderTable,
        text: &TextTable,
        loss: &ContrastiveTable,
        order: Order<'_>,
    ) -> Result<Done, TrainError> {
        let choice = choose(table)?;
        let tokenizer = Tokenizer::from_folder(&text.tokenizer)?;
        let options = ContrastiveOptions {
            text: TransformerSizes {
                width: text.width,
                layers: text.layers,
                heads: text.heads,
            },
            context: text.max_tokens,
            joint: loss.embedding,
            temperature: loss.temperature,
            bias: loss.bias,
        };
        self.encoder(order, |samples, purpose| {
            let (paths, captions) = self.captions(samples, purpose)?;
            let choice = choice.clone();
            ContrastiveTask::new(choice, options, &tokenizer, pictures(paths), &captions)
        })
    }

    pub(super) fn mae(
        &self,
        table: &EncoderTable,
        masking: &MaeTable,
        order: Order<'_>,
    ) -> Result<Done, TrainError> {
        let choice = choose(table)?;
        let options = MaeOptions {
            mask: masking.mask_ratio,
            normalise: masking.normalize_pixels,
            decoder: TransformerSizes {
                width: masking.decoder_width,
                layers: masking.decoder_layers,
                heads: masking.decoder_heads,
            },
        };
        self.encoder(order, |samples, purpose| {
            let (_, paths) = self.named_pictures(samples, purpose)?;
            MaeTask::new(choice.clone(), options, pictures(paths))
        })
    }

    pub(super) fn dense(
        &self,
        table: &EncoderTable,
        maps: &DenseTable,
        order: Order<'_>,
    ) -> Result<Done, TrainError> {
        let choice = choose(table)?;
        self.encoder(order, |samples, purpose| {
            let (names, paths) = self.named_pictures(samples, purpose)?;
            let folder = match (purpose, &maps.validation_labels) {
                (For::Validation, Some(folder)) => folder,
                _ => &maps.labels,
            };
            let labels = LabelFiles::open(folder, &names)?.with_planes(&maps.planes)?;
            labels.mean_the_same_as(&maps.labels)?;
            DenseTask::new(choice.clone(), pictures(paths), labels)
        })
    }

    /// What all trainings of encoders have in common; `make` puts the task together for some samples.
    fn encoder<T>(
        &self,
        order: Order<'_>,
        make: impl Fn(&[Sample], For) -> Result<T, TrainError>,
    ) -> Result<Done, TrainError>
    where
        T: EncoderTask + 'static,
        T::Batch: Sync,
        T::Module: Sync,
    {
        let validation = match &self.recipe.data.validation {
            Some(file) => {
                let samples = self.samples(std::slice::from_ref(file))?;
                Some(Arc::new(make(&samples, For::Validation)?))
            }
            None => None,
        };
        let samples = self.samples(&self.recipe.data.files)?;
        let task = make(&samples, For::Training)?;
        let mut data = hash_of(&samples);
        if let Some(more) = task.supervision()? {
            data = format!("{data} {more}");
        }
        let driven = Driven {
            module: task.module(self.recipe.seed, &self.device)?,
            name_of: &str::to_owned,
            data,
            task: Arc::new(task),
            validation,
        };
        let dtype = self.weights();
        self.drive(driven, order, |task, module, out| {
            task.finish(&module, out, dtype)
        })
    }

    /// Every picture once: its name in the samples, and where it is.
    fn named_pictures(
        &self,
        samples: &[Sample],
        purpose: For,
    ) -> Result<(Vec<String>, Vec<PathBuf>), TrainError> {
        let root = self.required_root(purpose)?;
        let names: BTreeSet<&String> = samples.iter().filter_map(|s| s.image.as_ref()).collect();
        Ok(names
            .into_iter()
            .map(|name| (name.clone(), root.join(name)))
            .unzip())
    }

    fn required_root(&self, purpose: For) -> Result<PathBuf, TrainError> {
        let root = self.picture_root(purpose).ok_or_else(no_pictures)?;
        Ok(root.to_path_buf())
    }

    /// All samples of some files. Pretraining data is made by this program or chosen by somebody, so
    /// the first bad sample stops the run.
    fn samples(&self, files: &[PathBuf]) -> Result<Vec<Sample>, TrainError> {
        let set = SampleSet::open(files)?;
        (0..set.len())
            .map(|i| {
                set.sample(i)
                    .map_err(|error| TrainError::Refused(error.in_full()))
            })
            .collect()
    }

    /// Every picture once, with all that is said about it.
    fn captions(
        &self,
        samples: &[Sample],
        purpose: For,
    ) -> Result<(Vec<PathBuf>, Vec<Vec<String>>), TrainError> {
        let root = self.required_root(purpose)?;
        let mut found: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for sample in samples {
            if let Some(image) = &sample.image {
                let texts = found.entry(image).or_default();
                let answers = sample
                    .turns
                    .iter()
                    .filter(|turn| turn.role == Role::Assistant);
                texts.extend(answers.map(|turn| turn.text.clone()));
            }
        }
        Ok(found
            .into_iter()
            .map(|(image, texts)| (root.join(image), texts))
            .unzip())
    }
}

fn pictures(paths: Vec<PathBuf>) -> Arc<PictureFiles> {
    Arc::new(PictureFiles::new(paths, ImageLimits::default()))
}

fn choose(table: &EncoderTable) -> Result<EncoderChoice, TrainError> {
    let spec = EncoderSpec::parse(&table.name)?;
    let config = match &table.config {
        None => spec.entry.config,
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(super::io("read", path))?;
            let json = serde_json::from_str(&text).map_err(|error| {
                TrainError::Refused(format!("{} is not JSON: {error}", path.display()))
            })?;
            EncoderConfig::from_json(&json, path)?
        }
    };
    Ok(EncoderChoice {
        spec,
        config,
        weights: table.weights.clone(),
    })
}

/// What a decoder reads: every conversation as the template writes it, without pictures.
fn documents(template: &ChatTemplate, samples: &[Sample]) -> Result<Vec<String>, TrainError> {
    let render = |sample: &Sample| {
        let turn = |turn: &opabinia_data::Turn| match turn.role {
            Role::Assistant => Turn::assistant(turn.text.clone()),
            _ => Turn::user(without_picture(&turn.text)),
        };
        let turns = sample.turns.iter().map(turn).collect();
        match template.render(&Conversation::new(turns)) {
            // What follows the last answer asks for another one, which never comes.
            Ok(mut rendered) => {
                let end = rendered.answers.last().map_or(0, |answer| answer.end);
                rendered.text.truncate(end);
                Ok(rendered.text)
            }
            Err(error) => Err(TrainError::Refused(format!("{}: {error}", sample.place))),
        }
    };
    samples.iter().map(render).collect()
}

fn without_picture(text: &str) -> String {
    text.replace(IMAGE_PLACEHOLDER, "").trim().to_owned()
}

pub(super) fn no_pictures() -> TrainError {
    TrainError::Refused(
        "the recipe does not say where pictures are; set `images` in `[data]`".into(),
    )
}

fn hash_of(samples: &[Sample]) -> String {
    let mut hash = Sha256::new();
    for sample in samples {
        hash.update(sample.to_line());
        hash.update("\n");
    }
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}
