//! Pictures to pretrain encoders on.

use std::path::PathBuf;

use opabinia_image::{ImageLimits, ImageSource, PixelBatch, Preprocessor, RgbImage, load, prepare};

use crate::TrainError;

/// Where pictures come from: a list of files, or whatever makes them. Read from several threads.
pub trait Pictures: Send + Sync {
    /// How many there are.
    fn count(&self) -> usize;

    /// A picture by its index.
    ///
    /// # Errors
    /// If there is no such picture or it cannot be read. Pretraining uses pictures that this
    /// program made or that somebody chose, so a broken one stops the run.
    fn picture(&self, index: usize) -> Result<RgbImage, TrainError>;
}

/// Pictures in files.
#[derive(Clone, Debug)]
pub struct PictureFiles {
    paths: Vec<PathBuf>,
    limits: ImageLimits,
}

impl PictureFiles {
    /// The pictures at these paths, in this order.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>, limits: ImageLimits) -> Self {
        Self { paths, limits }
    }
}

impl Pictures for PictureFiles {
    fn count(&self) -> usize {
        self.paths.len()
    }

    fn picture(&self, index: usize) -> Result<RgbImage, TrainError> {
        let path = self
            .paths
            .get(index)
            .ok_or_else(|| no_picture(index, self.paths.len()))?;
        let source = ImageSource::File(path.clone());
        Ok(load(&source, &self.limits)?)
    }
}

impl Pictures for Vec<RgbImage> {
    fn count(&self) -> usize {
        self.len()
    }

    fn picture(&self, index: usize) -> Result<RgbImage, TrainError> {
        let picture = self.get(index).cloned();
        picture.ok_or_else(|| no_picture(index, self.len()))
    }
}

/// Somebody asked for a picture beyond the last.
fn no_picture(index: usize, count: usize) -> TrainError {
    TrainError::Refused(format!("there is no picture {index}: {count} were given"))
}

/// Reads pictures and prepares them, `[b, 3, px, px]` in the order of `samples`.
pub(crate) fn prepared(
    pictures: &dyn Pictures,
    samples: &[u32],
    preprocessor: &Preprocessor,
) -> Result<PixelBatch, TrainError> {
    let refused = |error| TrainError::Refused(format!("could not prepare a picture: {error}"));
    let batches = samples
        .iter()
        .map(|&sample| {
            let picture = pictures.picture(sample as usize)?;
            prepare(&picture, preprocessor).map_err(refused)
        })
        .collect::<Result<Vec<_>, _>>()?;
    PixelBatch::stack(batches).map_err(refused)
}
