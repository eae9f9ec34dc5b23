//! ADE20K, the full release: per picture a class mask and a list of objects.
//!
//! - `NAME_seg.png`: `R / 10 · 256 + G` is the class of a pixel (0 for the ground), `B` the
//!   instance, from 1.
//! - `NAME.json`: `annotation.object[]` with names, attributes, order by depth, occlusion and one
//!   polygon each.
//! - `objectInfo.txt`: the classes, once for the folder.
//!
//! Objects have no parts. Masks of single instances are not written: `NAME_seg.png` holds the
//! visible pixels of all.

use std::path::Path;

use opabinia_image::RgbImage;
use serde::{Deserialize, Serialize};

use super::outline::outlines;
use super::{Named, Written, categories, category_id, owner_of, scene};
use crate::error::WorldError;
use crate::truth::{Box2d, Object, Picture, Scene, Shape};

/// A file about one picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct File {
    /// Everything.
    pub annotation: Annotation,
}

/// What is known about one picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Annotation {
    /// Last part of the picture's path.
    pub filename: String,
    /// The parts before it.
    pub folder: String,
    /// Height, width, channels.
    pub imsize: [u32; 3],
    /// Where it comes from.
    pub source: Source,
    /// What it shows.
    pub scene: Vec<String>,
    /// Its objects, in the order of the mask.
    pub object: Vec<Entry>,
}

/// Where a picture comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Name of the source.
    pub folder: String,
    /// Last part of the picture's path.
    pub filename: String,
    /// Who made it.
    pub origin: String,
}

/// One object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Number, from 0.
    pub id: u32,
    /// Names that mean the same, separated by commas.
    pub name: String,
    /// The first of them.
    pub raw_name: String,
    /// Number of its class.
    pub name_ndx: u32,
    /// More general names.
    pub hypernym: Vec<String>,
    /// Colour, material, size.
    pub attributes: Vec<String>,
    /// 1 for the nearest.
    pub depth_ordering_rank: u32,
    /// `yes` or `no`.
    pub occluded: String,
    /// `1` if the picture's edge cuts it off; never.
    pub crop: String,
    /// None.
    pub parts: Parts,
    /// The largest of its visible parts.
    pub polygon: Polygon,
}

/// Parts and wholes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Parts {
    /// Numbers of its parts.
    pub hasparts: Vec<u32>,
    /// Numbers of what it is part of.
    pub ispartof: Vec<u32>,
    /// 0 for whole objects.
    pub part_level: u32,
}

/// Corners.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Polygon {
    /// Columns.
    pub x: Vec<u32>,
    /// Rows.
    pub y: Vec<u32>,
    /// Empty: nobody clicked.
    pub click_date: Vec<String>,
}

/// Writes the two files of a picture into a folder; `false` if it is no scene.
///
/// # Errors
/// [`WorldError::FileName`] if `file_name` has no last part, [`WorldError::Write`] or
/// [`WorldError::Picture`] if a file cannot be written.
pub fn write_picture(
    folder: &Path,
    file_name: &str,
    picture: &Picture,
) -> Result<bool, WorldError> {
    let Some(scene) = scene(picture) else {
        return Ok(false);
    };
    let stem = Path::new(file_name)
        .file_stem()
        .and_then(|stem| stem.to_str());
    let stem = stem.ok_or_else(|| WorldError::FileName {
        name: file_name.to_owned(),
    })?;
    let file = describe(file_name, scene, &picture.mask);
    let path = folder.join(format!("{stem}.json"));
    let text = serde_json::to_string(&file).map_err(|source| WorldError::Json {
        what: "ADE20K annotations",
        source,
    })?;
    std::fs::write(&path, text).map_err(|source| WorldError::Write { path, source })?;

    let path = folder.join(format!("{stem}_seg.png"));
    class_mask(scene, &picture.mask)
        .and_then(|classes| classes.save_png(&path))
        .map_err(|source| WorldError::Picture { path, source })?;
    Ok(true)
}

/// Writes the list of classes into a folder.
///
/// # Errors
/// [`WorldError::Write`] if the file cannot be written.
pub fn write_classes(folder: &Path) -> Result<(), WorldError> {
    let path = folder.join("objectInfo.txt");
    let mut text = "Idx\tName\n".to_owned();
    for category in categories() {
        text.push_str(&format!("{}\t{}\n", category.id, category.name));
    }
    std::fs::write(&path, text).map_err(|source| WorldError::Write { path, source })
}

