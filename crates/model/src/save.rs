//! Writing a model folder like the released ones.
//!
//! ```text
//! config.json  generation_config.json  tokenizer files
//! towers/<name>/…                      each vision encoder as its family publishes it
//! model.safetensors, or shards and model.safetensors.index.json
//! ```
//!
//! Key names are those of the released checkpoints. Weights are written last, so a folder that has
//! them is complete; a run that must survive a power cut writes to a fresh folder and renames it.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::DType;
use opabinia_connector::ConnectorConfig;
use opabinia_vision::Encoder;
use opabinia_weights::{
    Checkpoint, CheckpointWriter, LoadOptions, LoadReport, SaveReport, WeightDtype, load_into,
    parameters,
};
use serde_json::{Map, Value, json};

use crate::companions::write_json;
use crate::config::{ConnectorKeys, VisionConfig};
use crate::load::Model;
use crate::{ModelError, keys};

/// Where the weights of vision encoders go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EncoderPlacement {
    /// Each into a folder of its own below `towers/`, with its configuration.
    #[default]
    Towers,
    /// Into the model's own files, as the reference writes encoders that were trained. Only right
    /// for encoders of the published size, because no file says another.
    Inside,
    /// Nowhere: they are found again under their published names, as the released models do it.
    Elsewhere,
}

/// How to write a model.
#[derive(Clone, Debug)]
pub struct SaveOptions {
    /// Type of all floats in the files.
    pub dtype: WeightDtype,
    /// A new shard begins before one would exceed this.
    pub max_shard_bytes: u64,
    /// Where the weights of vision encoders go.
    pub encoders: EncoderPlacement,
}

impl Default for SaveOptions {
    fn default() -> Self {
        Self {
            dtype: WeightDtype::AsStored,
            max_shard_bytes: 5_000_000_000,
            encoders: EncoderPlacement::default(),
        }
    }
}

impl Model {
    /// Writes the model to a folder, which is created if need be; [`Model::load`] reads it back.
    ///
    /// # Errors
    /// If a file cannot be written, or an encoder inside the model's files would not be read back.
    pub fn save(&self, folder: &Path, options: &SaveOptions) -> Result<SaveReport, ModelError> {
        fs::create_dir_all(folder).map_err(|source| ModelError::Write {
            path: folder.into(),
            source,
        })?;
        self.companions.write_tokenizer(folder)?;
        write_json(&folder.join("config.json"), self.config_json(options.dtype))?;
        let generation = self.generation_json();
        write_json(&folder.join("generation_config.json"), generation)?;
        let mut writer =
            CheckpointWriter::new(options.dtype).max_shard_bytes(options.max_shard_bytes);
        writer.add(&self.network.decoder, &keys::decoder(&self.config.decoder))?;
        if let Some((module, config)) = self.connector()? {
            writer.add(module, &keys::connector(&config))?;
        }
        if let Some(vision) = &self.config.vision {
            self.save_encoders(folder, vision, &mut writer, options)?;
        }
        Ok(writer.write_folder(folder)?)
    }

    /// Writes the connector alone to one file, with the keys of the reference's
    /// `mm_projector.bin`: what the first stage trains.
    ///
    /// # Errors
    /// If the model has no connector, or the file cannot be written.
    pub fn save_adapter(&self, path: &Path, dtype: WeightDtype) -> Result<SaveReport, ModelError> {
        let (module, config) = self.connector()?.ok_or(ModelError::TextOnly)?;
        let mut writer = CheckpointWriter::new(dtype);
        writer.add(module, &keys::connector(&config))?;
        Ok(writer.write_file(path)?)
    }

    /// Fills the connector from a file that holds it: one of [`Model::save_adapter`], the
    /// reference's `mm_projector.bin`, or a whole model.
    ///
    /// # Errors
    /// If the model has no connector, or the file does not hold every parameter of it.
    pub fn load_adapter(&mut self, path: &Path) -> Result<LoadReport, ModelError> {
        let (module, config) = self.connector()?.ok_or(ModelError::TextOnly)?;
        let options = LoadOptions::new(WeightDtype::AsStored).on_device(&self.device);
        let (module, report) = load_into(
            module.clone(),
            &Checkpoint::open(path)?,
            &keys::connector(&config),
            &options,
        )?;
        self.network.connector = Some(module);
        Ok(report)
    }

