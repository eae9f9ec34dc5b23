//! Names of encoders with their suffixes: which row, at which side, on which token grid.
//!
//! `facebook/dinov2-giant-res378-interp576` is the row `facebook/dinov2-giant` with pictures of
//! 378 px and its features resampled to 24 × 24. Suffixes are read from the end of the name, never
//! found inside it, and a name that a row has as a whole (such as `facebook/dinov2-giant-res378`)
//! is that row.

use std::fmt;

use opabinia_nn::Grid;

use crate::error::VisionError;
use crate::registry::{EncoderEntry, REGISTRY};

/// Names below this similarity are not worth proposing.
const SIMILAR: f64 = 0.7;

/// Sides beyond this do not fit into memory.
const MAX_SIDE: u32 = 65_535;

/// Which outputs of a network are the features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Select {
    /// The hidden states at an index, as transformers counts them: 0 is the input of the first
    /// block, `i` the output of block `i − 1`, −1 the last.
    Layer(i64),
    /// The last output, after the network's final norm.
    Final,
    /// The outputs of all stages, one beside the other.
    AllStages,
    /// The output of the last stage.
    LastStage,
}

/// An encoder as somebody asked for it.
#[derive(Clone, Copy, Debug)]
pub struct EncoderSpec {
    /// The row of the registry.
    pub entry: &'static EncoderEntry,
    /// Side of the pictures in pixels (`-res<R>`), if the name says it.
    pub side: Option<u32>,
    /// The grid that features are resampled to (`-interp<N>`, N tokens), if the name says it.
    pub tokens: Option<Grid>,
    /// Which outputs are the features.
    pub select: Select,
}

impl EncoderSpec {
    /// Reads a published name with optional suffixes `-res<R>` and `-interp<N>`, in either order.
    ///
    /// # Errors
    /// [`VisionError::UnknownEncoder`] with the nearest names, [`VisionError::Suffix`] if a number
    /// is unusable or a suffix is given twice.
    pub fn parse(name: &str) -> Result<Self, VisionError> {
        let bad = |suffix: &str, reason: &'static str| VisionError::Suffix {
            name: name.to_owned(),
            suffix: format!("-{suffix}"),
            reason,
        };
        let (mut side, mut tokens, mut rest) = (None, None, name);
        loop {
            if let Some(entry) = EncoderEntry::find(rest) {
                if side.is_some() && split_suffix(rest, "res").is_some() {
                    return Err(bad("res", "the name before it already says a side"));
                }
                return Ok(Self {
                    entry,
                    side: side.or(entry.side),
                    tokens,
                    select: entry.select,
                });
            }
            if let Some((base, digits, suffix)) = split_suffix(rest, "res") {
                if side
                    .replace(parse_side(digits).map_err(|why| bad(suffix, why))?)
                    .is_some()
                {
                    return Err(bad(suffix, "a side is given twice"));
                }
                rest = base;
            } else if let Some((base, digits, suffix)) = split_suffix(rest, "interp") {
                if tokens
                    .replace(parse_tokens(digits).map_err(|why| bad(suffix, why))?)
                    .is_some()
                {
                    return Err(bad(suffix, "a number of tokens is given twice"));
                }
                rest = base;
            } else {
                let nearest = nearest_names(rest);
                return Err(VisionError::UnknownEncoder {
                    name: rest.to_owned(),
                    nearest,
                });
            }
        }
    }

    /// The same encoder with its features resampled to `tokens`.
    #[must_use]
    pub fn with_tokens(self, tokens: Grid) -> Self {
        Self {
            tokens: Some(tokens),
            ..self
        }
    }

    /// Takes the features from another layer, where the family has one to choose (CLIP: the key
    /// `mm_vision_select_layer` of a Cambrian-1 model); elsewhere nothing changes.
    #[must_use]
    pub fn with_select_layer(self, layer: i64) -> Self {
        match self.select {
            Select::Layer(_) => Self {
                select: Select::Layer(layer),
                ..self
            },
            Select::Final | Select::AllStages | Select::LastStage => self,
        }
    }
}

impl fmt::Display for EncoderSpec {
    /// The name that [`EncoderSpec::parse`] reads back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.entry.name())?;
        match self.side {
            Some(side) if self.entry.side != Some(side) => write!(f, "-res{side}")?,
            _ => {}
        }
        match self.tokens {
            Some(grid) => write!(f, "-interp{}", grid.len()),
            None => Ok(()),
        }
    }
}

/// `name-res378` with the word `res` → (`name`, `378`, `res378`).
fn split_suffix<'a>(name: &'a str, word: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let (base, suffix) = name.rsplit_once('-')?;
    let digits = suffix.strip_prefix(word)?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some((base, digits, suffix))
}

fn parse_side(digits: &str) -> Result<u32, &'static str> {
    match digits.parse() {
        Ok(side) if (1..=MAX_SIDE).contains(&side) => Ok(side),
        _ => Err("a side is from 1 to 65535 pixels"),
    }
}

