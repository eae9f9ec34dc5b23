//! Key maps: tables from the path of a parameter in a module to the key of a tensor in a file.
//!
//! A path is the field names and list indices from the root of a module to a parameter, joined by
//! dots (`layers.0.self_attn.q_proj.weight`). The rules of a map are applied to it in the order in
//! which they were written, each to the result of the one before; what comes out is the file's key.
//! One direction is enough: loading asks for the key of each parameter, and saving groups the
//! parameters by their key.
//!
//! ```
//! use opabinia_weights::KeyMap;
//!
//! // Phi-3 keeps q, k and v in one tensor; here with 8 rows each.
//! let map = KeyMap::new()
//!     .part(r"self_attn\.q_proj", "self_attn.qkv_proj", 0..8)
//!     .part(r"self_attn\.k_proj", "self_attn.qkv_proj", 8..16)
//!     .part(r"self_attn\.v_proj", "self_attn.qkv_proj", 16..24)
//!     .rename("^", "model.");
//! let key = map.file_key("layers.3.self_attn.k_proj.weight");
//! assert_eq!(key.key, "model.layers.3.self_attn.qkv_proj.weight");
//! assert_eq!(key.rows, Some(8..16));
//! ```

use std::ops::Range;

use regex::Regex;

/// A table from module paths to file keys; see the module documentation.
#[derive(Debug, Clone, Default)]
pub struct KeyMap {
    rules: Vec<Rule>,
    reshaped: Vec<Regex>,
}

#[derive(Debug, Clone)]
struct Rule {
    pattern: Regex,
    replacement: String,
    rows: Option<Range<usize>>,
}

/// Where a parameter lies in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileKey {
    /// The name of the tensor.
    pub key: String,
    /// The rows (indices of the first axis) of that tensor which are the parameter; all if `None`.
    pub rows: Option<Range<usize>>,
}

impl KeyMap {
    /// The identity: files name tensors as the module does.
    pub fn new() -> Self {
        Self::default()
    }

    /// File keys are the module's paths behind a prefix such as `"model."`.
    pub fn prefixed(prefix: &str) -> Self {
        Self::new().prefix(prefix)
    }

    /// Puts `prefix` in front of what the rules before gave.
    #[must_use]
    pub fn prefix(self, prefix: &str) -> Self {
        self.rename("^", &prefix.replace('$', "$$"))
    }

    /// Replaces every match of `pattern`. In the replacement `${1}` is the first group.
    ///
    /// # Panics
    /// If `pattern` is not a regular expression: maps are tables in the program, not input.
    #[must_use]
    pub fn rename(mut self, pattern: &str, replacement: &str) -> Self {
        self.rules.push(Rule {
            pattern: compiled(pattern),
            replacement: replacement.to_owned(),
            rows: None,
        });
        self
    }

    /// Like [`rename`](Self::rename), and says that the parameter is only `rows` of the tensor in
    /// the file, which is shared with other parameters: a fused weight `[q + k + v, d]`.
    ///
    /// Rows lie one after the other in memory, so a part costs no copy. If several parts match,
    /// the last one's rows count.
    ///
    /// # Panics
    /// If `pattern` is not a regular expression.
    #[must_use]
    pub fn part(mut self, pattern: &str, replacement: &str, rows: Range<usize>) -> Self {
        self.rules.push(Rule {
            pattern: compiled(pattern),
            replacement: replacement.to_owned(),
            rows: Some(rows),
        });
        self
    }

    /// Accepts another shape in the file for the module paths that match, if the number of
    /// elements is the same: `[1, n, d]` for `[n, d]`, or a convolution over patches
    /// `[d, 3, p, p]` for a linear layer `[d, 3·p·p]`. The order of the elements is not changed.
    ///
    /// # Panics
    /// If `pattern` is not a regular expression.
    #[must_use]
    pub fn reshaped(mut self, pattern: &str) -> Self {
        self.reshaped.push(compiled(pattern));
        self
    }

    /// Where the parameter at `path` lies in a checkpoint.
    pub fn file_key(&self, path: &str) -> FileKey {
        let mut key = path.to_owned();
        let mut rows = None;
        for rule in &self.rules {
            if !rule.pattern.is_match(&key) {
                continue;
            }
            key = rule
                .pattern
                .replace_all(&key, rule.replacement.as_str())
                .into_owned();
            if rule.rows.is_some() {
                rows.clone_from(&rule.rows);
            }
        }
        FileKey { key, rows }
    }

    /// Whether the parameter at `path` may have another shape in the file.
    pub fn may_reshape(&self, path: &str) -> bool {
        self.reshaped.iter().any(|pattern| pattern.is_match(path))
    }
}

/// Compiles a pattern that stands in the program text.
pub(crate) fn compiled(pattern: &str) -> Regex {
    match Regex::new(pattern) {
        Ok(regex) => regex,
        Err(error) => panic!("`{pattern}` is not a regular expression: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_map_changes_nothing() {
        let key = KeyMap::new().file_key("layers.0.norm.weight");
        assert_eq!(
            key,
            FileKey {
                key: "layers.0.norm.weight".into(),
                rows: None
            }
        );
    }

    #[test]
    fn rules_apply_in_order_to_each_others_results() {
        let map = KeyMap::new()
            .rename(r"^blocks\.(\d+)\.", "encoder.layers.${1}.")
            .rename(r"^encoder\.", "vision_model.encoder.");
        assert_eq!(
            map.file_key("blocks.11.norm.bias").key,
            "vision_model.encoder.layers.11.norm.bias"
        );
    }

    #[test]
    fn a_prefix_is_taken_literally() {
        assert_eq!(KeyMap::prefixed("a$b.").file_key("w").key, "a$b.w");
    }

    #[test]
    fn only_listed_paths_may_be_reshaped() {
        let map = KeyMap::new().reshaped(r"^pos_embed$");
        assert!(map.may_reshape("pos_embed"));
        assert!(!map.may_reshape("x.pos_embed"));
    }

    #[test]
    #[should_panic(expected = "is not a regular expression")]
    fn a_broken_pattern_is_the_programmers_mistake() {
        let _ = KeyMap::new().rename("(", "");
    }
}
