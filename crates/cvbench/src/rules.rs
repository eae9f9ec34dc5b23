//! What may be asked: the choices that the paper leaves open, as values.
//!
//! A file of rules is TOML; what it does not name has its default, what it misspells is refused. The
//! resolved rules are written beside the questions.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::CvBenchError;

/// All rules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// Same files, rules and seed, same questions.
    pub seed: u64,
    /// Questions of one task about one picture at most.
    pub per_picture: usize,
    /// Of the questions of one task and data set, the share that one answer may have at most.
    pub max_answer_share: f64,
    /// Questions per task, spread evenly over the data sets.
    pub targets: Targets,
    /// What an object must be like.
    pub objects: ObjectRules,
    /// Object count.
    pub count: CountRules,
    /// Spatial relationship.
    pub relation: RelationRules,
    /// Depth order.
    pub depth: OffsetRules,
    /// Relative distance.
    pub distance: DistanceRules,
    /// Which boxes of Omni3D count.
    pub omni3d: OmniRules,
    /// How boxes are drawn.
    pub line: LineRules,
}

/// Questions wanted; the published CV-Bench has as many as the defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "named by their tasks")]
pub struct Targets {
    pub count: usize,
    pub relation: usize,
    pub depth: usize,
    pub distance: usize,
}

/// What an object must be like to be named in a question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ObjectRules {
    /// Its box as a share of the picture, at least.
    pub min_area: f64,
    /// And at most.
    pub max_area: f64,
    /// Both sides of its box in pixels, at least.
    pub min_side: f64,
    /// Two boxes that overlap more than this, as a share of their union, are one object twice.
    pub max_overlap: f64,
    /// Classes that are no countable things.
    pub exclude: Vec<String>,
}

/// Object count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CountRules {
    /// Counted objects may be smaller than others: their box as a share of the picture, at least.
    pub min_area: f64,
    /// Both sides of their box in pixels, at least.
    pub min_side: f64,
    /// Objects at most.
    pub max: usize,
    /// How several of a class are called.
    pub plural: Plural,
    /// How often 0 takes the place of an option far from the truth.
    pub zero_among_options: f64,
}

/// How several of a class are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Plural {
    /// `buses`, `people`.
    English,
    /// An `s` at the end, as in the published questions.
    Naive,
}

/// Spatial relationship.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RelationRules {
    /// Between the middles, along the axis that is asked about, as a share of the picture's side.
    pub margin: f64,
}

/// How much nearer is nearer: the larger of both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OffsetRules {
    /// In metres.
    pub metres: f64,
    /// As a share of the smaller distance.
    pub share: f64,
}

/// Relative distance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DistanceRules {
    /// As in [`OffsetRules`].
    pub metres: f64,
    /// As in [`OffsetRules`].
    pub share: f64,
    /// What distances are measured to.
    pub anchor: Anchor,
}

/// What distances to an anchor are measured to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Anchor {
    /// The nearest of its corners.
    Vertices,
    /// Its middle.
    Centre,
}

/// Which boxes of Omni3D count; the defaults are its publishers'.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OmniRules {
    /// Metres at most.
    pub max_depth: f64,
    /// Height of the box as a share of the picture's, more than.
    pub min_height: f64,
    /// And less than.
    pub max_height: f64,
    /// Share outside the picture, less than.
    pub max_truncation: f64,
    /// Share visible, more than.
    pub min_visibility: f64,
    /// Classes that are none.
    pub ignore_classes: Vec<String>,
}

/// How boxes are drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LineRules {
    /// Width as a share of the picture's smaller side.
    pub share: f64,
    /// Width in pixels, at least.
    pub min: u32,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            seed: 0,
            per_picture: 2,
            max_answer_share: 0.35,
            targets: Targets::default(),
            objects: ObjectRules::default(),
            count: CountRules::default(),
            relation: RelationRules::default(),
            depth: OffsetRules::default(),
            distance: DistanceRules::default(),
            omni3d: OmniRules::default(),
            line: LineRules::default(),
        }
    }
}

