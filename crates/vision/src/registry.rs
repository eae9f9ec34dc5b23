//! The vision encoders that have a name: what no checkpoint says about them.
//!
//! Adding an encoder of a known family is adding a row. The architecture in a row is that of the
//! published checkpoint; it is used where there is no checkpoint (tables, benchmarks), while loading
//! follows the `config.json` beside the weights.

use std::fmt;

use burn::prelude::*;
use opabinia_image::Preprocessor;
use opabinia_nn::Grid;

use crate::config::EncoderConfig;
use crate::encoder::Encoder;
use crate::error::VisionError;
use crate::spec::{EncoderSpec, Select};
use crate::{clip, convnext, dinov2, siglip, small, transformer};

/// Networks that share their code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// OpenAI's CLIP with a vision transformer.
    Clip,
    /// SigLIP.
    Siglip,
    /// DINOv2.
    Dinov2,
    /// CLIP with a ConvNeXt trunk, from OpenCLIP.
    ConvNext,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Clip => "CLIP",
            Self::Siglip => "SigLIP",
            Self::Dinov2 => "DINOv2",
            Self::ConvNext => "ConvNeXt CLIP",
        })
    }
}

/// A row of the registry.
#[derive(Debug)]
pub struct EncoderEntry {
    /// Published names; the first is the one that is shown.
    pub names: &'static [&'static str],
    /// Which code runs it.
    pub family: Family,
    /// What it is, for tables.
    pub title: &'static str,
    /// Where its weights are published on the Hugging Face hub; empty if they are not, because they
    /// ship with a model. Ask [`repository`](EncoderEntry::repository).
    pub repo: &'static str,
    /// Files of that repository that are needed; of several weights files the first that exists.
    pub files: EncoderFiles,
    /// Licence of the weights (SPDX).
    pub licence: &'static str,
    /// Architecture of the published checkpoint.
    pub config: EncoderConfig,
    /// Side of its pictures in pixels, where it is not the configuration's.
    pub side: Option<u32>,
    /// Which outputs are the features.
    pub select: Select,
    /// Preparation of pictures for a side in pixels, as the reference implementation does it.
    pub preprocessor: fn(u32) -> Preprocessor,
}

/// Names of files in the style in which an encoder is published.
#[derive(Debug)]
pub struct EncoderFiles {
    /// The configuration.
    pub config: &'static str,
    /// The weights; the first that exists is meant.
    pub weights: &'static [&'static str],
}

const PLAIN_FILES: EncoderFiles = EncoderFiles {
    config: "config.json",
    weights: &["model.safetensors", "pytorch_model.bin"],
};

const OPEN_CLIP_FILES: EncoderFiles = EncoderFiles {
    config: "open_clip_config.json",
    weights: &["open_clip_model.safetensors", "open_clip_pytorch_model.bin"],
};

/// A CLIP row: the features of the last block but one.
const fn openai_clip(
    names: &'static [&'static str],
    title: &'static str,
    config: transformer::VitConfig,
) -> EncoderEntry {
    EncoderEntry {
        names,
        family: Family::Clip,
        title,
        repo: names[0],
        files: PLAIN_FILES,
        licence: "MIT",
        config: EncoderConfig::Clip(config),
        side: None,
        select: Select::Layer(-2),
        preprocessor: Preprocessor::reference_clip,
    }
}

const fn siglip_row(
    names: &'static [&'static str],
    title: &'static str,
    repo: &'static str,
    files: EncoderFiles,
    config: siglip::SiglipConfig,
) -> EncoderEntry {
    EncoderEntry {
        names,
        family: Family::Siglip,
        title,
        repo,
        files,
        licence: "Apache-2.0",
        config: EncoderConfig::Siglip(config),
        side: None,
        select: Select::Final,
        preprocessor: Preprocessor::reference_siglip,
    }
}

const fn dinov2_row(
    names: &'static [&'static str],
    title: &'static str,
    repo: &'static str,
    config: transformer::VitConfig,
) -> EncoderEntry {
    EncoderEntry {
        names,
        family: Family::Dinov2,
        title,
        repo,
        files: PLAIN_FILES,
        licence: "Apache-2.0",
        config: EncoderConfig::Dinov2(config),
        side: None,
        select: Select::Final,
        preprocessor: Preprocessor::reference_dinov2,
    }
}