/// Writes the files of all scenes among some pictures, and the list of classes, into a folder.
///
/// # Errors
/// As [`write_picture`].
pub fn write<'a>(
    folder: &Path,
    pictures: impl IntoIterator<Item = Named<'a>>,
) -> Result<Written, WorldError> {
    write_classes(folder)?;
    let mut written = Written::default();
    for (_, file_name, picture) in pictures {
        if write_picture(folder, file_name, picture)? {
            written.images += 1;
            written.annotations += scene(picture).map_or(0, |scene| scene.objects.len());
        }
    }
    Ok(written)
}

/// The class and the instance of every pixel as a colour.
fn class_mask(scene: &Scene, mask: &[u8]) -> Result<RgbImage, opabinia_image::ImageError> {
    let pixel = |owner: &u8| {
        let object = usize::from(*owner).checked_sub(1);
        match object.and_then(|index| scene.objects.get(index)) {
            Some(object) => {
                let class = category_id(object.shape);
                [(class / 256 * 10) as u8, (class % 256) as u8, *owner]
            }
            None => [0; 3],
        }
    };
    RgbImage::from_raw(
        scene.width,
        scene.height,
        mask.iter().flat_map(pixel).collect(),
    )
}

/// The content of the file about a picture.
pub fn describe(file_name: &str, scene: &Scene, mask: &[u8]) -> File {
    let (folder, filename) = file_name.rsplit_once('/').unwrap_or(("", file_name));
    let object = scene.objects.iter().enumerate();
    File {
        annotation: Annotation {
            filename: filename.to_owned(),
            folder: folder.to_owned(),
            imsize: [scene.height, scene.width, 3],
            source: Source {
                folder: "world".to_owned(),
                filename: filename.to_owned(),
                origin: "opabinia".to_owned(),
            },
            scene: vec!["solids on the ground".to_owned()],
            object: object
                .map(|(index, object)| entry(scene, mask, index, object))
                .collect(),
        },
    }
}

fn entry(scene: &Scene, mask: &[u8], index: usize, object: &Object) -> Entry {
    let nearer = scene
        .objects
        .iter()
        .filter(|other| other.depth < object.depth);
    let names = synonyms(object.shape);
    let yes_no = |truth| if truth { "yes" } else { "no" };
    Entry {
        id: index as u32,
        name: names.join(", "),
        raw_name: object.shape.name().to_owned(),
        name_ndx: category_id(object.shape),
        hypernym: vec!["solid".to_owned(), "object".to_owned()],
        attributes: vec![
            object.colour.name().to_owned(),
            object.material.name().to_owned(),
            object.size.name().to_owned(),
        ],
        depth_ordering_rank: nearer.count() as u32 + 1,
        occluded: yes_no(object.visible < object.covered).to_owned(),
        crop: "0".to_owned(),
        parts: Parts::default(),
        polygon: owner_of(index)
            .map(|owner| largest_part(mask, scene.width, owner, &object.box2d))
            .unwrap_or_default(),
    }
}

/// The part whose bounding box is largest.
fn largest_part(mask: &[u8], width: u32, owner: u8, bounds: &Box2d) -> Polygon {
    let extent = |part: &Vec<[u32; 2]>| {
        let span = |axis: usize| {
            let values = part.iter().map(|corner| corner[axis]);
            values.clone().max().unwrap_or(0) - values.min().unwrap_or(0)
        };
        u64::from(span(0)) * u64::from(span(1))
    };
    let parts = outlines(mask, width, owner, bounds).parts;
    let part = parts.into_iter().max_by_key(extent).unwrap_or_default();
    Polygon {
        x: part.iter().map(|corner| corner[0]).collect(),
        y: part.iter().map(|corner| corner[1]).collect(),
        click_date: Vec::new(),
    }
}

/// What else a shape is called.
fn synonyms(shape: Shape) -> &'static [&'static str] {
    match shape {
        Shape::Ball => &["ball", "sphere"],
        Shape::Cube => &["cube", "block"],
        Shape::Cylinder => &["cylinder"],
        Shape::Cone => &["cone"],
        Shape::Pyramid => &["pyramid"],
        Shape::Ring => &["ring", "torus"],
    }
}
