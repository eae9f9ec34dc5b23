//! From a checkpoint folder to a model that can be asked.
//!
//! The folder is one as Hugging Face publishes them: `config.json` decides what is built, weights
//! are one file or shards, the tokenizer lies beside. A GGUF file may stand for the first two. The vision encoders of the released models
//! are not in their folders; each is looked for where the caller says, inside the checkpoint file,
//! in `towers/` of the folder, and last under its own name on the hub.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::prelude::*;
use opabinia_connector::Connector;
use opabinia_llm::{ChatTemplate, Decoder, TemplateHints, Tokenizer};
use opabinia_vision::{Encoder, EncoderSpec, Family, load_encoder};
use opabinia_weights::{Checkpoint, LoadOptions, LoadReport, WeightDtype, hub, load_into};

use crate::companions::Companions;
use crate::config::{ConnectorKeys, VisionConfig};
use crate::{ModelConfig, ModelError, gguf, keys};

/// Everything that has parameters.
#[derive(Module, Debug)]
pub struct Network {
    /// The vision encoders, in the order of the configuration.
    pub encoders: Vec<Encoder>,
    /// From their features to visual tokens; none for a plain language model.
    pub connector: Option<Connector>,
    /// The language model.
    pub decoder: Decoder,
}

/// A model and what is needed to talk to it.
#[derive(Debug)]
pub struct Model {
    /// The parameters.
    pub network: Network,
    /// What `config.json` says.
    pub config: ModelConfig,
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    /// How conversations are written.
    pub template: &'static ChatTemplate,
    /// Where the parameters are.
    pub device: Device,
    /// What lay beside the weights, for writing the model again.
    pub(crate) companions: Companions,
}

/// Where the parameters of a connector come from.
pub(crate) enum ConnectorStart<'a> {
    /// The checkpoint that the decoder comes from.
    Checkpoint,
    /// First values.
    Fresh(&'a dyn Fn(Connector) -> Connector),
}

/// How to load a model.
#[derive(Clone, Debug)]
pub struct LoadModel {
    /// Type of the large weights in memory.
    pub dtype: WeightDtype,
    /// Where the model runs.
    pub device: Device,
    /// Weights of vision encoders: published name (or position) to folder or file.
    pub encoders: BTreeMap<String, PathBuf>,
    /// A chat template instead of the checkpoint's own.
    pub template: Option<String>,
}

impl Default for LoadModel {
    fn default() -> Self {
        Self {
            dtype: WeightDtype::AsStored,
            device: Device::flex(),
            encoders: BTreeMap::new(),
            template: None,
        }
    }
}

/// Where everything came from.
#[derive(Clone, Debug)]
pub struct LoadedFrom {
    /// Decoder and connector.
    pub main: LoadReport,
    /// The encoders.
    pub encoders: Vec<LoadReport>,
    /// Name of the chat template and why it was chosen.
    pub template: (String, String),
}

impl LoadedFrom {
    /// All reports.
    pub fn reports(&self) -> impl Iterator<Item = &LoadReport> {
        std::iter::once(&self.main).chain(&self.encoders)
    }
}

impl Model {
    /// Loads a model folder.
    ///
    /// # Errors
    /// If a file is missing or wrong, if weights do not fit the configuration, or if an encoder's
    /// weights are nowhere to be found.
    pub fn load(folder: &Path, options: &LoadModel) -> Result<(Self, LoadedFrom), ModelError> {
        let config = ModelConfig::from_folder(folder)?;
        Self::build(folder, config, options, ConnectorStart::Checkpoint)
    }

