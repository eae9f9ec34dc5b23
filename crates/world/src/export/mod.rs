//! The truth of scenes in the formats of the real sources, so that whatever reads COCO, ADE20K or
//! Omni3D reads the world.
//!
//! Only scenes have objects; documents and charts are passed over. Each format can be written in
//! one call from an iterator, or record by record: a record depends on its picture alone and may be
//! made by any thread, the writer then takes them one after the other and never holds more than
//! the list of images.

pub mod ade20k;
pub mod coco;
pub mod omni3d;
mod outline;
pub mod rle;
mod sections;

use serde::Serialize;

use crate::truth::{Picture, Scene, Shape, Truth};

/// A picture with the number and the file name that annotations know it by.
pub type Named<'a> = (u64, &'a str, &'a Picture);

/// How many images and annotations a file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Images.
    pub images: usize,
    /// Annotations.
    pub annotations: usize,
}

/// A class of objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Category {
    /// From 1, in the order of [`Shape::ALL`].
    pub id: u32,
    /// Name of the shape.
    pub name: &'static str,
    /// One for all.
    pub supercategory: &'static str,
}

/// All classes.
pub fn categories() -> Vec<Category> {
    Shape::ALL
        .iter()
        .map(|shape| Category {
            id: category_id(*shape),
            name: shape.name(),
            supercategory: "solid",
        })
        .collect()
}

/// A shape's number: its place among [`Shape::ALL`], from 1.
pub fn category_id(shape: Shape) -> u32 {
    shape as u32 + 1
}

/// The scene that a picture shows, if it shows one.
fn scene(picture: &Picture) -> Option<&Scene> {
    match &picture.truth {
        Truth::Scene(scene) => Some(scene),
        Truth::Document(_) | Truth::Chart(_) => None,
    }
}

/// What a mask holds for the object with an index.
fn owner_of(index: usize) -> Option<u8> {
    u8::try_from(index + 1).ok()
}
