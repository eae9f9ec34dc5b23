//! Which parameters train, how fast, and which of them decay.
//!
//! A parameter belongs to a [`Part`] of the model by its name in a checkpoint, and each part has a
//! learning rate, a weight decay and a switch. Biases and the scales of norms never decay; the
//! query, the end-of-row vector and position embeddings do.
//!
//! The trainer of the reference implementation has one rate and at most one special rate besides,
//! chosen by an `if`/`else` chain: a rate for the sampler silently disables the one for the
//! encoders. [`ReferenceGroups`] reproduces that rule, so that published settings can be checked
//! against it; for all of them both rules give the same rates.

use serde::{Deserialize, Serialize};

use crate::optimizer::{Rate, Rule};

/// A part of the model that a recipe can speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The vision encoders.
    Encoders,
    /// The per-token layers of the connector: before the sampler, one per encoder, and after it.
    Projector,
    /// The spatial vision aggregator: its query, its layers before the decoder, and those in it.
    Sampler,
    /// The vector at the end of each row of visual tokens.
    Newline,
    /// The decoder's token embeddings.
    Embeddings,
    /// The decoder's layers and last norm.
    Decoder,
    /// The decoder's output layer; where it is tied it belongs to the embeddings.
    Head,
    /// What a pretraining task adds and throws away: text tower, reconstruction, temperature.
    Auxiliary,
}

impl Part {
    /// All parts, in the order of a picture's way.
    pub const ALL: [Self; 8] = [
        Self::Encoders,
        Self::Projector,
        Self::Sampler,
        Self::Newline,
        Self::Embeddings,
        Self::Decoder,
        Self::Head,
        Self::Auxiliary,
    ];

    /// Its name in recipes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Encoders => "encoders",
            Self::Projector => "projector",
            Self::Sampler => "sampler",
            Self::Newline => "newline",
            Self::Embeddings => "embeddings",
            Self::Decoder => "decoder",
            Self::Head => "head",
            Self::Auxiliary => "auxiliary",
        }
    }

    /// The part of a parameter by its checkpoint name. An encoder that is pretrained alone is
    /// recognised by the prefix `encoder.`.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let has = |word: &str| name.contains(word);
        if has("vision_tower") || name.starts_with("encoder.") {
            Self::Encoders
        } else if has("mm_projector") {
            Self::Projector
        } else if has("vision_sampler") || has("vision_query") {
            Self::Sampler
        } else if has("image_newline") {
            Self::Newline
        } else if has("lm_head") {
            Self::Head
        } else if has("embed_tokens") {
            Self::Embeddings
        } else if name.starts_with("model.layers.") || name.starts_with("model.norm.") {
            Self::Decoder
        } else {
            Self::Auxiliary
        }
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How one part trains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PartRate {
    /// Whether it trains at all.
    pub train: bool,
    /// Learning rate at the top of the schedule.
    pub lr: f64,
    /// Weight decay of its matrices.
    pub weight_decay: f64,
    /// What its matrices move by.
    pub matrices: Rule,
}

/// How all parts train.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PartRates {
    parts: [PartRate; Part::ALL.len()],
    decoder_adapters: bool,
}

impl PartRates {
    /// Asks for each part in turn.
    #[must_use]
    pub fn new(rate: impl FnMut(Part) -> PartRate) -> Self {
        Self {
            parts: Part::ALL.map(rate),
            decoder_adapters: false,
        }
    }

    /// With low-rank adapters the decoder's own weights stay, and only its adapters train.
    #[must_use]
    pub fn with_decoder_adapters(mut self) -> Self {
        self.decoder_adapters = true;
        self
    }

    /// How a part trains.
    #[must_use]
    pub fn part(&self, part: Part) -> PartRate {
        self.parts[part as usize]
    }

    /// The same with all learning rates multiplied.
    #[must_use]
    pub fn scaled(mut self, factor: f64) -> Self {
        for part in &mut self.parts {
            part.lr *= factor;
        }
        self
    }