const fn convnext_row(
    names: &'static [&'static str],
    title: &'static str,
    repo: &'static str,
    config: convnext::ConvNextConfig,
    select: Select,
) -> EncoderEntry {
    EncoderEntry {
        names,
        family: Family::ConvNext,
        title,
        repo,
        files: OPEN_CLIP_FILES,
        licence: "MIT",
        config: EncoderConfig::ConvNext(config),
        side: None,
        select,
        preprocessor: Preprocessor::reference_convnext_clip,
    }
}

const CONVNEXT_L_REPO: &str = "laion/CLIP-convnext_large_d_320.laion2B-s29B-b131K-ft-soup";
const CONVNEXT_XXL_REPO: &str = "laion/CLIP-convnext_xxlarge-laion2B-s34B-b82K-augreg-soup";

/// An encoder that this program trained; its weights are in the folder of the model that uses it.
const fn shipped(entry: EncoderEntry) -> EncoderEntry {
    EncoderEntry {
        repo: "",
        licence: "MIT OR Apache-2.0",
        ..entry
    }
}

/// All encoders, the four of the released Cambrian-1 models first.
pub static REGISTRY: &[EncoderEntry] = &[
    siglip_row(
        &[
            "siglip/CLIP-ViT-SO400M-14-384",
            "timm/ViT-SO400M-14-SigLIP-384",
        ],
        "SigLIP SO400M/14 384",
        "timm/ViT-SO400M-14-SigLIP-384",
        OPEN_CLIP_FILES,
        siglip::SO400M_384,
    ),
    openai_clip(
        &["openai/clip-vit-large-patch14-336"],
        "CLIP ViT-L/14 336",
        transformer::VitConfig {
            side: 336,
            ..clip::LARGE_PATCH14
        },
    ),
    EncoderEntry {
        side: Some(378),
        ..dinov2_row(
            &["facebook/dinov2-giant-res378"],
            "DINOv2 ViT-g/14 at 378",
            "facebook/dinov2-giant",
            dinov2::GIANT,
        )
    },
    convnext_row(
        &["clip-convnext-XXL-multi-stage"],
        "OpenCLIP ConvNeXt-XXL, all stages",
        CONVNEXT_XXL_REPO,
        convnext::XXLARGE,
        Select::AllStages,
    ),
    siglip_row(
        &["siglip/CLIP-ViT-SO400M-14", "timm/ViT-SO400M-14-SigLIP"],
        "SigLIP SO400M/14 224",
        "timm/ViT-SO400M-14-SigLIP",
        OPEN_CLIP_FILES,
        siglip::SO400M_224,
    ),
    siglip_row(
        &["google/siglip-so400m-patch14-384"],
        "SigLIP SO400M/14 384 (transformers)",
        "google/siglip-so400m-patch14-384",
        PLAIN_FILES,
        siglip::SO400M_384_TRANSFORMERS,
    ),
    siglip_row(
        &[
            "timm/vit_so400m_patch14_siglip_384.webli",
            "timm/vit_so400m_patch14_siglip_384",
        ],
        "SigLIP SO400M/14 384 (timm)",
        "timm/vit_so400m_patch14_siglip_384.webli",
        PLAIN_FILES,
        siglip::SO400M_384,
    ),
    openai_clip(
        &["openai/clip-vit-large-patch14"],
        "CLIP ViT-L/14",
        clip::LARGE_PATCH14,
    ),
    openai_clip(
        &["openai/clip-vit-base-patch16"],
        "CLIP ViT-B/16",
        clip::BASE_PATCH16,
    ),
    openai_clip(
        &["openai/clip-vit-base-patch32"],
        "CLIP ViT-B/32",
        clip::BASE_PATCH32,
    ),
    dinov2_row(
        &["facebook/dinov2-giant"],
        "DINOv2 ViT-g/14",
        "facebook/dinov2-giant",
        dinov2::GIANT,
    ),
    dinov2_row(
        &["facebook/dinov2-giant-imagenet1k-1-layer"],
        "DINOv2 ViT-g/14 of the ImageNet classifier",
        "facebook/dinov2-giant-imagenet1k-1-layer",
        dinov2::GIANT,
    ),
    dinov2_row(
        &["facebook/dinov2-large"],
        "DINOv2 ViT-L/14",
        "facebook/dinov2-large",
        dinov2::LARGE,
    ),
    dinov2_row(
        &["facebook/dinov2-base"],
        "DINOv2 ViT-B/14",
        "facebook/dinov2-base",
        dinov2::BASE,
    ),
    dinov2_row(
        &["facebook/dinov2-small"],
        "DINOv2 ViT-S/14",
        "facebook/dinov2-small",
        dinov2::SMALL,
    ),
    convnext_row(
        &["clip-convnext-XXL"],
        "OpenCLIP ConvNeXt-XXL",
        CONVNEXT_XXL_REPO,
        convnext::XXLARGE,
        Select::LastStage,
    ),
    convnext_row(
        &["clip-convnext-L-multi-stage"],
        "OpenCLIP ConvNeXt-L, all stages",
        CONVNEXT_L_REPO,
        convnext::LARGE,
        Select::AllStages,
    ),
    convnext_row(
        &["clip-convnext-L"],
        "OpenCLIP ConvNeXt-L",
        CONVNEXT_L_REPO,
        convnext::LARGE,
        Select::LastStage,
    ),
    shipped(siglip_row(
        &["opabinia/small-siglip-128"],
        "small SigLIP/8 128, ships with the small model",
        "",
        PLAIN_FILES,
        small::SIGLIP,
    )),
    shipped(dinov2_row(
        &["opabinia/small-dinov2-mae-128"],
        "small masked autoencoder of DINOv2's shape/8 128, trained by recipes/small",
        "",
        small::DINOV2,
    )),
    EncoderEntry {
        side: Some(small::CONVNEXT_SIDE),
        ..shipped(convnext_row(
            &["opabinia/small-convnext-256"],
            "small ConvNeXt CLIP 256, all stages, ships with the small model",
            "",
            small::CONVNEXT,
            Select::AllStages,
        ))
    },
    EncoderEntry {
        side: Some(small::CONVNEXT_SIDE),
        ..shipped(convnext_row(
            &["opabinia/small-convnext-text-256"],
            "small ConvNeXt CLIP 256 that reads, all stages, trained by recipes/small",
            "",
            small::CONVNEXT_TEXT,
            Select::AllStages,
        ))
    },
];

