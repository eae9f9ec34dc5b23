//! What pictures look like: their hashes, computed once for each file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use opabinia_data::{Place, Sample, SampleError};
use opabinia_image::{ImageError, ImageLimits, ImageSource};

/// Hashes of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Of its pixels.
    pub pixels: u64,
    /// Of what it looks like.
    pub dhash: u64,
}

/// Hashes of pictures that were looked at. Many samples show one picture, so each is decoded once.
#[derive(Debug, Default)]
pub struct Looks {
    seen: Mutex<HashMap<PathBuf, Look>>,
}

impl Looks {
    /// The hashes of the picture at `path`.
    ///
    /// # Errors
    /// [`SampleError::BrokenPicture`]
    pub fn of(&self, path: &Path, sample: &Sample) -> Result<Look, SampleError> {
        let seen = || self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(look) = seen().get(path) {
            return Ok(*look);
        }
        let look = look(path).map_err(|source| broken(&sample.place, source))?;
        seen().insert(path.to_owned(), look);
        Ok(look)
    }
}

fn broken(place: &Place, source: ImageError) -> SampleError {
    SampleError::BrokenPicture {
        place: place.clone(),
        source: Box::new(source),
    }
}

/// Reads and decodes a picture.
///
/// # Errors
/// If it cannot be read or decoded.
pub fn look(path: &Path) -> Result<Look, ImageError> {
    let limits = ImageLimits::default();
    let picture = opabinia_image::load(&ImageSource::File(path.to_owned()), &limits)?;
    Ok(Look {
        pixels: u64::from_str_radix(picture.content_hash().get(..16).unwrap_or_default(), 16)
            .unwrap_or_default(),
        dhash: opabinia_image::dhash(&picture),
    })
}
