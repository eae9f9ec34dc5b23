//! Pictures with labels, and folders of classes; annotated pictures are in `coco`.
//!
//! Whatever the source, a picture ends in one of two splits, *train* or *test*. Where the source has
//! two, they are taken; else a share of the pictures becomes the test, drawn by the seed, of each class
//! alike. A picture that cannot be used is listed as a fault, so pictures = train + test + faults.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use opabinia_data::stream::{shuffle, stream};
use serde::Serialize;

use super::error::ProbeError;

/// Endings of files that are taken for pictures, in any case of letters.
const ENDINGS: [&str; 8] = ["png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff"];
/// What the folder of test pictures is called.
const TEST_FOLDERS: [&str; 3] = ["val", "test", "validation"];

/// What a picture is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// One class of several.
    Classes,
    /// Any number of labels.
    Labels,
}

/// What a picture may be labelled with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Label {
    /// What kind of label it is, such as `colour`; scores are also given for each group.
    pub group: String,
    /// Its name.
    pub name: String,
}

/// Which part of the pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Classifiers are fitted to it.
    Train,
    /// They are measured on it.
    Test,
}

/// A picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbePicture {
    /// Its file.
    pub path: PathBuf,
    /// Its labels, as places in [`ProbeData::labels`], ascending; of classes exactly one.
    pub labels: Vec<usize>,
    /// Where it belongs.
    pub split: Split,
}

/// A picture or entry that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProbeFault {
    /// Which one.
    pub what: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Pictures with labels.
#[derive(Clone, Debug)]
pub struct ProbeData {
    /// What reports call it.
    pub name: String,
    /// What is asked.
    pub task: Task,
    /// All labels, by group and name.
    pub labels: Vec<Label>,
    /// All pictures, train before test, by path.
    pub pictures: Vec<ProbePicture>,
    /// What cannot be used.
    pub faults: Vec<ProbeFault>,
    /// Files in folders of classes that are no pictures by their names.
    pub other_files: usize,
}

/// How pictures are divided where the source does not say.
#[derive(Clone, Copy, Debug)]
pub struct SplitRule {
    /// Share of the pictures that becomes the test.
    pub test_share: f64,
    /// Seed of the draw.
    pub seed: u64,
}

/// What pictures have, for those of some rows.
#[derive(Clone, Debug)]
pub enum Targets {
    /// One class each.
    Classes {
        /// Of each row.
        of: Vec<usize>,
        /// How many there are.
        count: usize,
    },
    /// Any number of labels.
    Labels {
        /// Of each row, ascending.
        of: Vec<Vec<usize>>,
        /// How many there are.
        count: usize,
    },
}

impl Targets {
    /// Classes or labels that there are.
    #[must_use]
    pub fn outputs(&self) -> usize {
        match self {
            Self::Classes { count, .. } | Self::Labels { count, .. } => *count,
        }
    }

    /// Rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        match self {
            Self::Classes { of, .. } => of.len(),
            Self::Labels { of, .. } => of.len(),
        }
    }

    /// The class, or the labels, of a row.
    #[must_use]
    pub fn of(&self, row: usize) -> &[usize] {
        match self {
            Self::Classes { of, .. } => of.get(row..row + 1).unwrap_or(&[]),
            Self::Labels { of, .. } => of.get(row).map_or(&[], Vec::as_slice),
        }
    }

    /// Some rows, in this order.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        match self {
            Self::Classes { of, count } => Self::Classes {
                of: rows
                    .iter()
                    .filter_map(|row| of.get(*row).copied())
                    .collect(),
                count: *count,
            },
            Self::Labels { of, count } => Self::Labels {
                of: rows
                    .iter()
                    .filter_map(|row| of.get(*row).cloned())
                    .collect(),
                count: *count,
            },
        }
    }
}