fn parse_tokens(digits: &str) -> Result<Grid, &'static str> {
    let grid = digits
        .parse::<u32>()
        .ok()
        .and_then(|n| Grid::from_token_count(n as usize));
    grid.ok_or("the number of tokens must be a square, such as 576 = 24²")
}

/// The three published names most like `name`.
fn nearest_names(name: &str) -> Vec<&'static str> {
    let wanted = name.to_lowercase();
    let mut ranked: Vec<(f64, &'static str)> = REGISTRY
        .iter()
        .flat_map(|entry| entry.names)
        .map(|known| (strsim::jaro_winkler(&wanted, &known.to_lowercase()), *known))
        .filter(|(similarity, _)| *similarity >= SIMILAR)
        .collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    ranked.into_iter().take(3).map(|(_, known)| known).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn suffixes_are_taken_from_the_end() {
        let spec = EncoderSpec::parse("facebook/dinov2-giant-res420-interp576").unwrap();
        assert_eq!(spec.entry.name(), "facebook/dinov2-giant");
        assert_eq!(
            (spec.side, spec.tokens),
            (Some(420), Some(Grid::square(24)))
        );
        let other = EncoderSpec::parse("facebook/dinov2-giant-interp576-res420").unwrap();
        assert_eq!(other.to_string(), spec.to_string());
    }

    #[test]
    fn the_released_names_are_rows() {
        let released = [
            ("siglip/CLIP-ViT-SO400M-14-384-interp576", None),
            ("openai/clip-vit-large-patch14-336-interp576", None),
            ("facebook/dinov2-giant-res378-interp576", Some(378)),
            ("clip-convnext-XXL-multi-stage-interp9216", None),
        ];
        for (name, side) in released {
            let spec = EncoderSpec::parse(name).unwrap();
            assert_eq!((spec.side, spec.to_string().as_str()), (side, name));
        }
    }

    /// `-384` is part of a published name, not a suffix; one name may begin with another.
    #[test]
    fn longer_names_are_not_cut() {
        let sides = [
            ("siglip/CLIP-ViT-SO400M-14", 224),
            ("siglip/CLIP-ViT-SO400M-14-384", 384),
        ];
        for (name, side) in sides {
            let entry = EncoderSpec::parse(name).unwrap().entry;
            assert_eq!((entry.name(), entry.config.side()), (name, side));
        }
        assert!(EncoderSpec::parse("facebook/dinov2-giant-imagenet1k-1-layer").is_ok());
    }

    #[test]
    fn mistakes_are_explained() {
        let message = |name: &str| EncoderSpec::parse(name).unwrap_err().to_string();
        assert_eq!(
            message("facebook/dinov2-giamt-res378"),
            "no vision encoder is called `facebook/dinov2-giamt`; did you mean \
             `facebook/dinov2-giant`, `facebook/dinov2-giant-res378`, \
             `facebook/dinov2-base`?; `opabinia encoders` lists all"
        );
        assert!(message("facebook/dinov2-giant-interp575").contains("square"));
        assert!(message("facebook/dinov2-giant-interp0").contains("square"));
        assert!(message("facebook/dinov2-giant-res0").contains("65535"));
        assert!(message("facebook/dinov2-large-res70-res98").contains("twice"));
        assert!(message("facebook/dinov2-giant-res378-res98").contains("already"));
        assert!(message("").contains("no vision encoder"));
        assert!(message("xyzzy").contains("lists all"));
    }

    #[test]
    fn only_clip_has_a_layer_to_choose() {
        let spec = |name| {
            EncoderSpec::parse(name)
                .unwrap()
                .with_select_layer(-3)
                .select
        };
        assert_eq!(spec("openai/clip-vit-large-patch14-336"), Select::Layer(-3));
        assert_eq!(spec("facebook/dinov2-large"), Select::Final);
    }

    proptest! {
        /// What is printed is read back, for every row and every usable suffix.
        #[test]
        fn names_survive_a_round_trip(
            row in 0..REGISTRY.len(),
            side in proptest::option::of(1u32..5000),
            grid in proptest::option::of(1usize..200),
        ) {
            let entry = &REGISTRY[row];
            // A name that already says a side takes no other.
            let side = if entry.side.is_some() { entry.side } else { side };
            let tokens = grid.map(Grid::square);
            let spec = EncoderSpec { entry, side, tokens, select: entry.select };
            let read = EncoderSpec::parse(&spec.to_string()).unwrap();
            prop_assert_eq!(read.entry.name(), entry.name());
            prop_assert_eq!((read.side, read.tokens), (side, tokens));
        }

        /// Whatever is typed, there is an answer and no panic.
        #[test]
        fn any_text_is_answered(text in ".{0,40}", base in 0..REGISTRY.len()) {
            let _ = EncoderSpec::parse(&text);
            let _ = EncoderSpec::parse(&format!("{}-{text}", REGISTRY[base].name()));
            let _ = EncoderSpec::parse(&format!("{}-res{text}", REGISTRY[base].name()));
        }
    }
}
