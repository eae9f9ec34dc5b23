//! Which source and category a sample belongs to.
//!
//! In published pools the `source` of a sample is the name of the file it came from, not its data set:
//! Cambrian-10M has 38 values for some 68 sources, and one mixed file carries 665 thousand samples of
//! nine. So a source is told by rules over what a sample says: its `source`, the beginning of its
//! picture's path, and the file it is in. The first rule that fits decides.

use std::collections::HashMap;
use std::path::Path;

use opabinia_data::Sample;
use serde::{Deserialize, Serialize};

/// Category of samples of which nothing says one.
pub const UNCATEGORISED: &str = "uncategorised";

/// How samples of one source are told, and what is decided about them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceRule {
    /// Name of the source.
    pub name: String,
    /// Its category; the sample's own if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// Values of the samples' `source`, one of which it must have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub field: Vec<String>,
    /// Folders that the picture's path begins with, one of which it must have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image: Vec<String>,
    /// Names of input files, one of which it must be in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub file: Vec<String>,
    /// Only samples with a picture, or only those without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has_image: Option<bool>,
    /// At most that many samples of the source, in all its categories; of rules with one name, the first
    /// says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap: Option<u64>,
    /// Names of the format prompts that its questions get.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prompts: Vec<String>,
}

impl SourceRule {
    /// A rule that asks for nothing asks for its own name.
    fn asks_for_name(&self) -> bool {
        self.field.is_empty()
            && self.image.is_empty()
            && self.file.is_empty()
            && self.has_image.is_none()
    }

    fn fits(&self, sample: &Sample, file: &str) -> bool {
        let image = sample.image.as_deref();
        let begins = |folder: &String| {
            let rest = image.and_then(|image| image.strip_prefix(folder.as_str()));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.has_image.is_none_or(|has| has == image.is_some())
            && (self.image.is_empty() || self.image.iter().any(begins))
            && (self.file.is_empty() || self.file.iter().any(|name| name == file))
    }
}

/// Source and category of a sample.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// Name of the source.
    pub source: String,
    /// Name of the category.
    pub category: String,
}

/// The rules of a recipe, ready to be asked.
#[derive(Clone, Debug)]
pub struct Rules {
    rules: Vec<SourceRule>,
    /// Rules that ask for a value of `source`, by value, in order.
    by_field: HashMap<String, Vec<usize>>,
    /// The others, in order.
    others: Vec<usize>,
}

impl Rules {
    /// Takes rules in their order.
    pub fn new(rules: &[SourceRule]) -> Self {
        let mut by_field: HashMap<String, Vec<usize>> = HashMap::new();
        let mut others = Vec::new();
        for (i, rule) in rules.iter().enumerate() {
            if rule.asks_for_name() {
                by_field.entry(rule.name.clone()).or_default().push(i);
            } else if rule.field.is_empty() {
                others.push(i);
            } else {
                for field in &rule.field {
                    by_field.entry(field.clone()).or_default().push(i);
                }
            }
        }
        Self {
            rules: rules.to_vec(),
            by_field,
            others,
        }
    }

    /// The first rule that fits a sample of `file`, a name without folders.
    pub fn rule(&self, sample: &Sample, file: &str) -> Option<&SourceRule> {
        let field = sample.source.as_deref();
        let by_field = field.and_then(|field| self.by_field.get(field));
        let candidates = by_field.into_iter().flatten().chain(&self.others);
        let fitting = candidates.filter(|&&i| self.rules[i].fits(sample, file));
        fitting.min().map(|&i| &self.rules[i])
    }

    /// Source and category: by the first rule that fits, else what the sample says, else its file.
    pub fn origin(&self, sample: &Sample, file: &str) -> Origin {
        let own = || sample.category.clone();
        let category = |named: Option<String>| {
            named
                .or_else(own)
                .unwrap_or_else(|| UNCATEGORISED.to_owned())
        };
        match self.rule(sample, file) {
            Some(rule) => Origin {
                source: rule.name.clone(),
                category: category(rule.category.clone()),
            },
            None => Origin {
                source: sample.source.clone().unwrap_or_else(|| file.to_owned()),
                category: category(None),
            },
        }
    }
}

/// Name of a file without its folders, as rules know it.
pub fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use opabinia_data::Place;

    use super::*;

    fn sample(source: &str, image: &str) -> Sample {
        let line = serde_json::json!({
            "source": source, "image": image,
            "conversations": [{"from": "human", "value": "?"}],
        });
        Sample::parse(
            line.to_string().as_bytes(),
            Place::new(Path::new("s.jsonl"), 1),
        )
        .unwrap()
    }

    fn rules(text: &str) -> Rules {
        #[derive(Deserialize)]
        struct File {
            source: Vec<SourceRule>,
        }
        Rules::new(&toml::from_str::<File>(text).unwrap().source)
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rules = rules(
            r#"
            [[source]]
            name = "OCRVQA"
            category = "OCR"
            field = ["mix.json"]
            image = ["ocr_vqa"]
            [[source]]
            name = "ShareGPT"
            field = ["mix.json"]
            has_image = false
            [[source]]
            name = "other.json"
            category = "General"
            [[source]]
            name = "the rest of a file"
            file = ["b.jsonl"]
            "#,
        );
        let origin = |source, image, file| rules.origin(&sample(source, image), file);
        let named = |source: &str, category: &str| Origin {
            source: source.to_owned(),
            category: category.to_owned(),
        };
        assert_eq!(
            origin("mix.json", "ocr_vqa/1.png", "a"),
            named("OCRVQA", "OCR")
        );
        assert_eq!(
            origin("mix.json", "ocr_vqa2/1.png", "a"),
            named("mix.json", UNCATEGORISED)
        );
        assert_eq!(
            origin("mix.json", "", "a"),
            named("ShareGPT", UNCATEGORISED)
        );
        assert_eq!(
            origin("other.json", "x", "b.jsonl"),
            named("other.json", "General")
        );
        assert_eq!(
            origin("new.json", "x", "b.jsonl"),
            named("the rest of a file", UNCATEGORISED)
        );
    }
}
