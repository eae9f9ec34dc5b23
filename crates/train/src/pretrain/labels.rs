//! Label maps in files: what is in each cell of a grid over a picture, and what the numbers mean.

use std::path::{Path, PathBuf};

use opabinia_image::{ImageLimits, ImageSource, load};
use rayon::prelude::*;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::TrainError;

/// The file in a folder of label maps that says what they mean.
const DESCRIPTION: &str = "labels.json";
/// Cells of a map are at most so many, both ways.
const MOST_CELLS: usize = 512;
/// Classes of a plane are bytes, and one byte means that nothing is said.
const MOST_CLASSES: usize = 255;

/// What label maps mean: the content of `labels.json`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelDescription {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// Value of a cell that a plane says nothing about.
    pub(crate) ignore: u8,
    pub(crate) planes: Vec<PlaneDescription>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlaneDescription {
    pub(crate) name: String,
    pub(crate) classes: Vec<String>,
    /// The class of cells that show nothing, if there is one.
    pub(crate) background: Option<u8>,
}

impl LabelDescription {
    /// Reads the description in a folder of label maps.
    ///
    /// # Errors
    /// If there is none, or it cannot be used.
    pub fn read(folder: &Path) -> Result<Self, TrainError> {
        let path = folder.join(DESCRIPTION);
        let text = std::fs::read_to_string(&path).map_err(|error| {
            TrainError::Refused(format!(
                "could not read {}, which says what label maps mean: {error}",
                path.display()
            ))
        })?;
        let refuse = |what: String| {
            TrainError::Refused(format!("{} cannot be used: {what}", path.display()))
        };
        let description: Self =
            serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?;
        description.check().map_err(refuse)?;
        Ok(description)
    }

    fn check(&self) -> Result<(), String> {
        let sides = [("rows", self.rows), ("cols", self.cols)];
        for (name, side) in sides {
            if !(1..=MOST_CELLS).contains(&side) {
                return Err(format!(
                    "`{name}` is {side}; it must be from 1 to {MOST_CELLS}"
                ));
            }
        }
        if self.planes.is_empty() {
            return Err("`planes` is empty".into());
        }
        for plane in &self.planes {
            let classes = plane.classes.len();
            if !(2..=MOST_CLASSES).contains(&classes) {
                return Err(format!(
                    "plane `{}` has {classes} classes; it must have 2 to {MOST_CLASSES}",
                    plane.name
                ));
            }
            if plane
                .background
                .is_some_and(|class| usize::from(class) >= classes)
            {
                return Err(format!(
                    "`background` of plane `{}` is none of its classes",
                    plane.name
                ));
            }
            if usize::from(self.ignore) < classes {
                return Err(format!(
                    "`ignore` is {}, a class of plane `{}`",
                    self.ignore, plane.name
                ));
            }
        }
        Ok(())
    }

    pub(crate) fn cells(&self) -> usize {
        self.rows * self.cols
    }
}

/// Label maps in files: grey pictures, the planes below each other.
#[derive(Clone, Debug)]
pub struct LabelFiles {
    pub(crate) description: LabelDescription,
    pub(crate) paths: Vec<PathBuf>,
}

impl LabelFiles {
    /// The maps in a folder that belong to pictures with these names, in this order: the same names,
    /// ending in `.png`.
    ///
    /// # Errors
    /// If the folder does not say what its maps mean.
    pub fn open(folder: &Path, names: &[String]) -> Result<Self, TrainError> {
        let path = |name: &String| folder.join(name).with_extension("png");
        Ok(Self {
            description: LabelDescription::read(folder)?,
            paths: names.iter().map(path).collect(),
        })
    }

