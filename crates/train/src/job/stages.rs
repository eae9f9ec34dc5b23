//! The two stages of the recipe, and the connector's words before them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::Module as _;
use opabinia_data::features::{FeatureStore, Precision as StorePrecision};
use opabinia_data::mask::Masker;
use opabinia_data::pictures::PictureFolder;
use opabinia_data::{Faults, SampleSet};
use opabinia_image::ImageLimits;
use opabinia_model::config::VisionConfig;
use opabinia_model::{EncoderPlacement, LoadModel, LossOptions, Model, Network, SaveOptions};
use opabinia_vision::Encoder;
use opabinia_weights::{Checkpoint, WeightDtype};

use super::names::NetworkNames;
use super::preflight::bytes_per_picture;
use super::pretrain::no_pictures;
use super::{Done, Driven, Finished, Job, Order, Preflight};
use crate::TrainError;
use crate::engine::run_folder::Totals;
use crate::groups::Part;
use crate::lexical::{LexicalData, LexicalTask};
use crate::lora;
use crate::recipe::{self, FeatureCache, Folders, LexicalTable, ModelStart};
use crate::stage::{Eyes, FrozenEyes, StageData, StageTask};

/// The lists of bad samples in the run's folder.
const FAULTS: &str = "faults.jsonl";
const VALIDATION_FAULTS: &str = "validation-faults.jsonl";

/// What samples are for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    Training,
    Validation,
}