    /// Rate and decay of the parameter that a checkpoint calls `name`; `None` if it is frozen.
    #[must_use]
    pub fn rate(&self, name: &str, shape: &[usize]) -> Option<Rate> {
        let part = Part::of(name);
        let PartRate {
            train,
            lr,
            weight_decay,
            matrices,
        } = self.part(part);
        let frozen_base = self.decoder_adapters
            && matches!(part, Part::Decoder | Part::Embeddings | Part::Head)
            && !is_adapter(name);
        (train && !frozen_base).then(|| Rate {
            lr,
            weight_decay: if decays(name, shape) {
                weight_decay
            } else {
                0.0
            },
            rule: if is_hidden_matrix(name, shape) {
                matrices
            } else {
                Rule::Adamw
            },
        })
    }
}

/// Whether a parameter maps between hidden vectors. Tables of vectors (embeddings of tokens and
/// positions, queries) and the output layer have two dimensions too, and do not.
fn is_hidden_matrix(name: &str, shape: &[usize]) -> bool {
    let [rows, columns] = *shape else {
        return false;
    };
    let is_other = |word: &str| {
        word.contains("embed") || matches!(word, "tokens" | "lm_head" | "head" | "heads")
    };
    rows > 1 && columns > 1 && name.ends_with(".weight") && !name.split('.').any(is_other)
}

/// Whether a parameter is a factor of a low-rank adapter (`lora.a`, `lora.b` beside the weight).
fn is_adapter(name: &str) -> bool {
    name.split('.').any(|word| word == "lora")
}

/// Whether weight decay applies: not to biases, scales of norms and single numbers.
fn decays(name: &str, shape: &[usize]) -> bool {
    reference_decays(name, shape) && shape.iter().product::<usize>() != 1
}

/// The reference's rule: everything but norms and biases.
///
/// The reference asks for the class of the module. By name and shape: a vector called `weight` is
/// the scale of a norm, since the weights of all other layers have at least two dimensions.
fn reference_decays(name: &str, shape: &[usize]) -> bool {
    let norm = shape.len() == 1 && name.ends_with(".weight");
    !norm && !name.contains("bias")
}

/// A parameter and what becomes of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Assigned {
    /// Module path.
    pub path: String,
    /// Checkpoint name.
    pub name: String,
    /// Which part it belongs to.
    pub part: Part,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Rate and decay; `None` if it is frozen.
    pub rate: Option<Rate>,
}

/// What a part has, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartCount {
    /// Which.
    pub part: Part,
    /// Numbers that train.
    pub trained: u64,
    /// Numbers that are frozen.
    pub frozen: u64,
}

/// All parameters of a module with what becomes of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    parameters: std::collections::BTreeMap<String, Assigned>,
}

impl Assignment {
    /// Assigns rates to the parameters given as module path and shape, whose checkpoint names
    /// `name_of` tells.
    #[must_use]
    pub fn new(
        parameters: impl IntoIterator<Item = (String, Vec<usize>)>,
        name_of: impl Fn(&str) -> String,
        rates: &PartRates,
    ) -> Self {
        let assign = |(path, shape): (String, Vec<usize>)| {
            let name = name_of(&path);
            let assigned = Assigned {
                part: Part::of(&name),
                rate: rates.rate(&name, &shape),
                path: path.clone(),
                name,
                shape,
            };
            (path, assigned)
        };
        Self {
            parameters: parameters.into_iter().map(assign).collect(),
        }
    }

    /// What becomes of the parameter at a module path.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Assigned> {
        self.parameters.get(path)
    }

    /// Rate of the parameter at a module path; `None` if it is frozen or unknown.
    #[must_use]
    pub fn rate(&self, path: &str) -> Option<Rate> {
        self.get(path).and_then(|assigned| assigned.rate)
    }

    /// All parameters by module path.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Assigned> {
        self.parameters.values()
    }

    /// Numbers per part, for parts that have any.
    #[must_use]
    pub fn counts(&self) -> Vec<PartCount> {
        let count = |part: Part| {
            let numbers = |trains: bool| {
                self.iter()
                    .filter(|p| p.part == part && p.rate.is_some() == trains)
                    .map(|p| p.shape.iter().map(|&n| n as u64).product::<u64>())
                    .sum()
            };
            PartCount {
                part,
                trained: numbers(true),
                frozen: numbers(false),
            }
        };
        Part::ALL
            .into_iter()
            .map(count)
            .filter(|count| count.trained + count.frozen > 0)
            .collect()
    }
}