impl Default for Targets {
    fn default() -> Self {
        Self {
            count: 788,
            relation: 650,
            depth: 600,
            distance: 600,
        }
    }
}

/// What fills pictures without being things; ours, as the paper lists none.
const STUFF: [&str; 24] = [
    "wall",
    "floor",
    "ceiling",
    "sky",
    "ground",
    "grass",
    "road",
    "route",
    "sidewalk",
    "pavement",
    "earth",
    "field",
    "water",
    "sea",
    "river",
    "sand",
    "snow",
    "mountain",
    "hill",
    "land",
    "building",
    "path",
    "dirt track",
    "flooring",
];

impl Default for ObjectRules {
    fn default() -> Self {
        Self {
            min_area: 0.01,
            max_area: 0.6,
            min_side: 16.0,
            max_overlap: 0.9,
            exclude: STUFF.map(str::to_owned).to_vec(),
        }
    }
}

impl Default for CountRules {
    fn default() -> Self {
        Self {
            min_area: 0.002,
            min_side: 8.0,
            max: 12,
            plural: Plural::English,
            zero_among_options: 0.5,
        }
    }
}

impl Default for RelationRules {
    fn default() -> Self {
        Self { margin: 0.2 }
    }
}

impl Default for OffsetRules {
    fn default() -> Self {
        Self {
            metres: 0.5,
            share: 0.1,
        }
    }
}

impl Default for DistanceRules {
    fn default() -> Self {
        Self {
            metres: 0.5,
            share: 0.1,
            anchor: Anchor::Vertices,
        }
    }
}

impl Default for OmniRules {
    fn default() -> Self {
        Self {
            max_depth: 1e8,
            min_height: 0.0,
            max_height: 1.5,
            max_truncation: 0.99,
            min_visibility: 0.01,
            ignore_classes: ["dontcare", "ignore", "void"].map(str::to_owned).to_vec(),
        }
    }
}

impl Default for LineRules {
    fn default() -> Self {
        Self {
            share: 0.005,
            min: 2,
        }
    }
}

impl Rules {
    /// Reads a file of rules.
    ///
    /// # Errors
    /// If it cannot be read, names a rule that does not exist, or has a value that cannot be worked
    /// with.
    pub fn read(path: &Path) -> Result<Self, CvBenchError> {
        let text = fs::read_to_string(path).map_err(CvBenchError::read("the rules", path))?;
        let rules = toml::from_str::<Self>(&text).map_err(|error| CvBenchError::Rules {
            path: path.to_owned(),
            problem: error.to_string().trim_end().to_owned(),
        })?;
        rules.check()?;
        Ok(rules)
    }