    /// What determines a training beside samples: a hash of what the maps mean and of every map's bytes.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub fn hash(&self) -> Result<String, TrainError> {
        let digest = |path: &PathBuf| match std::fs::read(path) {
            Ok(bytes) => Ok(Sha256::digest(&bytes)),
            Err(source) => Err(TrainError::Io {
                doing: "read the label map",
                path: path.clone(),
                source,
            }),
        };
        let digests: Vec<_> = self
            .paths
            .par_iter()
            .map(digest)
            .collect::<Result<_, _>>()?;
        let mut hash = Sha256::new();
        // The meaning and not the file, whose spaces say nothing.
        hash.update(format!("{:?}\n", self.description));
        for digest in digests {
            hash.update(digest);
        }
        Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
    }

    /// The values of a map: planes, rows, columns.
    pub(crate) fn read(&self, index: usize) -> Result<Vec<u8>, TrainError> {
        let refuse = |what: String| TrainError::Refused(what);
        let path = self
            .paths
            .get(index)
            .ok_or_else(|| refuse(format!("there is no label map {index}")))?;
        let map = load(&ImageSource::File(path.clone()), &ImageLimits::default())?;
        let wanted = (
            self.description.cols,
            self.description.rows * self.description.planes.len(),
        );
        let found = (map.width() as usize, map.height() as usize);
        if found != wanted {
            return Err(refuse(format!(
                "label map {} has {} × {} cells; {DESCRIPTION} wants {} × {}",
                path.display(),
                found.0,
                found.1,
                wanted.0,
                wanted.1
            )));
        }
        let values: Vec<u8> = map.data().iter().step_by(3).copied().collect();
        let cells = self.description.cells();
        for (plane, values) in self.description.planes.iter().zip(values.chunks(cells)) {
            let unknown = values.iter().find(|value| {
                **value != self.description.ignore && usize::from(**value) >= plane.classes.len()
            });
            if let Some(value) = unknown {
                return Err(refuse(format!(
                    "label map {} has the value {value} in plane `{}`, which has {} classes",
                    path.display(),
                    plane.name,
                    plane.classes.len()
                )));
            }
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(text: &str) -> Result<LabelDescription, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(DESCRIPTION), text).unwrap();
        LabelDescription::read(folder.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn descriptions_that_cannot_be_used_are_refused() {
        let good = r#"{"rows": 2, "cols": 3, "ignore": 255,
            "planes": [{"name": "kind", "classes": ["none", "ball"], "background": 0}]}"#;
        let description = described(good).unwrap();
        assert_eq!((description.cells(), description.planes.len()), (6, 1));
        for (from, to, why) in [
            ("\"rows\": 2", "\"rows\": 0", "`rows` is 0"),
            (
                "\"ignore\": 255",
                "\"ignore\": 1",
                "a class of plane `kind`",
            ),
            ("[\"none\", \"ball\"]", "[\"ball\"]", "has 1 classes"),
            (
                "\"background\": 0",
                "\"background\": 2",
                "`background` of plane `kind`",
            ),
            ("\"cols\"", "\"columns\"", "columns"),
            ("[{", "{", "cannot be used"),
        ] {
            let error = described(&good.replace(from, to)).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_map_of_another_size_or_class_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"{"rows": 1, "cols": 2, "ignore": 9,
            "planes": [{"name": "kind", "classes": ["none", "ball"]},
                       {"name": "colour", "classes": ["red", "blue", "gray"]}]}"#;
        std::fs::write(folder.path().join(DESCRIPTION), text).unwrap();
        let save = |name: &str, width: u32, values: &[u8]| {
            let grey = values.iter().flat_map(|value| [*value; 3]).collect();
            let height = values.len() as u32 / width;
            let map = opabinia_image::RgbImage::from_raw(width, height, grey).unwrap();
            map.save_png(folder.path().join(name)).unwrap();
        };
        save("good.png", 2, &[1, 0, 2, 9]);
        save("wide.png", 4, &[1, 0, 2, 9]);
        save("class.png", 2, &[2, 0, 2, 9]);
        let names = ["good.jpg", "wide.png", "class.png"].map(str::to_owned);
        let labels = LabelFiles::open(folder.path(), &names).unwrap();
        assert_eq!(labels.read(0).unwrap(), [1, 0, 2, 9]);
        let error = labels.read(1).unwrap_err().to_string();
        assert!(error.contains("4 × 1 cells"), "{error}");
        let error = labels.read(2).unwrap_err().to_string();
        assert!(error.contains("value 2 in plane `kind`"), "{error}");
        assert!(labels.read(3).is_err());
    }
}