/// The arguments of the reference's trainer that decide about groups.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ReferenceArguments {
    /// `learning_rate`.
    pub learning_rate: f64,
    /// `weight_decay`.
    pub weight_decay: f64,
    /// `mm_projector_lr`.
    pub mm_projector_lr: Option<f64>,
    /// `mm_vision_sampler_lr`.
    pub mm_vision_sampler_lr: Option<f64>,
    /// `mm_vision_tower_lr`.
    pub mm_vision_tower_lr: Option<f64>,
    /// `unfreeze_mm_vision_tower`.
    pub unfreeze_mm_vision_tower: bool,
    /// `tune_mm_mlp_adapter`: the first stage.
    pub adapter_only: bool,
}

/// The reference asserts that not both are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the reference refuses a projector rate together with a sampler rate")]
pub struct ProjectorAndSampler;

/// A parameter's group as the reference's trainer forms them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReferenceGroup {
    /// 0 and 1 with the general rate, 2 and 3 with the special one; odd ones do not decay.
    pub index: usize,
    /// Rate and decay of the group.
    pub rate: Rate,
}

/// The reference's rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReferenceGroups {
    arguments: ReferenceArguments,
    special: Option<(Part, f64)>,
}

impl ReferenceGroups {
    /// The rule for these arguments.
    ///
    /// # Errors
    /// If both a projector and a sampler rate are given.
    pub fn new(arguments: ReferenceArguments) -> Result<Self, ProjectorAndSampler> {
        let ReferenceArguments {
            mm_projector_lr,
            mm_vision_sampler_lr,
            mm_vision_tower_lr,
            unfreeze_mm_vision_tower,
            ..
        } = arguments;
        if mm_projector_lr.is_some() && mm_vision_sampler_lr.is_some() {
            return Err(ProjectorAndSampler);
        }
        let tower_lr = mm_vision_tower_lr.filter(|_| unfreeze_mm_vision_tower);
        // The first that is given hides the others.
        let special = mm_projector_lr
            .map(|lr| (Part::Projector, lr))
            .or(mm_vision_sampler_lr.map(|lr| (Part::Sampler, lr)))
            .or(tower_lr.map(|lr| (Part::Encoders, lr)));
        Ok(Self { arguments, special })
    }

    /// The group of a parameter by its checkpoint name; `None` if it is frozen.
    #[must_use]
    pub fn group(&self, name: &str, shape: &[usize]) -> Option<ReferenceGroup> {
        let part = Part::of(name);
        if !self.trains(name, part) {
            return None;
        }
        let special = self.special.filter(|(special, _)| *special == part);
        let decays = reference_decays(name, shape);
        Some(ReferenceGroup {
            index: 2 * usize::from(special.is_some()) + usize::from(!decays),
            rate: Rate {
                rule: Rule::Adamw,
                lr: special.map_or(self.arguments.learning_rate, |(_, lr)| lr),
                weight_decay: if decays {
                    self.arguments.weight_decay
                } else {
                    0.0
                },
            },
        })
    }

