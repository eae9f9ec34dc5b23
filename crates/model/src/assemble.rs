//! A new model out of parts: vision encoders and a language model that exist, and a connector that
//! nobody has trained yet. This is where the first stage of the recipe begins (Cambrian-1,
//! section 5).

use std::path::PathBuf;

use opabinia_llm::{Conversation, PromptToken};
use opabinia_nn::Grid;

use crate::config::{ConnectorKeys, VisionConfig};
use crate::initialise::initialise;
use crate::load::{ConnectorStart, LoadModel, LoadedFrom, Model};
use crate::{ModelConfig, ModelError};

/// What a model is made of.
#[derive(Clone, Debug)]
pub struct ModelParts {
    /// Folder of the language model: configuration, weights, tokenizer.
    pub decoder: PathBuf,
    /// The vision encoders, in order.
    pub encoders: Vec<EncoderPart>,
    /// The connector to build.
    pub connector: ConnectorKeys,
    /// Layer of a CLIP encoder whose output is taken; the reference's is −2.
    pub select_layer: i64,
    /// Where in-LLM layers of the reference look for visual tokens; where the template puts the
    /// picture of a first question, if `None`.
    pub image_position: Option<usize>,
    /// Name of the chat template; the language model's own, if `None`.
    pub template: Option<String>,
    /// Longest packed sequence; the positions of the language model, if `None`.
    pub max_length: Option<usize>,
    /// Of the connector's first values.
    pub seed: u64,
}

/// A vision encoder of a new model.
#[derive(Clone, Debug)]
pub struct EncoderPart {
    /// Published name, suffixes included.
    pub name: String,
    /// The grid its features are resampled to.
    pub grid: Grid,
    /// Folder or file of its weights; under its own name on the hub, if `None`.
    pub weights: Option<PathBuf>,
}

impl Model {
    /// Puts a new model together. Of `options` the encoders' weights and the template are replaced
    /// by those of the parts.
    ///
    /// # Errors
    /// As [`Model::load`], or if the parts do not fit each other.
    pub fn assemble(
        parts: &ModelParts,
        options: &LoadModel,
    ) -> Result<(Self, LoadedFrom), ModelError> {
        let mut config = ModelConfig::from_folder(&parts.decoder)?;
        let family = config.model_type.trim_start_matches("cambrian_").to_owned();
        config.model_type = format!("cambrian_{family}");
        config.max_length = parts.max_length.unwrap_or(config.decoder.max_position);
        let vision = VisionConfig {
            encoders: parts
                .encoders
                .iter()
                .map(|part| part.name.clone())
                .collect(),
            grids: parts.encoders.iter().map(|part| part.grid).collect(),
            select_layer: parts.select_layer,
            connector: parts.connector.clone(),
            image_position: parts.image_position,
            image_marks: false,
        };
        if vision.encoders.is_empty() {
            return Err(ModelError::Config {
                key: "mm_vision_tower_aux_list".into(),
                found: "empty".into(),
                expected: "a model that is put together needs at least one vision encoder".into(),
            });
        }
        vision.check_in_llm(&config.decoder)?;
        config.vision = Some(vision);
        let weights = parts.encoders.iter().enumerate();
        let options = LoadModel {
            encoders: weights
                .filter_map(|(i, part)| Some((i.to_string(), part.weights.clone()?)))
                .collect(),
            template: parts.template.clone().or(options.template.clone()),
            ..options.clone()
        };
        let seed = parts.seed;
        let start = ConnectorStart::Fresh(&|connector| initialise(connector, seed));
        let (mut model, loaded) = Self::build(&parts.decoder, config, &options, start)?;
        model.config.conversation_template = Some(model.template.name.clone());
        if parts.image_position.is_none() {
            model.place_image()?;
        }
        Ok((model, loaded))
    }

    /// Makes the template that the model was loaded with ([`LoadModel::template`]) its own, so that it is
    /// written with it and asked with it from then on.
    ///
    /// # Errors
    /// If the template cannot be tokenized.
    pub fn keep_template(&mut self) -> Result<(), ModelError> {
        self.config.conversation_template = Some(self.template.name.clone());
        match self.config.vision {
            Some(_) => self.place_image(),
            None => Ok(()),
        }
    }

    /// Notes where the template puts the picture of a first question.
    fn place_image(&mut self) -> Result<(), ModelError> {
        let conversation = Conversation::question("?").with_images(1);
        let tokens = self.prompt(&conversation)?.tokens;
        let place = tokens.iter().position(|token| *token == PromptToken::Image);
        if let Some(vision) = &mut self.config.vision {
            vision.image_position = place;
        }
        Ok(())
    }
}
