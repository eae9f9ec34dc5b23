//! Whether the values of a recipe can be used.
//!
//! Each check names its key; [`Places`] finds the line or the override that the value came from.

use std::fmt::Display;
use std::path::PathBuf;

use opabinia_connector::{InLlmConfig, LayerType, ProjectorKind};
use opabinia_data::FaultLimit;
use opabinia_llm::ChatTemplate;
use opabinia_model::config::ConnectorKeys;
use opabinia_nn::Grid;
use opabinia_vision::EncoderSpec;

use super::error::{Place, Places, RecipeError, unknown};
use super::model_tables::{ConnectorTable, DecoderTable, EncoderTable};
use super::run_tables::{
    BatchTable, DataTable, FeatureCache, Folders, LoraTable, OptimizerTable, SaveTable,
    SavedResult, ScheduleTable, TurnsOf,
};
use super::tables::{Document, Stage};

/// Sizes beyond this are mistakes.
const MAX_SIZE: usize = 1 << 20;

/// Threads beyond this are mistakes.
const MAX_THREADS: usize = 1024;

/// Checks the values of one recipe.
pub(super) struct Check<'a> {
    pub places: &'a Places<'a>,
    pub stage: Stage,
}

type Checked = Result<(), RecipeError>;

impl Check<'_> {
    pub(super) fn place(&self, key: &str) -> Place {
        self.places.of(key)
    }

    pub(super) fn refuse(&self, key: &str, found: impl Display, wanted: &str) -> RecipeError {
        RecipeError::Value {
            place: self.place(key),
            key: key.to_owned(),
            found: found.to_string(),
            wanted: wanted.to_owned(),
        }
    }

    pub(super) fn missing(&self, key: &str, why: &'static str) -> RecipeError {
        RecipeError::Missing {
            place: self.place(key),
            stage: self.stage.name(),
            key: key.to_owned(),
            why,
        }
    }

    pub(super) fn misplaced(&self, key: &str, why: impl Into<String>) -> RecipeError {
        RecipeError::Misplaced {
            place: self.place(key),
            stage: self.stage.name(),
            key: key.to_owned(),
            why: why.into(),
        }
    }

    pub(super) fn ensure(
        &self,
        good: bool,
        key: &str,
        found: impl Display,
        wanted: &str,
    ) -> Checked {
        if good {
            Ok(())
        } else {
            Err(self.refuse(key, found, wanted))
        }
    }

    pub(super) fn positive(&self, key: &str, value: f64) -> Checked {
        let good = value.is_finite() && value > 0.0;
        self.ensure(good, key, value, "it must be above 0")
    }

    fn not_negative(&self, key: &str, value: f64) -> Checked {
        let good = value.is_finite() && value >= 0.0;
        self.ensure(good, key, value, "it must be 0 or more")
    }

    fn size(&self, key: &str, value: usize) -> Checked {
        let good = (1..=MAX_SIZE).contains(&value);
        self.ensure(good, key, value, "it must be from 1 to 1048576")
    }

    fn at_least_one(&self, key: &str, value: u64) -> Checked {
        self.ensure(value > 0, key, value, "it must be 1 or more")
    }

    fn threads(&self, key: &str, value: usize) -> Checked {
        let good = value <= MAX_THREADS;
        self.ensure(good, key, value, "it must be at most 1024")
    }

    fn square(&self, key: &str, tokens: usize) -> Result<Grid, RecipeError> {
        Grid::from_token_count(tokens)
            .ok_or_else(|| self.refuse(key, tokens, "it must be a square number from 1 to 512²"))
    }

    /// A name becomes a folder.
    pub(super) fn name(&self, name: &str) -> Checked {
        let letters = |word: &str| {
            let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !word.is_empty() && word != "." && word != ".." && word.chars().all(known)
        };
        self.ensure(
            name.split('/').all(letters),
            "name",
            format_args!("`{name}`"),
            "runs are kept under it: use letters, digits, `-`, `_`, `.`, and `/` between words",
        )
    }

    pub(super) fn template(&self, key: &str, name: &str) -> Checked {
        if ChatTemplate::by_name(name).is_ok() {
            return Ok(());
        }
        let names = ChatTemplate::names().into_iter().map(str::to_owned);
        Err(unknown(self.place(key), name.to_owned(), names.collect()))
    }

    pub(super) fn encoder_name(&self, key: &str, name: &str) -> Checked {
        match EncoderSpec::parse(name) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.refuse(key, format_args!("`{name}`"), &error.to_string())),
        }
    }

    pub(super) fn grid(&self, key: &str, tokens: Option<usize>) -> Result<Grid, RecipeError> {
        let tokens = tokens.ok_or_else(|| {
            self.missing(key, "the grid that the encoder's features are resampled to")
        })?;
        self.square(key, tokens)
    }

    pub(super) fn connector(&self, table: &ConnectorTable) -> Result<ConnectorKeys, RecipeError> {
        let key = |name: &str| format!("model.connector.{name}");
        let token_grid = self.square(&key("image_token_len"), table.image_token_len)?;
        if table.mm_projector_type == "sva" {
            return self.sva(table, token_grid);
        }
        let kind = ProjectorKind::by_name(&table.mm_projector_type).ok_or_else(|| {
            self.refuse(
                &key("mm_projector_type"),
                format_args!("`{}`", table.mm_projector_type),
                "it must be sva, linear, mlpNx_gelu, identity, se_mlp or CAbstractor",
            )
        })?;
        Ok(ConnectorKeys::Projector { kind, token_grid })
    }

    fn sva(&self, table: &ConnectorTable, token_grid: Grid) -> Result<ConnectorKeys, RecipeError> {
        let key = |name: &str| format!("model.connector.{name}");
        let required = |name: &str, value: Option<usize>| {
            value.ok_or_else(|| self.missing(&key(name), "an SVA connector has it"))
        };
        let sized = |name: &str, value: Option<usize>| {
            let value = required(name, value)?;
            self.size(&key(name), value).map(|()| value)
        };
        let queries = key("query_num_list");
        let query_grids = table
            .query_num_list
            .as_ref()
            .filter(|list| !list.is_empty())
            .ok_or_else(|| self.missing(&queries, "an SVA connector has groups of queries"))?
            .iter()
            .map(|&count| self.square(&queries, count))
            .collect::<Result<_, _>>()?;
        let layer_type = match table.sva_layer_type.as_deref() {
            None | Some("joint") => LayerType::Joint,
            Some("sep") => LayerType::Separate,
            Some(other) => {
                let allowed = ["joint", "sep"].map(str::to_owned).to_vec();
                return Err(unknown(
                    self.place(&key("sva_layer_type")),
                    other.to_owned(),
                    allowed,
                ));
            }
        };
        let in_llm = if table.connector_only {
            None
        } else {
            Some(InLlmConfig {
                count: sized(
                    "num_of_vision_sampler_layers",
                    table.num_of_vision_sampler_layers,
                )?,
                start: required(
                    "start_of_vision_sampler_layers",
                    table.start_of_vision_sampler_layers,
                )?,
                stride: sized(
                    "stride_of_vision_sampler_layers",
                    table.stride_of_vision_sampler_layers,
                )?,
            })
        };
        Ok(ConnectorKeys::Sva {
            width: sized("vision_hidden_size", table.vision_hidden_size)?,
            query_grids,
            token_grid,
            depth: sized("connector_depth", table.connector_depth)?,
            layer_type,
            in_llm,
        })
    }

    pub(super) fn sizes(&self, sizes: &[(&str, usize)]) -> Checked {
        sizes
            .iter()
            .try_for_each(|(key, size)| self.size(key, *size))
    }

    pub(super) fn heads(&self, key: &str, width: usize, heads: usize) -> Checked {
        let good = heads > 0 && width.is_multiple_of(heads);
        self.ensure(good, key, heads, "heads must divide the width")
    }

    pub(super) fn encoder(&self, table: &EncoderTable) -> Checked {
        self.encoder_name("encoder.name", &table.name)
    }

    pub(super) fn decoder(&self, table: &DecoderTable) -> Checked {
        self.sizes(&[
            ("decoder.hidden", table.hidden),
            ("decoder.layers", table.layers),
            ("decoder.heads", table.heads),
            ("decoder.kv_heads", table.kv_heads),
            ("decoder.intermediate", table.intermediate),
            ("decoder.max_position", table.max_position),
            ("decoder.row_length", table.row_length),
        ])?;
        self.heads("decoder.heads", table.hidden, table.heads)?;
        self.ensure(
            table.heads.is_multiple_of(table.kv_heads),
            "decoder.kv_heads",
            table.kv_heads,
            "it must divide `decoder.heads`",
        )?;
        self.positive("decoder.rope_theta", table.rope_theta)
    }

    pub(super) fn share(&self, key: &str, value: f64) -> Checked {
        let good = value > 0.0 && value < 1.0;
        self.ensure(good, key, value, "it must be between 0 and 1")
    }

    pub(super) fn finite(&self, key: &str, value: f64) -> Checked {
        self.ensure(value.is_finite(), key, value, "it must be a number")
    }

    /// A list of folders has one for each file of samples.
    pub(super) fn one_for_each(
        &self,
        key: &str,
        folders: &[PathBuf],
        table: &DataTable,
    ) -> Checked {
        self.ensure(
            folders.len() == table.files.len(),
            key,
            format!("a list of {}", folders.len()),
            "it must be one folder, or a list with one for each of `data.files`",
        )
    }

    pub(super) fn data(&self, stage: Stage, table: &DataTable) -> Checked {
        if table.files.is_empty() {
            return Err(self.missing("data.files", "the samples to train on"));
        }
        self.ensure(
            table.workers > 0,
            "data.workers",
            table.workers,
            "somebody must read",
        )?;
        if let Some(Folders::OfFiles(folders)) = &table.images {
            self.one_for_each("data.images", folders, table)?;
            self.ensure(
                matches!(stage, Stage::Align | Stage::Instruct | Stage::Lexical),
                "data.images",
                "a list",
                "pretraining takes one folder for all files",
            )?;
        }
        if let TurnsOf::OfFiles(turns) = &table.turns {
            self.ensure(
                turns.len() == table.files.len(),
                "data.turns",
                format!("a list of {}", turns.len()),
                "it must be one rule, or a list with one for each of `data.files`",
            )?;
        }
        self.threads("data.workers", table.workers)
    }

    pub(super) fn batch(&self, table: &BatchTable) -> Checked {
        self.size("batch.global", table.global)?;
        self.size("batch.micro", table.micro)?;
        self.ensure(
            table.micro <= table.global,
            "batch.micro",
            table.micro,
            "it must not exceed `batch.global`",
        )?;
        let devices = (1..=table.global).contains(&table.devices);
        self.ensure(
            devices,
            "batch.devices",
            table.devices,
            "each device must have a sample of the global batch",
        )?;
        self.threads("batch.parallel", table.parallel)?;
        match table.base {
            Some(base) => self.size("batch.base", base),
            None if table.scaling == crate::scaling::Scaling::None => Ok(()),
            None => Err(self.missing("batch.base", "the batch that the rates were chosen for")),
        }
    }

    pub(super) fn optimizer(&self, table: &OptimizerTable) -> Checked {
        self.positive("optimizer.lr", table.lr)?;
        self.positive("optimizer.eps", table.eps)?;
        self.not_negative("optimizer.weight_decay", table.weight_decay)?;
        self.not_negative("optimizer.clip", table.clip)?;
        for beta in table.betas {
            let good = (0.0..1.0).contains(&beta);
            self.ensure(
                good,
                "optimizer.betas",
                beta,
                "both must be from 0 to below 1",
            )?;
        }
        for (part, table) in &table.parts {
            let key = format!("optimizer.parts.{part}");
            if !self.stage.parts().contains(part) {
                let parts: Vec<_> = self.stage.parts().iter().map(|p| p.name()).collect();
                return Err(self.misplaced(&key, format!("its parts are {}", parts.join(", "))));
            }
            if let Some(lr) = table.lr {
                self.positive(&format!("{key}.lr"), lr)?;
            }
            if let Some(decay) = table.weight_decay {
                self.not_negative(&format!("{key}.weight_decay"), decay)?;
            }
        }
        Ok(())
    }

    pub(super) fn schedule(&self, table: &ScheduleTable) -> Checked {
        if table.epochs.is_some() && table.steps.is_some() {
            return Err(self.refuse(
                "schedule.steps",
                "there beside `schedule.epochs`",
                "a run has one length",
            ));
        }
        if table.warmup_ratio.is_some() && table.warmup_steps.is_some() {
            return Err(self.refuse(
                "schedule.warmup_steps",
                "there beside `schedule.warmup_ratio`",
                "a run has one warm-up",
            ));
        }
        if let Some(epochs) = table.epochs {
            self.at_least_one("schedule.epochs", epochs)?;
        }
        if let Some(steps) = table.steps {
            self.at_least_one("schedule.steps", steps)?;
        }
        if let Some(ratio) = table.warmup_ratio {
            let good = (0.0..=1.0).contains(&ratio);
            self.ensure(
                good,
                "schedule.warmup_ratio",
                ratio,
                "it must be from 0 to 1",
            )?;
        }
        match (table.warmup_steps, table.steps) {
            (Some(warmup), Some(steps)) => self.ensure(
                warmup <= steps,
                "schedule.warmup_steps",
                warmup,
                "it must not exceed `schedule.steps`",
            ),
            _ => Ok(()),
        }
    }

    pub(super) fn lora(&self, table: &LoraTable) -> Checked {
        self.size("lora.rank", table.rank)?;
        self.positive("lora.alpha", table.alpha)?;
        let good = (0.0..1.0).contains(&table.dropout);
        self.ensure(
            good,
            "lora.dropout",
            table.dropout,
            "it must be from 0 to below 1",
        )?;
        self.ensure(
            !table.targets.is_empty(),
            "lora.targets",
            "empty",
            "some layer must have an adapter",
        )
    }

    pub(super) fn save(&self, table: &SaveTable, validates: bool) -> Checked {
        self.ensure(
            table.keep > 0,
            "save.keep",
            table.keep,
            "a run needs one checkpoint to go on from",
        )?;
        self.ensure(
            table.result == SavedResult::Last || (validates && table.best),
            "save.result",
            "`best`",
            "the best is found with `data.validation` and kept with `save.best = true`",
        )
    }

    /// Values that a stage would pass over in silence.
    pub(super) fn heard(&self, document: &Document) -> Checked {
        use Stage::{Align, Instruct, Lexical};
        let (data, memory) = (&document.data, &document.memory);
        let values: [(&str, bool, &[Stage]); 5] = [
            (
                "memory.gradient_checkpointing",
                memory.gradient_checkpointing,
                &[Align, Instruct],
            ),
            (
                "data.turns",
                data.turns != TurnsOf::default(),
                &[Align, Instruct],
            ),
            (
                "data.group_by_modality_length",
                data.group_by_modality_length == Some(true),
                &[Align, Instruct],
            ),
            (
                "data.max_bad",
                data.max_bad != FaultLimit::default(),
                &[Lexical, Align, Instruct],
            ),
            (
                "data.feature_cache",
                data.feature_cache != FeatureCache::Off,
                &[Lexical, Align, Instruct],
            ),
        ];
        let lost =
            |(_, set, stages): &&(&str, bool, &[Stage])| *set && !stages.contains(&self.stage);
        match values.iter().find(lost) {
            Some((key, _, stages)) => {
                let stages: Vec<_> = stages.iter().map(|stage| stage.name()).collect();
                Err(self.misplaced(key, format!("it is for {}", stages.join(" and "))))
            }
            None => Ok(()),
        }
    }

    /// Features of encoders that change cannot be kept.
    pub(super) fn feature_cache(&self, cache: &FeatureCache, encoders_train: bool) -> Checked {
        match cache {
            FeatureCache::Folder(path) if encoders_train => Err(self.refuse(
                "data.feature_cache",
                format_args!("`{}`", path.display()),
                "features of encoders that train cannot be kept; use `off`",
            )),
            _ => Ok(()),
        }
    }
}