impl EncoderEntry {
    /// The name that is shown.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.names[0]
    }

    /// The row that has exactly this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        REGISTRY.iter().find(|entry| entry.names.contains(&name))
    }

    /// The repository on the Hugging Face hub that has its weights.
    ///
    /// # Errors
    /// [`VisionError::NotPublished`] if they ship with a model instead.
    pub fn repository(&self) -> Result<&'static str, VisionError> {
        if self.repo.is_empty() {
            return Err(VisionError::NotPublished { name: self.name() });
        }
        Ok(self.repo)
    }

    /// The row as it is, without suffixes.
    #[must_use]
    pub fn spec(&'static self) -> EncoderSpec {
        EncoderSpec {
            entry: self,
            side: self.side,
            tokens: None,
            select: self.select,
        }
    }

    /// The facts of the published checkpoint. Nothing is allocated for the parameters.
    ///
    /// # Errors
    /// If the row contradicts itself, which a test rules out.
    pub fn describe(&'static self) -> Result<EncoderDescription, VisionError> {
        let encoder = Encoder::new(&self.spec(), self.config, &Device::flex())?;
        let grid = encoder.grid();
        Ok(EncoderDescription {
            name: self.name(),
            aliases: &self.names[1..],
            family: self.family,
            title: self.title,
            repo: self.repository().ok(),
            licence: self.licence,
            side: encoder.side(),
            stride: encoder.stride(),
            grid,
            tokens: grid.len(),
            width: encoder.width(),
            layers: encoder.layers(),
            heads: self.config.vit().map(|vit| vit.heads),
            parameters: encoder.parameters(),
        })
    }
}