    fn trains(&self, name: &str, part: Part) -> bool {
        if part == Part::Encoders {
            return self.arguments.unfreeze_mm_vision_tower;
        }
        let connector = matches!(part, Part::Projector | Part::Sampler | Part::Newline);
        !self.arguments.adapter_only || connector || name.contains("pos_emb")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_checkpoints_fall_into_parts() {
        for (name, part) in [
            ("model.mm_projector_aux_3.0.weight", Part::Projector),
            (
                "model.vision_sampler_layers.0.layers.0.pos_embed_1",
                Part::Sampler,
            ),
            ("model.vision_query", Part::Sampler),
            ("model.image_newline", Part::Newline),
            ("model.layers.3.mlp.up_proj.weight", Part::Decoder),
            ("model.norm.weight", Part::Decoder),
            ("model.embed_tokens.weight", Part::Embeddings),
            ("lm_head.weight", Part::Head),
            (
                "model.vision_tower_aux_list.0.vision_tower.norm.weight",
                Part::Encoders,
            ),
            ("encoder.blocks.0.norm1.weight", Part::Encoders),
            ("text.blocks.0.norm1.weight", Part::Auxiliary),
        ] {
            assert_eq!(Part::of(name), part, "{name}");
        }
    }

    #[test]
    fn parts_are_indexed_by_their_order() {
        for (index, part) in Part::ALL.into_iter().enumerate() {
            assert_eq!(part as usize, index);
        }
    }

    #[test]
    fn biases_norms_and_single_numbers_do_not_decay() {
        assert!(decays("model.image_newline", &[8]));
        assert!(decays("model.mm_projector.0.weight", &[8, 8]));
        assert!(!decays("model.mm_projector.0.bias", &[8]));
        assert!(!decays("model.norm.weight", &[8]));
        assert!(!decays("temperature", &[1]));
    }

    #[test]
    fn adapters_train_and_their_bases_do_not() {
        let rates = PartRates::new(|part| PartRate {
            train: part != Part::Encoders,
            lr: 1.0,
            weight_decay: 0.0,
            matrices: Rule::Adamw,
        })
        .with_decoder_adapters();
        let trains = |name: &str| rates.rate(name, &[4, 4]).is_some();
        assert!(trains("model.layers.0.self_attn.q_proj.lora.a"));
        assert!(trains("model.mm_projector.0.weight"));
        assert!(!trains("model.layers.0.self_attn.q_proj.weight"));
        assert!(!trains("lm_head.weight"));
    }

    #[test]
    fn counts_are_per_part() {
        let rates = PartRates::new(|part| PartRate {
            train: part == Part::Head,
            lr: 1.0,
            weight_decay: 0.0,
            matrices: Rule::Adamw,
        });
        let parameters = [("norm.weight", vec![4]), ("head", vec![2, 3])];
        let parameters = parameters.map(|(path, shape)| (path.to_owned(), shape));
        let name_of = |path: &str| match path {
            "head" => "lm_head.weight".to_owned(),
            path => format!("model.{path}"),
        };
        let counts = Assignment::new(parameters, name_of, &rates).counts();
        let expected = [(Part::Decoder, 0, 4), (Part::Head, 6, 0)];
        assert_eq!(
            counts,
            expected.map(|(part, trained, frozen)| PartCount {
                part,
                trained,
                frozen
            })
        );
    }

    /// Of what has two dimensions, only maps between hidden vectors move by Muon.
    #[test]
    fn tables_are_no_hidden_matrices() {
        let rates = PartRates::new(|_| PartRate {
            train: true,
            lr: 1.0,
            weight_decay: 0.0,
            matrices: Rule::Muon,
        });
        let rule = |name: &str, shape: &[usize]| rates.rate(name, shape).unwrap().rule;
        for name in [
            "model.layers.0.self_attn.q_proj.weight",
            "model.vision_sampler_0.layers.0.cross_attn.q_proj.1.weight",
            "model.mm_projector.0.weight",
            "model.vision_tower.encoder.layer.0.attention.attention.query.weight",
        ] {
            assert_eq!(rule(name, &[4, 4]), Rule::Muon, "{name}");
        }
        assert_eq!(rule("model.layers.0.mlp.up_proj.bias", &[4]), Rule::Adamw);
        assert_eq!(rule("model.mm_projector.2.weight", &[1, 4]), Rule::Adamw);
        for name in [
            "model.embed_tokens.weight",
            "lm_head.weight",
            "model.vision_query",
            "text.tokens.weight",
            "head.weight",
            "heads.0.weight",
        ] {
            assert_eq!(rule(name, &[4, 4]), Rule::Adamw, "{name}");
        }
    }
}
