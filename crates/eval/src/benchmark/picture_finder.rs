//! The picture that a row means: its bytes, base64, the name of a file, or the row that has it.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minijinja::Value;

use super::expression::{self, PictureValue};
use super::fault::{FaultKind, Refused};
use super::picture::{PictureData, PictureStore, looks_like_picture};
use super::source::Pictures;

/// Shorter texts are names of pictures, longer ones may be pictures.
const SHORTEST_BASE64: usize = 64;

/// Finds pictures, and remembers those that later rows may refer to.
pub(super) struct PictureFinder<'s> {
    /// Where pictures are put that are no files of their own.
    pub store: &'s mut PictureStore,
    known: HashMap<String, PictureData>,
}

impl<'s> PictureFinder<'s> {
    pub(super) fn new(store: &'s mut PictureStore) -> Self {
        Self {
            store,
            known: HashMap::new(),
        }
    }

    /// The picture that an expression gives; of a list the first.
    pub(super) fn find(
        &mut self,
        id: &str,
        value: &Value,
        pictures: &Pictures,
    ) -> Result<PictureData, Refused> {
        let missing = |what: String| Refused::Fault(FaultKind::MissingPicture, what);
        if expression::is_empty(value) {
            return Err(missing("`picture` is empty".to_owned()));
        }
        if let Some(picture) = value.downcast_object_ref::<PictureValue>() {
            return match picture {
                PictureValue::Bytes(bytes) => self.keep(bytes),
                PictureValue::Kept(picture) => checked(picture.clone(), &picture.read()?),
                PictureValue::Path(path) => named_picture(path, pictures),
            };
        }
        if let Some(text) = value.as_str() {
            return self.written_picture(id, text, pictures);
        }
        match value.get_item_by_index(0) {
            Ok(first) if value.len().is_some() && !first.is_undefined() => {
                self.find(id, &first, pictures)
            }
            _ => {
                let what = format!("`picture` is a {}", value.kind());
                Err(Refused::Fault(FaultKind::WrongType, what))
            }
        }
    }

    /// A picture given as text: base64, a data URL, the id of an earlier row that has it (VLMEvalKit
    /// writes shared pictures so), or the name of a file.
    fn written_picture(
        &mut self,
        id: &str,
        text: &str,
        pictures: &Pictures,
    ) -> Result<PictureData, Refused> {
        if let Some(bytes) = from_base64(text) {
            let picture = self.keep(&bytes.into())?;
            self.known.insert(id.to_owned(), picture.clone());
            return Ok(picture);
        }
        match self.known.get(text) {
            Some(picture) => Ok(picture.clone()),
            None => named_picture(text, pictures),
        }
    }

    fn keep(&mut self, bytes: &Arc<[u8]>) -> Result<PictureData, Refused> {
        if !looks_like_picture(bytes) {
            return Err(not_a_picture(bytes));
        }
        Ok(self.store.put(bytes)?)
    }
}

/// The picture of a file's name.
fn named_picture(name: &str, pictures: &Pictures) -> Result<PictureData, Refused> {
    match pictures.find(name)? {
        Some((picture, bytes)) => checked(picture, &bytes),
        None => {
            let shown: String = name.chars().take(80).collect();
            let what = format!("there is no file `{shown}`");
            Err(Refused::Fault(FaultKind::MissingPicture, what))
        }
    }
}

fn checked(picture: PictureData, bytes: &[u8]) -> Result<PictureData, Refused> {
    match looks_like_picture(bytes) {
        true => Ok(picture),
        false => Err(not_a_picture(bytes)),
    }
}

fn not_a_picture(bytes: &[u8]) -> Refused {
    let start = bytes.get(..8).unwrap_or(bytes).escape_ascii();
    let what = format!("{} bytes that begin with `{start}`", bytes.len());
    Refused::Fault(FaultKind::NotAPicture, what)
}

/// The bytes of a base64 text or data URL; `None` if it is neither.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let (data, is_url) = match text
        .strip_prefix("data:")
        .and_then(|url| url.split_once(','))
    {
        Some((_, data)) => (data, true),
        None => (text, false),
    };
    if !is_url && data.len() < SHORTEST_BASE64 {
        return None;
    }
    STANDARD.decode(data.trim()).ok()
}