impl Job<'_> {
    /// Where the pictures of some samples are, if they have any: the folder of all files, or of the
    /// first.
    pub(super) fn picture_root(&self, purpose: For) -> Option<&PathBuf> {
        let data = &self.recipe.data;
        let training = match &data.images {
            Some(Folders::One(folder)) => Some(folder),
            Some(Folders::OfFiles(folders)) => folders.first(),
            None => None,
        };
        match purpose {
            For::Training => training,
            For::Validation => data.validation_images.as_ref().or(training),
        }
    }

    fn pictures(&self, purpose: For) -> Result<Option<PictureFolder>, TrainError> {
        let Some(root) = self.picture_root(purpose) else {
            return Ok(None);
        };
        let mut pictures = PictureFolder::open(root, ImageLimits::default())?;
        let data = &self.recipe.data;
        if let (For::Training, Some(Folders::OfFiles(folders))) = (purpose, &data.images) {
            for (file, folder) in data.files.iter().zip(folders) {
                pictures = pictures.with_file(file, folder)?;
            }
        }
        Ok(Some(pictures))
    }

    pub(super) fn stage(
        &self,
        wanted: &recipe::Model,
        order: Order<'_>,
    ) -> Result<Done, TrainError> {
        let model = self.model(wanted)?;
        let task = Arc::new(self.task(&model, &self.recipe.data.files, For::Training)?);
        let validation = match &self.recipe.data.validation {
            Some(file) => {
                let files = std::slice::from_ref(file);
                Some(Arc::new(self.task(&model, files, For::Validation)?))
            }
            None => None,
        };
        let names = self.names(&model)?;
        let per_picture = bytes_per_picture(&model);
        let driven = Driven {
            module: model.network.clone(),
            name_of: &|path: &str| names.of(path),
            data: data_hash(task.sample_set()),
            task: task.clone(),
            validation: validation.clone(),
        };
        let done = self.drive(driven, order, |_, network, folder| {
            let mut model = self.trained(model, network);
            if let Some(lora) = &self.recipe.lora {
                lora::write(&model.network.decoder, lora, folder)?;
                model.network.decoder = lora::merge(model.network.decoder);
            }
            self.save(&model, folder)
        })?;
        let faults = || summary(task.faults(), validation.as_ref().map(|task| task.faults()));
        Ok(match done {
            Done::Trained(finished) => {
                let Totals {
                    samples, pictures, ..
                } = finished.totals;
                Done::Trained(Finished {
                    faults: faults(),
                    shortened: task.shortened(),
                    text_only: Some(samples.saturating_sub(pictures)).filter(|_| pictures > 0),
                    ..finished
                })
            }
            Done::Preflight(preflight) => {
                let preflight = preflight.with_samples(self, &task, per_picture)?;
                // The samples that are shown are looked at just now.
                Done::Preflight(Preflight {
                    faults: faults(),
                    ..preflight
                })
            }
            other @ Done::Replayed(_) => other,
        })
    }

    pub(super) fn lexical(
        &self,
        wanted: &recipe::Model,
        table: &LexicalTable,
        order: Order<'_>,
    ) -> Result<Done, TrainError> {
        let model = self.model(wanted)?;
        let task = |files: &[PathBuf], labels: &Folders, purpose: For| {
            let pictures = self.pictures(purpose)?.ok_or_else(no_pictures)?;
            let labels = match labels {
                Folders::One(folder) => vec![folder.clone(); files.len()],
                Folders::OfFiles(folders) => folders.clone(),
            };
            let samples = SampleSet::open(files)?;
            let faults = self.faults(&samples, purpose)?;
            let hash = data_hash(&samples);
            let data = LexicalData::new(&samples, pictures, &labels, faults)?;
            let hash = format!("{hash} {}", data.hash()?);
            let eyes = FrozenEyes::new(&model, &self.main, self.feature_store()?);
            Ok::<_, TrainError>((LexicalTask::new(data, table, &model, eyes)?, hash))
        };
        let data = &self.recipe.data;
        let validation = match (&data.validation, &table.validation_labels) {
            (Some(file), Some(labels)) => {
                let files = std::slice::from_ref(file);
                let labels = Folders::One(labels.clone());
                Some(Arc::new(task(files, &labels, For::Validation)?.0))
            }
            _ => None,
        };
        let (task, data) = task(&data.files, &table.labels, For::Training)?;
        let task = Arc::new(task);
        let names = self.names(&model)?;
        let driven = Driven {
            module: model.network.clone(),
            name_of: &|path: &str| names.of(path),
            data,
            task: task.clone(),
            validation: validation.clone(),
        };
        let done = self.drive(driven, order, |_, network, folder| {
            self.save(&self.trained(model, network), folder)
        })?;
        let faults = summary(task.faults(), validation.as_ref().map(|task| task.faults()));
        Ok(match done {
            Done::Trained(finished) => Done::Trained(Finished { faults, ..finished }),
            Done::Preflight(preflight) => Done::Preflight(Preflight {
                faults,
                ..preflight
            }),
            other @ Done::Replayed(_) => other,
        })
    }

    /// A model with what became of its parameters, as it is written.
    fn trained(&self, mut model: Model, network: Network) -> Model {
        model.network = network.valid();
        model.device = self.main.clone();
        model
    }

    /// What checkpoints call the parameters of a model.
    fn names(&self, model: &Model) -> Result<NetworkNames, TrainError> {
        let connector = match &model.config.vision {
            Some(vision) => {
                let widths: Vec<usize> =
                    model.network.encoders.iter().map(Encoder::width).collect();
                Some(vision.connector(&widths, model.config.decoder.hidden)?)
            }
            None => None,
        };
        Ok(NetworkNames::new(&model.config.decoder, connector.as_ref()))
    }

    /// The model to begin with, on the training device.
    fn model(&self, wanted: &recipe::Model) -> Result<Model, TrainError> {
        self.refuse_what_cannot_be_loaded(wanted)?;
        let mut options = LoadModel {
            dtype: WeightDtype::F32,
            device: self.device.clone(),
            template: wanted.template.clone(),
            ..LoadModel::default()
        };
        let mut model = match &wanted.start {
            ModelStart::Folder { from, encoders } => {
                for encoder in encoders {
                    if let Some(path) = &encoder.weights {
                        options.encoders.insert(encoder.name.clone(), path.clone());
                    }
                }
                let mut model = Model::load(from, &options)?.0;
                if wanted.template.is_some() {
                    model.keep_template()?;
                }
                model
            }
            ModelStart::Parts { .. } => {
                let parts = wanted.parts(self.recipe.seed);
                let parts = parts.ok_or_else(|| {
                    TrainError::Refused("the recipe names no parts of a model".into())
                })?;
                Model::assemble(&parts, &options)?.0
            }
        };
        let marks = |vision: &VisionConfig| vision.image_marks;
        if model.config.vision.as_ref().is_some_and(marks) {
            return Err(TrainError::Refused(
                "the model puts marks around pictures (`mm_use_im_start_end` in its config.json), and the \
                 samples of training have none: it would be asked in another way than it was trained; \
                 set it to `false`"
                    .into(),
            ));
        }
        if let Some(length) = wanted.max_length {
            model.config.max_length = length;
        }
        if let Some(path) = &wanted.adapter {
            model.load_adapter(path)?;
        }
        if let Some(lora) = &self.recipe.lora {
            model.network.decoder = lora::adapt(model.network.decoder, lora, self.recipe.seed);
        }
        Ok(model)
    }

    /// Refuses a model that is too large before minutes go into loading it, from the shapes in its
    /// files alone. It is a lower bound: what is new or lies elsewhere is not counted.
    fn refuse_what_cannot_be_loaded(&self, wanted: &recipe::Model) -> Result<(), TrainError> {
        let folder = match &wanted.start {
            ModelStart::Folder { from, .. } => from,
            ModelStart::Parts { decoder, .. } => decoder,
        };
        // Loading itself says best what is wrong with a folder.
        let Ok(checkpoint) = Checkpoint::open(folder) else {
            return Ok(());
        };
        let numbers = |key| {
            let info = checkpoint.info(key);
            info.map_or(0, |info| info.shape.iter().map(|&n| n as u64).product())
        };
        let numbers: u64 = checkpoint.keys().map(numbers).sum();
        let parts = &self.recipe.optimizer.parts;
        let trains = parts
            .get(&Part::Decoder)
            .is_some_and(|part| part.train == Some(true));
        let each = match trains && self.recipe.lora.is_none() {
            true => super::preflight::PER_TRAINED,
            false => super::preflight::PER_FROZEN,
        };
        super::preflight::check_fits("memory", numbers * each, self.options.memory)
    }

    fn task(
        &self,
        model: &Model,
        files: &[PathBuf],
        purpose: For,
    ) -> Result<StageTask, TrainError> {
        let data = &self.recipe.data;
        let samples = SampleSet::open(files)?;
        let faults = self.faults(&samples, purpose)?;
        let masker = Masker::new(
            model.template,
            Arc::new(model.tokenizer.clone()),
            model.config.max_length,
        )?;
        let options = LossOptions {
            checkpointing: self.recipe.memory.gradient_checkpointing,
            ..LossOptions::default()
        };
        let data = StageData {
            grouped: self.recipe.groups_by_modality_length(),
            turns: data.turns.clone(),
            faults,
            samples,
            pictures: self.pictures(purpose)?,
        };
        Ok(StageTask::new(
            data,
            masker,
            model,
            self.eyes(model)?,
            options,
        ))
    }

    /// Where bad samples are counted, and listed if the run is kept.
    fn faults(&self, samples: &SampleSet, purpose: For) -> Result<Faults, TrainError> {
        let limit = self.recipe.data.max_bad;
        if !self.keeps {
            return Ok(Faults::new(samples.len(), limit));
        }
        let list = self.folder.join(match purpose {
            For::Training => FAULTS,
            For::Validation => VALIDATION_FAULTS,
        });
        // Without a checkpoint the run begins anew, and what was bad may have been mended.
        let begins = self.run_folder()?.newest()?.is_none();
        if begins && list.exists() {
            std::fs::remove_file(&list).map_err(super::io("remove", &list))?;
        }
        Ok(Faults::with_list(samples.len(), limit, list)?)
    }

    fn eyes(&self, model: &Model) -> Result<Eyes, TrainError> {
        if self.recipe.rates().part(Part::Encoders).train {
            let encoders = model.network.encoders.iter();
            return Ok(Eyes::Train(encoders.map(Encoder::preprocessor).collect()));
        }
        let store = self.feature_store()?;
        Ok(Eyes::Frozen(FrozenEyes::new(model, &self.main, store)))
    }

    fn feature_store(&self) -> Result<Option<FeatureStore>, TrainError> {
        Ok(match &self.recipe.data.feature_cache {
            FeatureCache::Folder(folder) if self.caches => {
                Some(FeatureStore::open(folder, StorePrecision::F16)?)
            }
            _ => None,
        })
    }

    fn save(&self, model: &Model, folder: &Path) -> Result<(), TrainError> {
        let options = SaveOptions {
            dtype: self.weights(),
            encoders: EncoderPlacement::Towers,
            ..SaveOptions::default()
        };
        model.save(folder, &options)?;
        Ok(())
    }
}

/// The bad samples of both kinds, in words.
fn summary(training: &Faults, validation: Option<&Faults>) -> Option<String> {
    let of = |faults: &Faults| (faults.total() > 0).then(|| faults.summary());
    let validation = validation.and_then(of);
    match (of(training), validation) {
        (training, None) => training,
        (None, Some(validation)) => Some(format!("of the validation, {validation}")),
        (Some(training), Some(validation)) => {
            Some(format!("{training}; of the validation, {validation}"))
        }
    }
}

/// Hash of all files of samples.
fn data_hash(samples: &SampleSet) -> String {
    let hex = |hash: &[u8; 32]| hash.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let hashes: Vec<String> = samples.files().iter().map(|f| hex(f.sha256())).collect();
    hashes.join(" ")
}