    /// Whether all values can be worked with.
    ///
    /// # Errors
    /// The first that cannot.
    pub fn check(&self) -> Result<(), CvBenchError> {
        let share = "a share is between 0 and 1";
        let length = "it is a finite number of 0 or more";
        let unit = |value: f64| (0.0..=1.0).contains(&value);
        let positive = |value: f64| value.is_finite() && value >= 0.0;
        let (objects, count) = (&self.objects, &self.count);
        let checks = [
            (
                "max_answer_share",
                self.max_answer_share,
                unit(self.max_answer_share),
                share,
            ),
            (
                "objects.min_area",
                objects.min_area,
                unit(objects.min_area),
                share,
            ),
            (
                "objects.max_area",
                objects.max_area,
                unit(objects.max_area),
                share,
            ),
            (
                "objects.min_side",
                objects.min_side,
                positive(objects.min_side),
                length,
            ),
            (
                "objects.max_overlap",
                objects.max_overlap,
                unit(objects.max_overlap),
                share,
            ),
            (
                "count.min_area",
                count.min_area,
                unit(count.min_area),
                share,
            ),
            (
                "count.min_side",
                count.min_side,
                positive(count.min_side),
                length,
            ),
            (
                "count.zero_among_options",
                count.zero_among_options,
                unit(count.zero_among_options),
                share,
            ),
            (
                "relation.margin",
                self.relation.margin,
                unit(self.relation.margin),
                share,
            ),
            (
                "depth.metres",
                self.depth.metres,
                positive(self.depth.metres),
                length,
            ),
            (
                "depth.share",
                self.depth.share,
                positive(self.depth.share),
                length,
            ),
            (
                "distance.metres",
                self.distance.metres,
                positive(self.distance.metres),
                length,
            ),
            (
                "distance.share",
                self.distance.share,
                positive(self.distance.share),
                length,
            ),
            (
                "omni3d.max_depth",
                self.omni3d.max_depth,
                self.omni3d.max_depth > 0.0,
                "it is more than 0",
            ),
            (
                "omni3d.min_height",
                self.omni3d.min_height,
                positive(self.omni3d.min_height),
                length,
            ),
            (
                "omni3d.max_height",
                self.omni3d.max_height,
                positive(self.omni3d.max_height),
                length,
            ),
            (
                "omni3d.max_truncation",
                self.omni3d.max_truncation,
                positive(self.omni3d.max_truncation),
                length,
            ),
            (
                "omni3d.min_visibility",
                self.omni3d.min_visibility,
                positive(self.omni3d.min_visibility),
                length,
            ),
            ("line.share", self.line.share, unit(self.line.share), share),
            (
                "line.min",
                f64::from(self.line.min),
                (1..=64).contains(&self.line.min),
                "lines are 1 to 64 pixels wide",
            ),
            (
                "per_picture",
                self.per_picture as f64,
                self.per_picture > 0,
                "at least one question is asked about a picture",
            ),
            (
                "count.max",
                self.count.max as f64,
                (1..=1000).contains(&self.count.max),
                "1 to 1000 objects can be counted",
            ),
        ];
        if i64::try_from(self.seed).is_err() {
            return Err(CvBenchError::Rule {
                rule: "seed",
                found: self.seed.to_string(),
                wanted: "files of rules hold no number above 9223372036854775807",
            });
        }
        match checks.into_iter().find(|(_, _, holds, _)| !holds) {
            None => Ok(()),
            Some((rule, found, _, wanted)) => Err(CvBenchError::Rule {
                rule,
                found: found.to_string(),
                wanted,
            }),
        }
    }

    /// As a file.
    ///
    /// # Errors
    /// If a value is there that [`check`](Self::check) refuses.
    pub fn to_toml(&self) -> Result<String, CvBenchError> {
        toml::to_string_pretty(self).map_err(|error| CvBenchError::Rules {
            path: "rules.toml".into(),
            problem: error.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_survive_their_own_file() {
        let rules = Rules {
            seed: 7,
            ..Rules::default()
        };
        let written = rules.to_toml().unwrap();
        assert_eq!(toml::from_str::<Rules>(&written).unwrap(), rules);
        assert_eq!(toml::from_str::<Rules>("").unwrap(), Rules::default());
        assert!(Rules::default().check().is_ok());
    }

    /// TOML's integers have a sign.
    #[test]
    fn a_seed_that_no_file_can_hold_is_refused() {
        let seeded = |seed| Rules {
            seed,
            ..Rules::default()
        };
        let largest = i64::MAX as u64;
        assert!(seeded(largest).check().is_ok() && seeded(largest).to_toml().is_ok());
        let error = seeded(largest + 1).check().unwrap_err().to_string();
        assert!(error.contains("`seed` is 9223372036854775808"), "{error}");
    }

    #[test]
    fn bad_rules_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rules.toml");
        let refuse = |text: &str| {
            fs::write(&path, text).unwrap();
            Rules::read(&path).unwrap_err().to_string()
        };
        assert!(refuse("sead = 1").contains("sead"));
        assert!(refuse("[relation]\nmargin = 2.0").contains("`relation.margin` is 2"));
        assert!(refuse("per_picture = 0").contains("per_picture"));
        assert!(refuse("[depth]\nmetres = nan").contains("depth.metres"));
        for rule in [
            "max_depth",
            "min_height",
            "max_height",
            "max_truncation",
            "min_visibility",
        ] {
            let message = refuse(&format!("[omni3d]\n{rule} = nan"));
            assert!(
                message.contains(&format!("`omni3d.{rule}` is NaN")),
                "{message}"
            );
        }
    }
}
