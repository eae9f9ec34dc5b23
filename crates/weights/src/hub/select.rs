//! Which files of a model are wanted, and whether a folder has them all.

use std::fs;
use std::path::Path;

use regex::Regex;

use super::remote::RemoteFile;
use crate::checkpoint::{find_in_folder, is_index, shards_of};
use crate::key_map::compiled;

/// Sets of weights in the order of preference, as patterns of what belongs together.
const WEIGHT_SETS: [&[&str]; 8] = [
    &["model.safetensors.index.json", "model-*-of-*.safetensors"],
    &["model.safetensors"],
    &["open_clip_model.safetensors"],
    &["*.safetensors"],
    &["pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin"],
    &["pytorch_model.bin"],
    &["open_clip_pytorch_model.bin"],
    &["*.bin", "*.pt", "*.pth"],
];

/// What a model needs besides its weights: configurations, tokenizers, templates, the licence.
const SIDE_FILES: [&str; 6] = [
    "*.json",
    "*.model",
    "*.txt",
    "*.jinja",
    "LICENSE*",
    "README.md",
];

/// The files that are wanted.
#[derive(Debug)]
pub(super) enum Selection {
    /// Side files and one set of weights.
    WholeModel,
    /// Files that match any of the patterns.
    Patterns(Vec<Pattern>),
}

/// A file name, or one with `*` (any characters, also `/`) and `?` (one character).
#[derive(Debug)]
pub(super) struct Pattern {
    literal: Option<String>,
    regex: Regex,
}

impl Pattern {
    fn new(pattern: &str) -> Self {
        let has_wildcard = pattern.contains(['*', '?']);
        let regex = regex::escape(pattern)
            .replace(r"\*", ".*")
            .replace(r"\?", ".");
        Self {
            literal: (!has_wildcard).then(|| pattern.to_owned()),
            regex: compiled(&format!("^{regex}$")),
        }
    }

    fn matches(&self, name: &str) -> bool {
        self.regex.is_match(name)
    }
}

impl Selection {
    /// No patterns mean a whole model.
    pub(super) fn new(patterns: &[&str]) -> Self {
        if patterns.is_empty() {
            Self::WholeModel
        } else {
            Self::Patterns(patterns.iter().map(|p| Pattern::new(p)).collect())
        }
    }

    /// The wanted ones of the files that the hub has.
    pub(super) fn choose<'a>(&self, files: &'a [RemoteFile]) -> Vec<&'a RemoteFile> {
        match self {
            Self::Patterns(patterns) => files
                .iter()
                .filter(|file| patterns.iter().any(|pattern| pattern.matches(&file.name)))
                .collect(),
            Self::WholeModel => whole_model(files),
        }
    }

    /// Whether a folder has what is wanted, as far as can be told without asking the hub: every
    /// file that was named, something for the patterns, and the shards of every index.
    pub(super) fn is_complete(&self, folder: &Path) -> bool {
        let names = file_names(folder);
        let enough = match self {
            Self::WholeModel => find_in_folder(folder).is_ok(),
            Self::Patterns(patterns) => {
                let (named, wild): (Vec<_>, Vec<_>) = patterns
                    .iter()
                    .partition(|pattern| pattern.literal.is_some());
                let has_named = named
                    .iter()
                    .filter_map(|pattern| pattern.literal.as_ref())
                    .all(|name| folder.join(name).is_file());
                let matched = |pattern: &&Pattern| names.iter().any(|name| pattern.matches(name));
                has_named && (wild.is_empty() || wild.iter().any(matched))
            }
        };
        enough && names.iter().all(|name| has_shards(folder, name))
    }
}

/// Whether a file name is one of weights.
pub(super) fn is_weights(path: &Path) -> bool {
    path.extension()
        .and_then(|extension| extension.to_str())
        .is_some_and(|extension| matches!(extension, "safetensors" | "bin" | "pt" | "pth"))
}

/// Names of the files directly in a folder; links that lead nowhere do not count.
fn file_names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.path().is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// Whether the shards of `name` are there, if it is an index.
fn has_shards(folder: &Path, name: &str) -> bool {
    let path = folder.join(name);
    !is_index(&path)
        || shards_of(&path)
            .is_ok_and(|shards| shards.iter().all(|shard| folder.join(shard).is_file()))
}

/// Side files and the first set of weights that the model has; files in folders are left out.
fn whole_model(files: &[RemoteFile]) -> Vec<&RemoteFile> {
    let files: Vec<&RemoteFile> = files.iter().filter(|f| !f.name.contains('/')).collect();
    let matching = |patterns: &[&str]| -> Vec<&RemoteFile> {
        let patterns: Vec<Pattern> = patterns.iter().map(|p| Pattern::new(p)).collect();
        let wanted = |file: &&&RemoteFile| patterns.iter().any(|p| p.matches(&file.name));
        files.iter().filter(wanted).copied().collect()
    };
    let weights = WEIGHT_SETS
        .iter()
        // The first pattern of a set is the file without which the others are worth nothing.
        .find(|set| !matching(&set[..1]).is_empty())
        .map(|set| matching(set))
        .unwrap_or_default();
    if weights.is_empty() {
        return Vec::new();
    }
    matching(&SIDE_FILES)
        .into_iter()
        .filter(|file| !is_index(Path::new(&file.name)))
        .chain(weights)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(patterns: &[&str], names: &[&str]) -> Vec<String> {
        let files: Vec<RemoteFile> = names.iter().map(|name| RemoteFile::named(name)).collect();
        let chosen = Selection::new(patterns).choose(&files);
        chosen.into_iter().map(|file| file.name.clone()).collect()
    }

    #[test]
    fn a_whole_model_has_one_set_of_weights() {
        let names = [
            "config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "pytorch_model-00001-of-00002.bin",
            "pytorch_model.bin.index.json",
            "tf_model.h5",
            "tokenizer.model",
            "onnx/model.onnx",
        ];
        assert_eq!(
            chosen(&[], &names),
            [
                "config.json",
                "tokenizer.model",
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
            ]
        );
        assert_eq!(
            chosen(&[], &["config.json", "moco.pth", "x.bin"]),
            ["config.json", "moco.pth", "x.bin"]
        );
        assert!(chosen(&[], &["config.json"]).is_empty());
    }

    #[test]
    fn patterns_are_literal_but_for_wildcards() {
        let names = ["a.json", "axjson", "sub/b.json"];
        assert_eq!(chosen(&["*.json"], &names), ["a.json", "sub/b.json"]);
        assert_eq!(chosen(&["?.json"], &names), ["a.json"]);
        assert_eq!(chosen(&["a.json"], &names), ["a.json"]);
    }

    #[test]
    fn a_folder_is_complete_with_the_shards_of_its_index() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        let whole = Selection::new(&[]);
        let some = Selection::new(&["config.json", "*.safetensors", "*.bin"]);
        assert!(!whole.is_complete(folder.path()) && !some.is_complete(folder.path()));
        write("model-1.safetensors", "");
        assert!(!some.is_complete(folder.path()), "config.json was named");
        write("config.json", "{}");
        assert!(whole.is_complete(folder.path()) && some.is_complete(folder.path()));
        write(
            "model.safetensors.index.json",
            r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#,
        );
        assert!(!whole.is_complete(folder.path()) && !some.is_complete(folder.path()));
        write("model-2.safetensors", "");
        assert!(whole.is_complete(folder.path()) && some.is_complete(folder.path()));
    }
}