    /// Builds what a configuration says, with the decoder and the tokenizer of `folder`.
    pub(crate) fn build(
        folder: &Path,
        config: ModelConfig,
        options: &LoadModel,
        connector: ConnectorStart<'_>,
    ) -> Result<(Self, LoadedFrom), ModelError> {
        let tokenizer = gguf::tokenizer(folder)?;
        let (template, template_choice) =
            choose_template(&config, &tokenizer, options.template.as_deref())?;
        check_marks(&config, &tokenizer)?;
        let checkpoint = Checkpoint::open(folder)?;
        let load = load_options(options, options.dtype);
        let load_connector = load_options(options, options.dtype.for_encoders());

        let (encoders, encoder_reports) = match &config.vision {
            Some(vision) => load_encoders(folder, vision, &checkpoint, options)?,
            None => (Vec::new(), Vec::new()),
        };
        let decoder = Decoder::new(&config.decoder, &options.device);
        let (decoder, mut main) =
            load_into(decoder, &checkpoint, &keys::decoder(&config.decoder), &load)?;
        let connector = match &config.vision {
            None => None,
            Some(vision) => {
                if matches!(connector, ConnectorStart::Checkpoint) {
                    check_widths(vision, &encoders, &checkpoint)?;
                }
                let widths: Vec<usize> = encoders.iter().map(Encoder::width).collect();
                let built = vision.connector(&widths, config.decoder.hidden)?;
                let module = Connector::new(&built, &options.device);
                Some(match connector {
                    ConnectorStart::Fresh(start) => start(module),
                    ConnectorStart::Checkpoint => {
                        let map = keys::connector(&built);
                        let (module, report) =
                            load_into(module, &checkpoint, &map, &load_connector)?;
                        main = main.merge(report);
                        module
                    }
                })
            }
        };
        let model = Self {
            network: Network {
                encoders,
                connector,
                decoder,
            },
            config,
            tokenizer,
            template,
            device: options.device.clone(),
            companions: Companions::read(folder)?,
        };
        let loaded = LoadedFrom {
            main,
            encoders: encoder_reports,
            template: template_choice,
        };
        Ok((model, loaded))
    }
}

fn load_options(options: &LoadModel, dtype: WeightDtype) -> LoadOptions {
    let load = LoadOptions::new(dtype).on_device(&options.device);
    keys::IGNORED
        .iter()
        .fold(load, |load, pattern| load.ignore(pattern))
}

/// Marks around pictures must be tokens; as ordinary text they would be another prompt.
fn check_marks(config: &ModelConfig, tokenizer: &Tokenizer) -> Result<(), ModelError> {
    if !config
        .vision
        .as_ref()
        .is_some_and(|vision| vision.image_marks)
    {
        return Ok(());
    }
    let missing = ["<im_start>", "<im_end>"]
        .into_iter()
        .find(|mark| tokenizer.token_to_id(mark).is_none());
    match missing {
        None => Ok(()),
        Some(mark) => Err(ModelError::Config {
            key: "mm_use_im_start_end".into(),
            found: "true".into(),
            expected: format!("the tokenizer has no token `{mark}`"),
        }),
    }
}

fn choose_template(
    config: &ModelConfig,
    tokenizer: &Tokenizer,
    asked: Option<&str>,
) -> Result<(&'static ChatTemplate, (String, String)), ModelError> {
    if let Some(name) = asked {
        let template = ChatTemplate::by_name(name)?;
        return Ok((template, (template.name.clone(), "asked for".into())));
    }
    let choice = ChatTemplate::for_checkpoint(&TemplateHints {
        model_type: &config.model_type,
        conversation_template: config.conversation_template.as_deref(),
        has_token: &|token| tokenizer.token_to_id(token).is_some(),
    })?;
    Ok((
        choice.template,
        (choice.template.name.clone(), choice.reason.into()),
    ))
}