impl ProbeData {
    /// Reads a folder of classes: `train/CLASS/…` and `val/CLASS/…` (or `test`), as ImageNet has it, or
    /// only `CLASS/…`, which are then divided by the rule.
    ///
    /// # Errors
    /// If the folder cannot be read, has fewer than two classes, or a test class that is not trained.
    pub fn classes(folder: &Path, rule: SplitRule) -> Result<Self, ProbeError> {
        let train = folder.join("train");
        let mut data = Self::empty(folder, Task::Classes);
        let mut found: Vec<(String, PathBuf, Split)> = Vec::new();
        if train.is_dir() {
            let test = TEST_FOLDERS.iter().map(|name| folder.join(name));
            let test = test.into_iter().find(|path| path.is_dir()).ok_or_else(|| {
                refuse(
                    folder,
                    "there is `train`, but none of `val`, `test`, `validation`",
                )
            })?;
            found.extend(data.class_folders(&train, Split::Train)?);
            found.extend(data.class_folders(&test, Split::Test)?);
        } else {
            found = data.class_folders(folder, Split::Train)?;
            let strata: Vec<&str> = found.iter().map(|(class, ..)| class.as_str()).collect();
            for place in drawn(&strata, rule.test_share, rule.seed, "probe.split") {
                if let Some(entry) = found.get_mut(place) {
                    entry.2 = Split::Test;
                }
            }
        }
        let names: BTreeSet<&str> = found
            .iter()
            .filter(|(.., split)| *split == Split::Train)
            .map(|(class, ..)| class.as_str())
            .collect();
        if names.len() < 2 {
            let problem = format!(
                "a class is a folder of pictures, and there must be two or more; found {} with \
                 pictures to train on",
                names.len()
            );
            return Err(refuse(folder, problem));
        }
        let label = |name: &&str| Label {
            group: "class".into(),
            name: (*name).to_owned(),
        };
        data.labels = names.iter().map(label).collect();
        let places: HashMap<&str, usize> = names.iter().copied().zip(0..).collect();
        for (class, path, split) in &found {
            let Some(place) = places.get(class.as_str()) else {
                let problem = format!("the class `{class}` of the test has no pictures in `train`");
                return Err(refuse(folder, problem));
            };
            data.pictures.push(ProbePicture {
                path: path.clone(),
                labels: vec![*place],
                split: *split,
            });
        }
        data.finished(folder)
    }

    /// Pictures in the folders below one, which are classes.
    fn class_folders(
        &mut self,
        folder: &Path,
        split: Split,
    ) -> Result<Vec<(String, PathBuf, Split)>, ProbeError> {
        let mut found = Vec::new();
        for class in entries(folder)? {
            if !class.is_dir() {
                self.other_files += 1;
                continue;
            }
            let name = name_of(&class);
            for file in entries(&class)? {
                if is_picture(&file) {
                    found.push((name.clone(), file, split));
                } else {
                    self.other_files += 1;
                }
            }
        }
        Ok(found)
    }

    pub(super) fn fault(&mut self, what: &str, problem: &str) {
        self.faults.push(ProbeFault {
            what: what.to_owned(),
            problem: problem.to_owned(),
        });
    }

    pub(super) fn empty(place: &Path, task: Task) -> Self {
        let stem = place
            .file_stem()
            .map(|name| name.to_string_lossy().into_owned());
        Self {
            name: stem.unwrap_or_else(|| "pictures".into()),
            task,
            labels: Vec::new(),
            pictures: Vec::new(),
            faults: Vec::new(),
            other_files: 0,
        }
    }

    /// In a fixed order, and with something in both splits.
    pub(super) fn finished(mut self, place: &Path) -> Result<Self, ProbeError> {
        self.pictures.sort_by(|a, b| {
            let test = |picture: &ProbePicture| picture.split == Split::Test;
            test(a).cmp(&test(b)).then_with(|| a.path.cmp(&b.path))
        });
        for (split, name) in [(Split::Train, "train on"), (Split::Test, "test on")] {
            if self.count(split) == 0 {
                return Err(refuse(place, format!("there are no pictures to {name}")));
            }
        }
        Ok(self)
    }

    /// Pictures of a split.
    #[must_use]
    pub fn count(&self, split: Split) -> usize {
        let mine = self
            .pictures
            .iter()
            .filter(|picture| picture.split == split);
        mine.count()
    }

    /// Keeps `most` pictures of each split, drawn by the seed.
    pub fn limit(&mut self, most: usize, seed: u64) {
        let mut keep = vec![false; self.pictures.len()];
        for (split, name) in [
            (Split::Train, "probe.limit.train"),
            (Split::Test, "probe.limit.test"),
        ] {
            let mut mine: Vec<usize> = (0..self.pictures.len())
                .filter(|place| self.pictures[*place].split == split)
                .collect();
            shuffle(&mut stream(seed, name, 0), &mut mine);
            mine.iter().take(most).for_each(|place| keep[*place] = true);
        }
        let mut keep = keep.into_iter();
        self.pictures.retain(|_| keep.next().unwrap_or_default());
    }

    /// What the pictures at these places have.
    #[must_use]
    pub fn targets(&self, places: &[usize]) -> Targets {
        let count = self.labels.len();
        let labels = places
            .iter()
            .map(|place| self.pictures.get(*place).map_or(&[][..], |p| &p.labels));
        match self.task {
            Task::Classes => Targets::Classes {
                of: labels
                    .map(|l| l.first().copied().unwrap_or_default())
                    .collect(),
                count,
            },
            Task::Labels => Targets::Labels {
                of: labels.map(<[usize]>::to_vec).collect(),
                count,
            },
        }
    }
}

