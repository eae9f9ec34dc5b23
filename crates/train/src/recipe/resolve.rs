//! From the tables of a file to a checked recipe: which tables a stage has, what the model starts
//! from, and the defaults that depend on the stage.

use std::path::Path;

use opabinia_model::EncoderPart;

use super::check::Check;
use super::error::RecipeError;
use super::tables::{Document, Stage};
use super::{
    ContrastiveTable, DataTable, Folders, LexicalTable, MaeTable, Model, ModelStart, ModelTable,
    Recipe, Source, TextTable, Work,
};
use crate::groups::Part;

impl Check<'_> {
    pub(super) fn recipe(
        &self,
        mut document: Document,
        source: Source,
    ) -> Result<Recipe, RecipeError> {
        self.name(&document.name)?;
        self.data(document.stage, &document.data)?;
        self.batch(&document.batch)?;
        self.optimizer(&document.optimizer)?;
        self.schedule(&document.schedule)?;
        self.save(&document.save, document.data.validation.is_some())?;
        self.only_own_tables(&document)?;
        self.heard(&document)?;
        if let Some(lora) = &document.lora {
            self.lora(lora)?;
        }
        let work = self.work(&mut document)?;
        self.fill(&mut document);
        self.trained(&document)?;
        Ok(Recipe {
            name: document.name,
            seed: document.seed,
            work,
            data: document.data,
            batch: document.batch,
            optimizer: document.optimizer,
            schedule: document.schedule,
            memory: document.memory,
            lora: document.lora,
            save: document.save,
            log: document.log,
            source,
        })
    }

    /// A table of another stage is a misunderstanding.
    fn only_own_tables(&self, document: &Document) -> Result<(), RecipeError> {
        use Stage::{Align, Contrastive, Dense, Instruct, Language, Lexical, Mae};
        let tables: [(&str, bool, &[Stage]); 10] = [
            (
                "model",
                document.model.is_some(),
                &[Lexical, Align, Instruct],
            ),
            (
                "encoder",
                document.encoder.is_some(),
                &[Contrastive, Mae, Dense],
            ),
            ("dense", document.dense.is_some(), &[Dense]),
            ("lexical", document.lexical.is_some(), &[Lexical]),
            ("text", document.text.is_some(), &[Contrastive]),
            (
                "contrastive",
                document.contrastive.is_some(),
                &[Contrastive],
            ),
            ("mae", document.mae.is_some(), &[Mae]),
            ("decoder", document.decoder.is_some(), &[Language]),
            ("tokenizer", document.tokenizer.is_some(), &[Language]),
            ("lora", document.lora.is_some(), &[Instruct]),
        ];
        match tables
            .iter()
            .find(|(_, there, stages)| *there && !stages.contains(&self.stage))
        {
            Some((key, _, stages)) => {
                let stages: Vec<_> = stages.iter().map(|stage| stage.name()).collect();
                Err(self.misplaced(key, format!("it belongs to {}", stages.join(" and "))))
            }
            None => Ok(()),
        }
    }

    fn work(&self, document: &mut Document) -> Result<Work, RecipeError> {
        let encoder = || {
            let table = document.encoder.clone();
            let table = table.ok_or_else(|| self.missing("encoder", "the network to train"))?;
            self.encoder(&table).map(|()| table)
        };
        Ok(match self.stage {
            Stage::Lexical => {
                let lexical = document.lexical.take();
                let why = "the folder of `labels` and the planes that become `words`";
                let lexical = lexical.ok_or_else(|| self.missing("lexical", why))?;
                self.lexical(&lexical, &document.data)?;
                let model = self.model(document.model.take())?;
                Work::Lexical { model, lexical }
            }
            Stage::Align => Work::Align(self.model(document.model.take())?),
            Stage::Instruct => Work::Instruct(self.model(document.model.take())?),
            Stage::Contrastive => {
                let encoder = encoder()?;
                let text = document.text.take();
                let text = text.ok_or_else(|| self.missing("text", "what captions go through"))?;
                let loss = document.contrastive.take().unwrap_or_default();
                self.contrastive(&text, &loss)?;
                Work::Contrastive {
                    encoder,
                    text,
                    loss,
                }
            }
            Stage::Mae => {
                let encoder = encoder()?;
                let masking = document.mae.take().unwrap_or_default();
                self.mae(&masking)?;
                Work::Mae { encoder, masking }
            }
            Stage::Dense => {
                let encoder = encoder()?;
                let why = "the folder of `labels` that says what is where";
                let labels = document.dense.take();
                let labels = labels.ok_or_else(|| self.missing("dense", why))?;
                if document.data.validation.is_some() && labels.validation_labels.is_none() {
                    let why = "`data.validation` has label maps, too";
                    return Err(self.missing("dense.validation_labels", why));
                }
                Work::Dense { encoder, labels }
            }
            Stage::Language => {
                let decoder = document.decoder.take();
                let decoder = decoder.ok_or_else(|| self.missing("decoder", "its sizes"))?;
                self.decoder(&decoder)?;
                let tokenizer = document.tokenizer.take();
                let tokenizer = tokenizer
                    .ok_or_else(|| self.missing("tokenizer", "what texts are cut into"))?;
                self.sizes(&[("tokenizer.vocabulary", tokenizer.vocabulary)])?;
                self.template("tokenizer.template", &tokenizer.template)?;
                Work::Language { decoder, tokenizer }
            }
        })
    }

    fn lexical(&self, table: &LexicalTable, data: &DataTable) -> Result<(), RecipeError> {
        self.ensure(
            !(table.words.is_empty() && table.scales.is_empty() && table.marks.is_empty()),
            "lexical.words",
            "empty",
            "there must be words to learn, here, in `lexical.scales` or in `lexical.marks`",
        )?;
        if let Folders::OfFiles(folders) = &table.labels {
            self.one_for_each("lexical.labels", folders, data)?;
        }
        let listed = |folders: &Folders| matches!(folders, Folders::OfFiles(_));
        self.ensure(
            data.files.len() < 2 || listed(&table.labels) == data.images.as_ref().is_some_and(listed),
            "lexical.labels",
            if listed(&table.labels) { "a list" } else { "one folder" },
            "it must be a list where `data.images` is one, and one folder where that is one folder; pictures \
             of different folders may have the same names",
        )?;
        if data.validation.is_some() && table.validation_labels.is_none() {
            let why = "`data.validation` has label maps, too";
            return Err(self.missing("lexical.validation_labels", why));
        }
        Ok(())
    }

    fn contrastive(&self, text: &TextTable, loss: &ContrastiveTable) -> Result<(), RecipeError> {
        self.sizes(&[
            ("text.width", text.width),
            ("text.layers", text.layers),
            ("text.heads", text.heads),
            ("text.max_tokens", text.max_tokens),
            ("contrastive.embedding", loss.embedding),
        ])?;
        self.heads("text.heads", text.width, text.heads)?;
        self.positive("contrastive.temperature", loss.temperature)?;
        self.finite("contrastive.bias", loss.bias)
    }

    fn mae(&self, masking: &MaeTable) -> Result<(), RecipeError> {
        self.share("mae.mask_ratio", masking.mask_ratio)?;
        self.sizes(&[
            ("mae.decoder_width", masking.decoder_width),
            ("mae.decoder_layers", masking.decoder_layers),
            ("mae.decoder_heads", masking.decoder_heads),
        ])?;
        self.heads(
            "mae.decoder_heads",
            masking.decoder_width,
            masking.decoder_heads,
        )
    }

    fn model(&self, table: Option<ModelTable>) -> Result<Model, RecipeError> {
        let why = "`from`, a whole model's folder, or `decoder`, `encoders` and `connector`";
        let table = table.ok_or_else(|| self.missing("model", why))?;
        if let Some(template) = &table.template {
            self.template("model.template", template)?;
        }
        if let Some(length) = table.max_length {
            self.sizes(&[("model.max_length", length)])?;
        }
        for (i, encoder) in table.encoders.iter().enumerate() {
            self.encoder_name(&format!("model.encoders.{i}.name"), &encoder.name)?;
        }
        let start = match &table.from {
            Some(from) => self.folder(from, &table)?,
            None => self.parts(&table)?,
        };
        Ok(Model {
            start,
            adapter: table.adapter.clone(),
            template: table.template.clone(),
            max_length: table.max_length,
            table,
        })
    }

    fn folder(&self, from: &Path, table: &ModelTable) -> Result<ModelStart, RecipeError> {
        let why = "a model `from` a folder has its own";
        if table.decoder.is_some() {
            return Err(self.misplaced("model.decoder", why));
        }
        if table.connector.is_some() {
            return Err(self.misplaced("model.connector", why));
        }
        Ok(ModelStart::Folder {
            from: from.to_path_buf(),
            encoders: table.encoders.clone(),
        })
    }

    fn parts(&self, table: &ModelTable) -> Result<ModelStart, RecipeError> {
        let decoder = table.decoder.clone().ok_or_else(|| {
            self.missing(
                "model.decoder",
                "a language model's folder (or use `model.from`)",
            )
        })?;
        if table.encoders.is_empty() {
            return Err(self.missing("model.encoders", "at least one vision encoder"));
        }
        let connector = table.connector.as_ref();
        let connector =
            connector.ok_or_else(|| self.missing("model.connector", "the connector to build"))?;
        let encoders = table.encoders.iter().enumerate().map(|(i, encoder)| {
            let key = format!("model.encoders.{i}.tokens");
            Ok(EncoderPart {
                name: encoder.name.clone(),
                grid: self.grid(&key, encoder.tokens)?,
                weights: encoder.weights.clone(),
            })
        });
        Ok(ModelStart::Parts {
            decoder,
            encoders: encoders.collect::<Result<_, _>>()?,
            connector: self.connector(connector)?,
            select_layer: connector.mm_vision_select_layer,
            image_position: connector.image_position,
        })
    }

    /// Writes out the defaults that depend on the stage or on other values.
    fn fill(&self, document: &mut Document) {
        let optimizer = &mut document.optimizer;
        for &part in self.stage.parts() {
            let table = optimizer.parts.entry(part).or_default();
            table.train.get_or_insert(self.stage.trains(part));
            table.lr.get_or_insert(optimizer.lr);
            table.weight_decay.get_or_insert(optimizer.weight_decay);
        }
        let schedule = &mut document.schedule;
        if schedule.steps.is_none() {
            schedule.epochs.get_or_insert(1);
        }
        if schedule.warmup_steps.is_none() {
            schedule.warmup_ratio.get_or_insert(0.0);
        }
        let instruct = self.stage == Stage::Instruct;
        document
            .data
            .group_by_modality_length
            .get_or_insert(instruct);
        document
            .save
            .folder
            .get_or_insert_with(|| Path::new("runs").join(&document.name));
    }

    /// Something trains, and nothing that is kept changes.
    fn trained(&self, document: &Document) -> Result<(), RecipeError> {
        let trains = |part: Part| {
            let table = document.optimizer.parts.get(&part);
            table.is_some_and(|table| table.train == Some(true))
        };
        if !self.stage.parts().iter().any(|&part| trains(part)) {
            return Err(self.refuse(
                "optimizer.parts",
                "frozen in every part",
                "something must train",
            ));
        }
        self.feature_cache(&document.data.feature_cache, trains(Part::Encoders))
    }
}