fn load_encoders(
    folder: &Path,
    vision: &VisionConfig,
    checkpoint: &Checkpoint,
    options: &LoadModel,
) -> Result<(Vec<Encoder>, Vec<LoadReport>), ModelError> {
    let load = LoadOptions::new(options.dtype.for_encoders()).on_device(&options.device);
    for name in options.encoders.keys() {
        let position = name.parse::<usize>().ok();
        let known = position.is_some_and(|i| i < vision.encoders.len());
        if !known && !vision.encoders.contains(name) {
            let listed = vision.encoders.iter().enumerate();
            return Err(ModelError::NoSuchEncoder {
                name: name.clone(),
                encoders: listed.map(|(i, name)| format!("{i} `{name}`")).collect(),
            });
        }
    }
    let mut encoders = Vec::new();
    let mut reports = Vec::new();
    for (i, name) in vision.encoders.iter().enumerate() {
        let spec = EncoderSpec::parse(name)?.with_select_layer(vision.select_layer);
        let (encoder, report) = match find_encoder(folder, i, name, &spec, checkpoint, options)? {
            // Trained with the model, so it has the published architecture.
            Source::Inside(prefix) => Encoder::random(&spec, &options.device)?
                .load(&checkpoint.with_prefix(&prefix), &load)?,
            Source::Path(path) => load_encoder(&spec, &path, &load)?,
        };
        encoders.push(encoder);
        reports.push(report);
    }
    Ok((encoders, reports))
}

enum Source {
    /// Keys with this prefix in the model's own checkpoint.
    Inside(String),
    /// A folder or file of its own.
    Path(PathBuf),
}

/// Where the weights of encoder `index` are; see the module documentation for the order.
fn find_encoder(
    folder: &Path,
    index: usize,
    name: &str,
    spec: &EncoderSpec,
    checkpoint: &Checkpoint,
    options: &LoadModel,
) -> Result<Source, ModelError> {
    let asked = options
        .encoders
        .get(name)
        .or_else(|| options.encoders.get(&index.to_string()));
    if let Some(path) = asked {
        return Ok(Source::Path(path.clone()));
    }
    let prefix = keys::encoder_inside(index);
    if checkpoint.keys().any(|key| key.starts_with(&prefix)) {
        return Ok(Source::Inside(prefix));
    }
    if let Some(found) = tower_folder(folder, index, spec) {
        return Ok(Source::Path(found));
    }
    let found = hub::resolve(spec.entry.repository()?, None, &[]);
    found
        .map(Source::Path)
        .map_err(|source| ModelError::EncoderWeights {
            name: name.to_owned(),
            source,
        })
}

/// The folder of encoder `index` inside a model folder: `towers/` and its position, its published
/// name with `--` for slashes, or its family.
pub(crate) fn tower_folder(folder: &Path, index: usize, spec: &EncoderSpec) -> Option<PathBuf> {
    let towers = folder.join("towers");
    let published = spec.entry.names.iter().map(|name| name.replace('/', "--"));
    let family = family_folder(spec.entry.family).to_owned();
    let mut names = std::iter::once(index.to_string())
        .chain(published)
        .chain([family]);
    names.find_map(|name| Some(towers.join(name)).filter(|path| path.is_dir()))
}

/// Name of a family's folder in `towers/`.
fn family_folder(family: Family) -> &'static str {
    match family {
        Family::Clip => "clip",
        Family::Siglip => "siglip",
        Family::Dinov2 => "dinov2",
        Family::ConvNext => "convnext",
    }
}

/// Compares the encoders' widths with what the connector in the checkpoint takes.
fn check_widths(
    vision: &VisionConfig,
    encoders: &[Encoder],
    checkpoint: &Checkpoint,
) -> Result<(), ModelError> {
    if !matches!(vision.connector, ConnectorKeys::Sva { .. }) {
        return Ok(());
    }
    for (index, encoder) in encoders.iter().enumerate() {
        let expected = connector_input(checkpoint, index);
        if let Some(expected) = expected.filter(|&expected| expected != encoder.width()) {
            let name = vision.encoders[index].clone();
            return Err(ModelError::EncoderWidth {
                index,
                name,
                found: encoder.width(),
                expected,
            });
        }
    }
    Ok(())
}

/// Width of encoder `index` as the aggregator in a checkpoint was trained with it.
pub(crate) fn connector_input(checkpoint: &Checkpoint, index: usize) -> Option<usize> {
    let info = checkpoint.info(&format!("model.mm_projector_aux_{index}.0.weight"))?;
    info.shape.get(1).copied()
}
