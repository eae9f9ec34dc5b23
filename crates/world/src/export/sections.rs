//! A JSON object with one long list that is written as it comes and one that is kept for the end,
//! which is how COCO and Omni3D files are laid out.

use std::io::Write;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Category, Written, categories};
use crate::error::WorldError;

/// A file of annotations that is being written.
#[derive(Debug)]
pub(super) struct Sections<W, I> {
    out: W,
    images: Vec<I>,
    written: Written,
    /// For messages.
    what: &'static str,
}

impl<W: Write, I: Serialize> Sections<W, I> {
    /// Writes everything before the annotations.
    pub fn begin(mut out: W, what: &'static str, info: Value) -> Result<Self, WorldError> {
        let categories: Vec<Category> = categories();
        let head: Map<String, Value> = [
            ("info".to_owned(), info),
            ("licenses".to_owned(), Value::Array(Vec::new())),
            ("categories".to_owned(), to_value(what, &categories)?),
        ]
        .into_iter()
        .collect();
        let head = to_value(what, &head)?.to_string();
        let open = head.strip_suffix('}').unwrap_or(&head);
        write(&mut out, what, format_args!("{open},\n\"annotations\":["))?;
        Ok(Self {
            out,
            images: Vec::new(),
            written: Written::default(),
            what,
        })
    }

    /// The number of the next annotation, from 1.
    pub fn next_id(&self) -> u64 {
        self.written.annotations as u64 + 1
    }

    /// Writes one annotation.
    pub fn annotation(&mut self, annotation: &impl Serialize) -> Result<(), WorldError> {
        let text = serde_json::to_string(annotation).map_err(|source| WorldError::Json {
            what: self.what,
            source,
        })?;
        let comma = if self.written.annotations == 0 {
            ""
        } else {
            ","
        };
        write(&mut self.out, self.what, format_args!("{comma}\n{text}"))?;
        self.written.annotations += 1;
        Ok(())
    }

    /// Keeps one image for the end.
    pub fn image(&mut self, image: I) {
        self.images.push(image);
        self.written.images += 1;
    }

    /// Writes the images and gives the writer back.
    pub fn finish(mut self) -> Result<(W, Written), WorldError> {
        let images = to_value(self.what, &self.images)?;
        let end = format_args!("\n],\n\"images\":{images}}}\n");
        write(&mut self.out, self.what, end)?;
        self.out.flush().map_err(|source| WorldError::Stream {
            what: self.what,
            source,
        })?;
        Ok((self.out, self.written))
    }
}

fn to_value(what: &'static str, value: &impl Serialize) -> Result<Value, WorldError> {
    serde_json::to_value(value).map_err(|source| WorldError::Json { what, source })
}

fn write(
    out: &mut impl Write,
    what: &'static str,
    text: std::fmt::Arguments<'_>,
) -> Result<(), WorldError> {
    out.write_fmt(text)
        .map_err(|source| WorldError::Stream { what, source })
}
