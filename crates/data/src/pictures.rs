//! The folder that the pictures of samples are in, one for all files of samples or each with its own.
//!
//! A sample names its picture by a path inside of this folder. A path that leaves it is refused: data
//! from elsewhere must not make a run read whatever file it likes.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use opabinia_image::{ImageLimits, ImageSource, RgbImage};
use sha2::{Digest, Sha256};

use crate::error::{DataError, SampleError};
use crate::names::stays_inside;
use crate::sample::Sample;

/// A folder of pictures.
#[derive(Clone, Debug)]
pub struct PictureFolder {
    root: PathBuf,
    /// Files of samples whose pictures are in a folder of their own.
    of_files: Vec<(PathBuf, PathBuf)>,
    limits: ImageLimits,
}

impl PictureFolder {
    /// The pictures below `root`.
    ///
    /// # Errors
    /// If `root` is not a folder.
    pub fn open(root: impl AsRef<Path>, limits: ImageLimits) -> Result<Self, DataError> {
        let root = root.as_ref();
        std::fs::read_dir(root).map_err(DataError::io("open the folder of pictures", root))?;
        Ok(Self {
            root: root.to_owned(),
            of_files: Vec::new(),
            limits,
        })
    }

    /// The same, with the pictures of one file of samples below another `root`. The file is named as
    /// the samples name it ([`crate::Place::file`]).
    ///
    /// # Errors
    /// If `root` is not a folder.
    pub fn with_file(
        mut self,
        file: impl Into<PathBuf>,
        root: impl AsRef<Path>,
    ) -> Result<Self, DataError> {
        let root = Self::open(root, self.limits)?.root;
        self.of_files.push((file.into(), root));
        Ok(self)
    }

    fn root_of(&self, sample: &Sample) -> &Path {
        let own = |(file, _): &&(PathBuf, PathBuf)| **file == *sample.place.file;
        let own = self.of_files.iter().find(own);
        own.map_or(&self.root, |(_, root)| root)
    }

    /// Path of a sample's picture; `None` if it has none.
    ///
    /// # Errors
    /// [`SampleError::PictureOutside`], [`SampleError::MissingPicture`].
    pub fn find(&self, sample: &Sample) -> Result<Option<PathBuf>, SampleError> {
        let Some(image) = &sample.image else {
            return Ok(None);
        };
        let place = || sample.place.clone();
        if !stays_inside(image) {
            return Err(SampleError::PictureOutside {
                place: place(),
                image: image.clone(),
            });
        }
        let path = self.root_of(sample).join(image);
        if path.is_file() {
            return Ok(Some(path));
        }
        Err(SampleError::MissingPicture {
            place: place(),
            similar: name_in_other_case(&path),
            path,
        })
    }

    /// Decodes a sample's picture; `None` if it has none.
    ///
    /// # Errors
    /// As [`find`](Self::find), and [`SampleError::BrokenPicture`].
    pub fn load(&self, sample: &Sample) -> Result<Option<RgbImage>, SampleError> {
        let Some(path) = self.find(sample)? else {
            return Ok(None);
        };
        match opabinia_image::load(&ImageSource::File(path), &self.limits) {
            Ok(picture) => Ok(Some(picture)),
            Err(error) => Err(SampleError::BrokenPicture {
                place: sample.place.clone(),
                source: Box::new(error),
            }),
        }
    }
}

/// A file beside `path` whose name differs in the case of letters only: what some file systems
/// would have found.
fn name_in_other_case(path: &Path) -> Option<String> {
    let wanted = path.file_name()?.to_str()?.to_lowercase();
    let names = std::fs::read_dir(path.parent()?).ok()?;
    names
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .find(|name| name.to_lowercase() == wanted)
}

/// Hash of a picture's file, by which the cache of features knows it.
///
/// # Errors
/// If the file cannot be read.
pub fn picture_hash(path: &Path) -> Result<[u8; 32], DataError> {
    let mut file = File::open(path).map_err(DataError::io("open", path))?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 1 << 16];
    loop {
        let read = file.read(&mut chunk).map_err(DataError::io("read", path))?;
        if read == 0 {
            return Ok(hash.finalize().into());
        }
        hash.update(&chunk[..read]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Place;

    fn sample(image: &str) -> Sample {
        let line = serde_json::json!({
            "image": image, "conversations": [{"from": "human", "value": "<image>"}]
        });
        let place = Place::new(Path::new("s.jsonl"), 1);
        Sample::parse(line.to_string().as_bytes(), place).unwrap()
    }

    fn folder() -> (tempfile::TempDir, PictureFolder) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("coco")).unwrap();
        RgbImage::filled(3, 2, [1, 2, 3])
            .unwrap()
            .save_png(folder.path().join("coco/A.png"))
            .unwrap();
        std::fs::write(folder.path().join("coco/broken.png"), b"\x89PNG").unwrap();
        let pictures = PictureFolder::open(folder.path(), ImageLimits::default()).unwrap();
        (folder, pictures)
    }

    #[test]
    fn a_file_of_samples_may_have_a_folder_of_its_own() {
        let (folder, pictures) = folder();
        let inner = folder.path().join("coco");
        let other = pictures.clone().with_file("other.jsonl", &inner).unwrap();
        let found = |name: &str| other.find(&sample(name)).map(Option::unwrap);
        assert_eq!(found("coco/A.png").unwrap(), inner.join("A.png"));
        assert!(found("A.png").is_err());
        let mut elsewhere = sample("A.png");
        elsewhere.place = Place::new(Path::new("other.jsonl"), 1);
        assert_eq!(other.find(&elsewhere).unwrap(), Some(inner.join("A.png")));
        assert!(pictures.find(&elsewhere).is_err());
        assert!(pictures.with_file("a", folder.path().join("no")).is_err());
    }

    #[test]
    fn a_picture_is_found_and_decoded() {
        let (folder, pictures) = folder();
        let picture = pictures.load(&sample("coco/A.png")).unwrap().unwrap();
        assert_eq!(picture.size(), (3, 2));
        let path = folder.path().join("coco/A.png");
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(picture_hash(&path).unwrap(), *Sha256::digest(bytes));
    }

    #[test]
    fn what_is_wrong_is_told_apart() {
        let (_folder, pictures) = folder();
        let error = |image: &str| pictures.load(&sample(image)).unwrap_err().in_full();
        assert!(
            error("coco/a.PNG").contains("there is `A.png`"),
            "{}",
            error("coco/a.PNG")
        );
        assert!(
            error("coco/b.png").ends_with("b.png`"),
            "{}",
            error("coco/b.png")
        );
        assert!(error("coco/broken.png").contains("cannot use its picture: "));
        for outside in ["../x.png", "/etc/passwd", "coco/../../x.png"] {
            assert!(
                error(outside).contains("outside of the folder"),
                "{outside}"
            );
        }
        assert!(PictureFolder::open("no such folder", ImageLimits::default()).is_err());
    }
}