/// The facts of an encoder, for tables.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderDescription {
    /// The name that is shown.
    pub name: &'static str,
    /// Other names it is known by.
    pub aliases: &'static [&'static str],
    /// Which code runs it.
    pub family: Family,
    /// What it is.
    pub title: &'static str,
    /// Where its weights are published on the Hugging Face hub; `None` for one that ships inside
    /// the folder of a model.
    pub repo: Option<&'static str>,
    /// Licence of the weights (SPDX).
    pub licence: &'static str,
    /// Side of its pictures in pixels.
    pub side: u32,
    /// Pixels per cell of the grid, both ways.
    pub stride: usize,
    /// Its own grid, before any resampling.
    pub grid: Grid,
    /// Cells of that grid.
    pub tokens: usize,
    /// Width of a feature.
    pub width: usize,
    /// Blocks that are run.
    pub layers: usize,
    /// Attention heads, if it has attention.
    pub heads: Option<usize>,
    /// Numbers that are loaded: without text towers, pooling and layers that are not needed.
    pub parameters: u64,
}

/// The facts of every encoder, in the order of the registry.
///
/// # Errors
/// As [`EncoderEntry::describe`].
pub fn describe() -> Result<Vec<EncoderDescription>, VisionError> {
    REGISTRY.iter().map(EncoderEntry::describe).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_name_belongs_to_one_row() {
        let names: Vec<&str> = REGISTRY
            .iter()
            .flat_map(|entry| entry.names)
            .copied()
            .collect();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
    }

    #[test]
    fn every_row_describes_itself() {
        for entry in REGISTRY {
            assert_eq!(entry.family, entry.config.family(), "{}", entry.name());
            let description = entry.describe().unwrap();
            let pixels = (entry.preprocessor)(description.side);
            assert!(pixels.validate().is_ok(), "{}", entry.name());
        }
        assert_eq!(describe().unwrap().len(), REGISTRY.len());
    }

    /// They are in no hub, and say so.
    #[test]
    fn shipped_encoders_have_no_repository() {
        let shipped: Vec<_> = REGISTRY
            .iter()
            .filter(|entry| entry.names[0].starts_with("opabinia/"))
            .collect();
        assert_eq!(shipped.len(), 4);
        for entry in REGISTRY {
            let ours = entry.names[0].starts_with("opabinia/");
            assert_eq!(entry.repository().is_err(), ours, "{}", entry.name());
        }
        let error = shipped[0].repository().unwrap_err().to_string();
        assert!(error.contains("`towers`"), "{error}");
        // The sides in their names, and 360 = 24 + 48 + 96 + 192 channels of all stages.
        assert_eq!(facts("opabinia/small-siglip-128").0, 128);
        assert_eq!(facts("opabinia/small-dinov2-mae-128").1, 8 * 8);
        let (side, tokens, width, layers, _) = facts("opabinia/small-convnext-256");
        assert_eq!((side, tokens, width, layers), (256, 64 * 64, 360, 10));
        // 352 = 32 + 64 + 128 + 128.
        let (side, tokens, width, layers, _) = facts("opabinia/small-convnext-text-256");
        assert_eq!((side, tokens, width, layers), (256, 64 * 64, 352, 11));
    }

    fn facts(name: &str) -> (u32, usize, usize, usize, u64) {
        let found = EncoderEntry::find(name).unwrap().describe().unwrap();
        (
            found.side,
            found.tokens,
            found.width,
            found.layers,
            found.parameters,
        )
    }

    /// Published figures: widths and tokens of Cambrian-1's four encoders, and parameter counts that
    /// follow from the papers (a ViT block has 12 d² + 13 d parameters).
    #[test]
    fn the_released_encoders_have_their_published_sizes() {
        // 23 of 24 blocks, patch, class, 577 positions, first norm.
        let block = 12 * 1024 * 1024 + 13 * 1024;
        let clip = 23 * block + 3 * 14 * 14 * 1024 + 1024 + 577 * 1024 + 2 * 1024;
        assert_eq!(
            facts("openai/clip-vit-large-patch14-336"),
            (336, 576, 1024, 23, clip)
        );
        // The whole network has 1 136 480 768 parameters; the mask token is not loaded.
        assert_eq!(
            facts("facebook/dinov2-giant-res378"),
            (378, 729, 1536, 40, 1_136_480_768 - 1536)
        );
        let (side, tokens, width, layers, _) = facts("siglip/CLIP-ViT-SO400M-14-384");
        assert_eq!((side, tokens, width, layers), (384, 729, 1152, 27));
        let (side, tokens, width, layers, _) = facts("clip-convnext-XXL-multi-stage");
        assert_eq!((side, tokens, width, layers), (1024, 256 * 256, 5760, 40));
        assert_eq!(facts("clip-convnext-XXL").1, 32 * 32);
    }
}