/// Places of a share of some things, drawn by the seed, of each stratum alike: rounded, but at least
/// one of two or more, and never all.
pub(super) fn drawn<S: Ord + Copy>(strata: &[S], share: f64, seed: u64, name: &str) -> Vec<usize> {
    let mut of: BTreeMap<S, Vec<usize>> = BTreeMap::new();
    for (place, stratum) in strata.iter().enumerate() {
        of.entry(*stratum).or_default().push(place);
    }
    let mut chosen = Vec::new();
    for (index, places) in of.values_mut().enumerate() {
        shuffle(&mut stream(seed, name, index as u64), places);
        let wanted = (places.len() as f64 * share).round() as usize;
        let most = places.len().saturating_sub(1);
        chosen.extend(places.iter().take(wanted.max(1).min(most)));
    }
    chosen.sort_unstable();
    chosen
}

pub(super) fn refuse(path: &Path, problem: impl Into<String>) -> ProbeError {
    ProbeError::Data {
        path: path.to_owned(),
        problem: problem.into(),
    }
}

/// What is in a folder, by name; hidden files are passed over.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, ProbeError> {
    let read = || -> std::io::Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(folder)?;
        entries.map(|entry| Ok(entry?.path())).collect()
    };
    let mut found = read().map_err(ProbeError::read("the folder", folder))?;
    found.retain(|path| !name_of(path).starts_with('.'));
    found.sort();
    Ok(found)
}

fn name_of(path: &Path) -> String {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_default()
}

fn is_picture(path: &Path) -> bool {
    let ending = path
        .extension()
        .map(|ending| ending.to_string_lossy().to_lowercase());
    ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str())) && path.is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: SplitRule = SplitRule {
        test_share: 0.25,
        seed: 3,
    };

    fn touch(folder: &Path, files: &[&str]) {
        for file in files {
            let path = folder.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
    }

    #[test]
    fn train_and_val_are_taken_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        touch(
            folder.path(),
            &[
                "train/cat/1.jpg",
                "train/cat/2.JPG",
                "train/dog/1.png",
                "train/dog/notes.txt",
                "val/dog/9.png",
                "val/.hidden/1.png",
            ],
        );
        let data = ProbeData::classes(folder.path(), RULE).unwrap();
        let names: Vec<&str> = data
            .labels
            .iter()
            .map(|label| label.name.as_str())
            .collect();
        assert_eq!(names, ["cat", "dog"]);
        assert_eq!((data.count(Split::Train), data.count(Split::Test)), (3, 1));
        assert_eq!(
            (data.other_files, data.pictures[3].labels.as_slice()),
            (1, &[1][..])
        );
        touch(folder.path(), &["val/fox/1.png"]);
        let error = ProbeData::classes(folder.path(), RULE)
            .unwrap_err()
            .to_string();
        assert!(error.contains("`fox`"), "{error}");
    }

    #[test]
    fn one_folder_is_divided_class_by_class() {
        let folder = tempfile::tempdir().unwrap();
        let files: Vec<String> = ["cat", "dog"]
            .iter()
            .flat_map(|class| (0..8).map(move |i| format!("{class}/{i}.png")))
            .collect();
        touch(
            folder.path(),
            &files.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        let data = ProbeData::classes(folder.path(), RULE).unwrap();
        let test = |class: usize| {
            let pictures = data.pictures.iter();
            pictures
                .filter(|p| p.split == Split::Test && p.labels == [class])
                .count()
        };
        assert_eq!((test(0), test(1), data.count(Split::Train)), (2, 2, 12));
        let again = ProbeData::classes(folder.path(), RULE).unwrap();
        assert_eq!(again.pictures, data.pictures);
        let mut few = data.clone();
        few.limit(3, 1);
        assert_eq!((few.count(Split::Train), few.count(Split::Test)), (3, 3));
    }

    #[test]
    fn a_folder_of_no_classes_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        touch(folder.path(), &["cat/1.png", "loose.png"]);
        let error = ProbeData::classes(folder.path(), RULE)
            .unwrap_err()
            .to_string();
        assert!(error.contains("two or more; found 1"), "{error}");
        touch(folder.path(), &["train/cat/1.png"]);
        let error = ProbeData::classes(folder.path(), RULE)
            .unwrap_err()
            .to_string();
        assert!(error.contains("none of `val`"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn a_draw_leaves_something_on_both_sides(n in 2usize..60, share in 0.0f64..1.0) {
            let found = drawn(&vec![(); n], share, 1, "x").len();
            proptest::prop_assert!(found >= 1 && found < n);
        }
    }
}