    /// The connector and its configuration, where the model has one.
    fn connector(
        &self,
    ) -> Result<Option<(&opabinia_connector::Connector, ConnectorConfig)>, ModelError> {
        let (Some(vision), Some(module)) = (&self.config.vision, &self.network.connector) else {
            return Ok(None);
        };
        let widths: Vec<usize> = self.network.encoders.iter().map(Encoder::width).collect();
        let config = vision.connector(&widths, self.config.decoder.hidden)?;
        Ok(Some((module, config)))
    }

    fn save_encoders(
        &self,
        folder: &Path,
        vision: &VisionConfig,
        writer: &mut CheckpointWriter,
        options: &SaveOptions,
    ) -> Result<(), ModelError> {
        for (index, encoder) in self.network.encoders.iter().enumerate() {
            match options.encoders {
                EncoderPlacement::Elsewhere => {}
                EncoderPlacement::Towers => {
                    let tower = self.tower(folder, index);
                    encoder.save(&tower, options.dtype)?;
                }
                EncoderPlacement::Inside => {
                    if *encoder.config() != encoder.spec().entry.config {
                        return Err(ModelError::UnpublishedInside {
                            index,
                            name: vision.encoders[index].clone(),
                        });
                    }
                    let prefix = keys::encoder_inside(index);
                    writer.add(encoder, &encoder.key_map().prefix(&prefix))?;
                }
            }
        }
        Ok(())
    }

    /// The folder of an encoder: its published name, or its position if others share the name.
    fn tower(&self, folder: &Path, index: usize) -> PathBuf {
        let name = |encoder: &Encoder| encoder.spec().entry.name();
        let encoders = &self.network.encoders;
        let own = name(&encoders[index]);
        let sharing = encoders.iter().filter(|encoder| name(encoder) == own);
        folder.join("towers").join(match sharing.count() {
            1 => own.replace('/', "--"),
            _ => index.to_string(),
        })
    }

    /// What `config.json` said, with what the configuration says now.
    fn config_json(&self, dtype: WeightDtype) -> Map<String, Value> {
        let mut table = self.companions.config.clone();
        let ours = self.config.to_json();
        for (key, value) in ours {
            // The file's own; `generation_config.json` has the last word.
            if key != "eos_token_id" || !table.contains_key(&key) {
                table.insert(key, value);
            }
        }
        if let Some(VisionConfig {
            connector: ConnectorKeys::Projector { .. },
            ..
        }) = &self.config.vision
        {
            let widths = self.network.encoders.iter().map(Encoder::width);
            table.insert("mm_hidden_size".into(), json!(widths.sum::<usize>()));
        }
        table.insert("torch_dtype".into(), json!(self.torch_dtype(dtype)));
        table
    }

    fn generation_json(&self) -> Map<String, Value> {
        let mut table = self.companions.generation.clone();
        for key in ["bos_token_id", "pad_token_id"] {
            if let Some(id) = self.companions.config.get(key).filter(|id| !id.is_null()) {
                table.entry(key).or_insert_with(|| id.clone());
            }
        }
        let end = match self.config.end_ids.as_slice() {
            [id] => json!(id),
            ids => json!(ids),
        };
        if !self.config.end_ids.is_empty() {
            table.insert("eos_token_id".into(), end);
        }
        table
    }

    /// PyTorch's name of the type in which the large weights are written.
    fn torch_dtype(&self, dtype: WeightDtype) -> &'static str {
        dtype.torch_name().unwrap_or_else(|| {
            let first = parameters(&self.network.decoder).into_iter().next();
            match first.map(|parameter| parameter.dtype) {
                Some(DType::F16) => "float16",
                Some(DType::BF16) => "bfloat16",
                _ => "float32",
            }
        })
    }
}
