//! Label maps in files: what is in each cell of a grid over a picture, and what the numbers mean.

use std::collections::BTreeSet;
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
/// Classes of a plane are bytes, one value of which means that nothing is said (`ignore`); or, if it is wide, pairs of
/// bytes, the largest of which means that.
const MOST_CLASSES: usize = 255;
const MOST_CLASSES_WIDE: usize = 65_535;
/// What a cell is read as of which nothing is said.
pub(crate) const IGNORE: u16 = u16::MAX;

/// What label maps mean: the content of `labels.json`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelDescription {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// Value of a cell that a plane says nothing about, unless the plane is wide.
    pub(crate) ignore: u8,
    pub(crate) planes: Vec<PlaneDescription>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlaneDescription {
    pub(crate) name: String,
    pub(crate) classes: Vec<String>,
    /// The class of cells that show nothing, if there is one.
    pub(crate) background: Option<u16>,
    /// Whether a value is red plus 256 times green of its pixel, and 65535 where nothing is said; else it is
    /// red.
    #[serde(default)]
    pub(crate) wide: bool,
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
            let most = match plane.wide {
                true => MOST_CLASSES_WIDE,
                false => MOST_CLASSES,
            };
            if !(2..=most).contains(&classes) {
                return Err(format!(
                    "plane `{}` has {classes} classes; it must have 2 to {most}",
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
            if !plane.wide && usize::from(self.ignore) < classes {
                return Err(format!(
                    "`ignore` is {}, a class of plane `{}`",
                    self.ignore, plane.name
                ));
            }
        }
        Ok(())
    }

    /// The number of the plane of a name.
    pub(crate) fn plane(&self, name: &str) -> Result<usize, TrainError> {
        let found = self.planes.iter().position(|plane| plane.name == name);
        found.ok_or_else(|| {
            let known: Vec<_> = (self.planes.iter())
                .map(|plane| format!("`{}`", plane.name))
                .collect();
            TrainError::Refused(format!(
                "the recipe names the plane `{name}` of label maps, which have {}",
                known.join(", ")
            ))
        })
    }

    pub(crate) fn cells(&self) -> usize {
        self.rows * self.cols
    }
}

/// Label maps in files: grey pictures (but for wide planes), the planes below each other.
#[derive(Clone, Debug)]
pub struct LabelFiles {
    /// Of the planes that are read.
    pub(crate) description: LabelDescription,
    pub(crate) paths: Vec<PathBuf>,
    /// All planes of the files, and whether each is read.
    planes: Vec<(PlaneDescription, bool)>,
}

impl LabelFiles {
    /// The maps in a folder that belong to pictures with these names, in this order: the same names,
    /// ending in `.png`.
    ///
    /// # Errors
    /// If the folder does not say what its maps mean.
    pub fn open(folder: &Path, names: &[String]) -> Result<Self, TrainError> {
        let path = |name: &String| folder.join(name).with_extension("png");
        let description = LabelDescription::read(folder)?;
        let planes = description.planes.iter();
        Ok(Self {
            planes: planes.map(|plane| (plane.clone(), true)).collect(),
            description,
            paths: names.iter().map(path).collect(),
        })
    }

    /// As [`open`](Self::open), each name with its folder.
    ///
    /// # Errors
    /// If a folder does not say what its maps mean, or they mean something else than those of another.
    pub fn of_folders(names: &[(&Path, String)]) -> Result<Self, TrainError> {
        let Some((first, _)) = names.first() else {
            return Err(TrainError::Refused("there are no label maps".into()));
        };
        let whole = Self::open(first, &[])?;
        let folders: BTreeSet<&Path> = names.iter().map(|(folder, _)| *folder).collect();
        for folder in folders {
            whole.mean_the_same_as(folder)?;
        }
        let path = |(folder, name): &(&Path, String)| folder.join(name).with_extension("png");
        Ok(Self {
            paths: names.iter().map(path).collect(),
            ..whole
        })
    }

    /// Refuses maps in another folder that have other planes or classes, whose numbers would mean something else.
    ///
    /// # Errors
    /// If they have, or the folder does not say what its maps mean.
    pub fn mean_the_same_as(&self, folder: &Path) -> Result<(), TrainError> {
        let other = LabelDescription::read(folder)?;
        let LabelDescription {
            rows, cols, ignore, ..
        } = self.description;
        let same = (rows, cols, ignore) == (other.rows, other.cols, other.ignore)
            && self.planes.iter().map(|(plane, _)| plane).eq(&other.planes);
        if same {
            return Ok(());
        }
        Err(TrainError::Refused(format!(
            "the label maps in {} have other planes or classes than those they are used with; make both \
             with the same version",
            folder.display()
        )))
    }

    /// The same without the planes that are not named; all of them if none is.
    ///
    /// # Errors
    /// If maps have no plane of a name.
    pub fn with_planes(mut self, names: &[String]) -> Result<Self, TrainError> {
        if names.is_empty() {
            return Ok(self);
        }
        for name in names {
            self.description.plane(name)?;
        }
        for (plane, read) in &mut self.planes {
            *read = names.contains(&plane.name);
        }
        let planes = &mut self.description.planes;
        planes.retain(|plane| names.contains(&plane.name));
        Ok(self)
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
        // The meaning and not the file, whose spaces say nothing; in the form that it had before planes could be
        // wide, so that runs go on.
        let description = format!("{:?}\n", self.description);
        hash.update(description.replace(", wide: false }", " }"));
        for digest in digests {
            hash.update(digest);
        }
        Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
    }

    /// The values of a map: planes, rows, columns; [`IGNORE`] where nothing is said.
    pub(crate) fn read(&self, index: usize) -> Result<Vec<u16>, TrainError> {
        let refuse = |what: String| TrainError::Refused(what);
        let path = self
            .paths
            .get(index)
            .ok_or_else(|| refuse(format!("there is no label map {index}")))?;
        let map = load(&ImageSource::File(path.clone()), &ImageLimits::default())?;
        let wanted = (
            self.description.cols,
            self.description.rows * self.planes.len(),
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
        let cells = self.description.cells();
        let mut values = Vec::with_capacity(self.description.planes.len() * cells);
        for ((plane, read), pixels) in self.planes.iter().zip(map.data().chunks(3 * cells)) {
            if !read {
                continue;
            }
            for pixel in pixels.chunks(3) {
                let value = match *pixel {
                    [low, high, ..] if plane.wide => u16::from_le_bytes([low, high]),
                    [value, ..] if value != self.description.ignore => u16::from(value),
                    _ => IGNORE,
                };
                if value != IGNORE && usize::from(value) >= plane.classes.len() {
                    return Err(refuse(format!(
                        "label map {} has the value {value} in plane `{}`, which has {} classes",
                        path.display(),
                        plane.name,
                        plane.classes.len()
                    )));
                }
                values.push(value);
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

    /// Runs that began before planes could be wide, or with fewer words for it, go on.
    #[test]
    fn what_determines_a_training_stays_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"{"rows": 1, "cols": 1, "ignore": 255,
            "planes": [{"name": "kind", "classes": ["none", "ball"], "background": 0}]}"#;
        std::fs::write(folder.path().join(DESCRIPTION), text).unwrap();
        let meaning = "LabelDescription { rows: 1, cols: 1, ignore: 255, planes: [PlaneDescription { name: \
                       \"kind\", classes: [\"none\", \"ball\"], background: Some(0) }] }\n";
        let hash = Sha256::digest(meaning);
        let hex: String = hash.iter().map(|b| format!("{b:02x}")).collect();
        let labels = LabelFiles::open(folder.path(), &[]).unwrap();
        assert_eq!(labels.hash().unwrap(), hex);
        assert!(labels.mean_the_same_as(folder.path()).is_ok());
    }

    /// Red and green of a pixel make the number of a class.
    #[test]
    fn a_plane_may_have_more_classes_than_a_byte() {
        let folder = tempfile::tempdir().unwrap();
        let words: Vec<String> = (0..300).map(|i| format!("w{i}")).collect();
        let text = serde_json::json!({"rows": 1, "cols": 3, "ignore": 255,
            "planes": [{"name": "word", "classes": words, "background": null, "wide": true}]});
        std::fs::write(folder.path().join(DESCRIPTION), text.to_string()).unwrap();
        let save = |name: &str, pixels: &[u8]| {
            let map = opabinia_image::RgbImage::from_raw(3, 1, pixels.to_vec()).unwrap();
            map.save_png(folder.path().join(name)).unwrap();
        };
        save("good.png", &[43, 1, 0, 255, 255, 0, 255, 0, 0]);
        save("class.png", &[44, 1, 0, 0, 0, 0, 0, 0, 0]);
        let names = ["good.png", "class.png"].map(str::to_owned);
        let labels = LabelFiles::open(folder.path(), &names).unwrap();
        assert_eq!(labels.read(0).unwrap(), [299, IGNORE, 255]);
        let error = labels.read(1).unwrap_err().to_string();
        assert!(error.contains("value 300 in plane `word`"), "{error}");
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
        assert_eq!(labels.read(0).unwrap(), [1, 0, 2, IGNORE]);
        let error = labels.read(1).unwrap_err().to_string();
        assert!(error.contains("4 × 1 cells"), "{error}");
        let error = labels.read(2).unwrap_err().to_string();
        assert!(error.contains("value 2 in plane `kind`"), "{error}");
        assert!(labels.read(3).is_err());

        // A plane that is not read may have any value.
        let colours = labels.clone().with_planes(&["colour".into()]).unwrap();
        assert_eq!(colours.description.planes.len(), 1);
        assert_eq!(colours.read(0).unwrap(), [2, IGNORE]);
        assert_eq!(colours.read(2).unwrap(), [2, IGNORE]);
        assert_eq!(
            labels.clone().with_planes(&[]).unwrap().read(0).unwrap(),
            [1, 0, 2, IGNORE]
        );
        let error = labels.clone().with_planes(&["word".into()]).unwrap_err();
        assert!(error.to_string().contains("plane `word`"), "{error}");

        let other = tempfile::tempdir().unwrap();
        let both = [
            (folder.path(), "good.jpg".to_owned()),
            (other.path(), "good.jpg".to_owned()),
        ];
        std::fs::copy(
            folder.path().join("good.png"),
            other.path().join("good.png"),
        )
        .unwrap();
        std::fs::write(other.path().join(DESCRIPTION), text).unwrap();
        let of_both = LabelFiles::of_folders(&both).unwrap();
        assert_eq!(of_both.read(1).unwrap(), labels.read(0).unwrap());
        assert!(of_both.paths[1].starts_with(other.path()));
        let renamed = text.replace("ball", "cube");
        std::fs::write(other.path().join(DESCRIPTION), renamed).unwrap();
        let error = LabelFiles::of_folders(&both).unwrap_err().to_string();
        assert!(error.contains("other planes or classes"), "{error}");
    }
}
