//! COCO instances: <https://cocodataset.org/#format-data>.
//!
//! `iscrowd` is 0 for every object, and `segmentation` is then a list of polygons, one for each
//! visible part. A ring has a hole, which polygons cannot leave out; its `segmentation` is the
//! uncompressed run lengths that readers of COCO accept in the same place. `rle` is an addition of
//! ours: the same mask in the compressed form, for every object.

use std::io::Write;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::outline::outlines;
use super::rle::{CompressedRle, Rle};
use super::sections::Sections;
use super::{Named, Written, category_id, owner_of, scene};
use crate::error::WorldError;
use crate::truth::{Box2d, Object, Picture};

/// For messages.
const WHAT: &str = "COCO annotations";

/// An entry of `images`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Number of the picture.
    pub id: u64,
    /// Its file.
    pub file_name: String,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

/// An entry of `annotations`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Annotation {
    /// Number of the annotation, from 1 within a file.
    pub id: u64,
    /// Number of its picture.
    pub image_id: u64,
    /// Number of its class.
    pub category_id: u32,
    /// Left, top, width and height of the visible pixels.
    pub bbox: [f64; 4],
    /// Visible pixels.
    pub area: f64,
    /// 0: one object.
    pub iscrowd: u8,
    /// The visible pixels.
    pub segmentation: Segmentation,
    /// The visible pixels once more, compressed.
    pub rle: CompressedRle,
    /// What COCO does not know.
    pub attributes: Attributes,
}

/// The two forms of `segmentation`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Segmentation {
    /// `[x1, y1, x2, y2, …]` for each visible part.
    Polygons(Vec<Vec<f64>>),
    /// Run lengths.
    Runs(Rle),
}

/// What else is true of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// Name of its colour.
    pub colour: String,
    /// Name of its material.
    pub material: String,
    /// Name of its size.
    pub size: String,
}

impl From<&Object> for Attributes {
    fn from(object: &Object) -> Self {
        Self {
            colour: object.colour.name().to_owned(),
            material: object.material.name().to_owned(),
            size: object.size.name().to_owned(),
        }
    }
}

/// What a file says about one picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    image: Image,
    annotations: Vec<Annotation>,
}

impl Record {
    /// Describes a picture, or nothing if it is no scene.
    pub fn of(id: u64, file_name: &str, picture: &Picture) -> Option<Self> {
        let scene = scene(picture)?;
        let annotations = scene
            .objects
            .iter()
            .enumerate()
            .filter_map(|(index, object)| {
                let owner = owner_of(index)?;
                Some(annotation(
                    id,
                    object,
                    &picture.mask,
                    scene.width,
                    scene.height,
                    owner,
                ))
            });
        Some(Self {
            image: Image {
                id,
                file_name: file_name.to_owned(),
                width: scene.width,
                height: scene.height,
            },
            annotations: annotations.collect(),
        })
    }
}

fn annotation(
    image_id: u64,
    object: &Object,
    mask: &[u8],
    width: u32,
    height: u32,
    owner: u8,
) -> Annotation {
    let runs = Rle::of(mask, width, height, owner);
    let rle = runs.compress();
    let outlines = outlines(mask, width, owner, &object.box2d);
    let segmentation = if outlines.holes == 0 {
        let flat = |part: Vec<[u32; 2]>| part.into_iter().flatten().map(f64::from).collect();
        Segmentation::Polygons(outlines.parts.into_iter().map(flat).collect())
    } else {
        Segmentation::Runs(runs)
    };
    let Box2d {
        left,
        top,
        right,
        bottom,
    } = object.box2d;
    Annotation {
        id: 0,
        image_id,
        category_id: category_id(object.shape),
        bbox: [left, top, right - left, bottom - top],
        area: f64::from(object.visible),
        iscrowd: 0,
        segmentation,
        rle,
        attributes: object.into(),
    }
}

/// Writes a file record by record.
#[derive(Debug)]
pub struct Writer<W>(Sections<W, Image>);

impl<W: Write> Writer<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// [`WorldError::Stream`] if `out` cannot be written to.
    pub fn new(out: W) -> Result<Self, WorldError> {
        let info = json!({
            "description": "scenes of the small world of opabinia",
            "version": env!("CARGO_PKG_VERSION"),
        });
        Ok(Self(Sections::begin(out, WHAT, info)?))
    }

    /// Writes what is known about one picture; annotations are numbered here.
    ///
    /// # Errors
    /// As [`Writer::new`].
    pub fn add(&mut self, record: Record) -> Result<(), WorldError> {
        for mut annotation in record.annotations {
            annotation.id = self.0.next_id();
            self.0.annotation(&annotation)?;
        }
        self.0.image(record.image);
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Errors
    /// As [`Writer::new`].
    pub fn finish(self) -> Result<Written, WorldError> {
        Ok(self.0.finish()?.1)
    }
}

/// Writes a file about all scenes among some pictures.
///
/// # Errors
/// [`WorldError::Stream`] if `out` cannot be written to.
pub fn write<'a>(
    out: impl Write,
    pictures: impl IntoIterator<Item = Named<'a>>,
) -> Result<Written, WorldError> {
    let mut writer = Writer::new(out)?;
    for (id, file_name, picture) in pictures {
        if let Some(record) = Record::of(id, file_name, picture) {
            writer.add(record)?;
        }
    }
    writer.finish()
}
