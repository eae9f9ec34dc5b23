//! What can go wrong between the name of an encoder and its features.

use std::io;
use std::path::PathBuf;

use opabinia_weights::WeightsError;

use crate::registry::Family;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VisionError {
    /// A name that no row of the registry has.
    #[error(
        "no vision encoder is called `{name}`{}; `opabinia encoders` lists all",
        did_you_mean(nearest)
    )]
    UnknownEncoder {
        /// The name, without its suffixes.
        name: String,
        /// The most similar names.
        nearest: Vec<&'static str>,
    },
    /// A suffix of a name that makes no sense.
    #[error("cannot use `{suffix}` in the encoder name `{name}`: {reason}")]
    Suffix {
        /// The whole name.
        name: String,
        /// The suffix.
        suffix: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A folder without a configuration.
    #[error(
        "no config.json or open_clip_config.json in {}: it says which network the weights are for",
        folder.display()
    )]
    NoConfig {
        /// The folder.
        folder: PathBuf,
    },
    /// The system refused to read a file.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The system refused to write a file.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// An encoder whose weights are on no hub.
    #[error(
        "the weights of `{name}` are not published: they come with the model that uses them, in its \
         `towers` folder; give their folder or train them (`recipes/small`)"
    )]
    NotPublished {
        /// The encoder's name.
        name: &'static str,
    },
    /// An encoder that cannot look at some patches only.
    #[error(
        "`{name}` is a {family} encoder, and masked autoencoding needs one that can leave patches \
         out: DINOv2"
    )]
    NeedsAllPatches {
        /// The encoder's name.
        name: &'static str,
        /// Its family.
        family: Family,
    },
    /// An encoder that has no token for the whole picture.
    #[error(
        "`{name}` is a {family} encoder, which has no class token; take the mean of its features"
    )]
    NoClassToken {
        /// The encoder's name.
        name: &'static str,
        /// Its family.
        family: Family,
    },
    /// A configuration that is not JSON.
    #[error("{} is not valid JSON", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser found.
        source: serde_json::Error,
    },
    /// A value of a configuration that cannot be used.
    #[error("cannot use `{key}` in {}: found {found}, wanted {wanted}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The key, with those of the tables around it.
        key: String,
        /// The value in the file.
        found: String,
        /// What would do.
        wanted: String,
    },
    /// A configuration of a network that this program has no code for.
    #[error(
        "{} describes {found}, for which there is no encoder; supported are CLIP and SigLIP \
         (transformers), DINOv2 (transformers), SigLIP and ConvNeXt (timm, OpenCLIP); other timm \
         sizes of these need a `timm_arch` table in the file",
        path.display()
    )]
    UnsupportedFamily {
        /// The file.
        path: PathBuf,
        /// What it describes, in the words of the file.
        found: String,
    },
    /// Weights of another family than the name promises.
    #[error(
        "`{name}` is a {wanted} encoder, but the configuration is that of {found}: check the folder"
    )]
    FamilyMismatch {
        /// The encoder's name.
        name: &'static str,
        /// Its family.
        wanted: Family,
        /// The family of the configuration.
        found: Family,
    },
    /// A layer that the network does not have.
    #[error(
        "cannot take features from layer {layer}: the network has {layers} layers, so 0 to {layers} \
         or −1 to −{} are possible (`mm_vision_select_layer`)",
        layers + 1
    )]
    SelectLayer {
        /// The layer asked for.
        layer: i64,
        /// Blocks of the network.
        layers: usize,
    },
    /// A picture side that the encoder's position table was not made for.
    #[error(
        "`{name}` has one position for each {patch} px patch of a {native} px picture and cannot \
         take {side} px: leave `-res{side}` out"
    )]
    FixedSide {
        /// The encoder's name.
        name: &'static str,
        /// The side asked for, in pixels.
        side: u32,
        /// The side of its table, in pixels.
        native: u32,
        /// The patch, in pixels.
        patch: usize,
    },
    /// A picture side below a single patch.
    #[error("`{name}` cannot take pictures of {side} px: the smallest side is {smallest} px")]
    SideTooSmall {
        /// The encoder's name.
        name: &'static str,
        /// The side asked for, in pixels.
        side: u32,
        /// The smallest possible side, in pixels.
        smallest: usize,
    },
    /// Weights whose names follow no layout known for this configuration.
    #[error(
        "the weights in {} do not fit their configuration: no tensor is called {}",
        path.display(),
        expected.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(" or ")
    )]
    Layout {
        /// The checkpoint.
        path: PathBuf,
        /// The names of the first weight in the known layouts.
        expected: Vec<String>,
    },
    /// The weights could not be loaded.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

fn did_you_mean(nearest: &[&str]) -> String {
    if nearest.is_empty() {
        return String::new();
    }
    let names: Vec<String> = nearest.iter().map(|name| format!("`{name}`")).collect();
    format!("; did you mean {}?", names.join(", "))
}
