//! COCO instances.
//!
//! `bbox` is `[left, top, width, height]`; `iscrowd` marks several things under one annotation. The
//! outlines are not needed and not read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use serde::Deserialize;

use super::entries::{Entry, Faults, number_in, read_json};
use super::{Annotated, Family, Found, Instance, SourceSpec};
use crate::error::CvBenchError;
use crate::geometry::Box2;

#[derive(Deserialize)]
struct File {
    images: Vec<Entry<Image>>,
    categories: Vec<Entry<Category>>,
    annotations: Vec<Entry<Annotation>>,
}

#[derive(Deserialize)]
struct Image {
    id: u64,
    file_name: String,
    width: u32,
    height: u32,
}

#[derive(Deserialize)]
struct Category {
    id: u64,
    name: String,
}

#[derive(Deserialize)]
struct Annotation {
    image_id: u64,
    category_id: u64,
    bbox: [f64; 4],
    #[serde(default)]
    iscrowd: u8,
}

/// Reads a file of instances.
pub(super) fn read(spec: &SourceSpec) -> Result<Found, CvBenchError> {
    let path = &spec.annotations;
    let (file, digest): (File, String) = read_json(path, "COCO")?;
    let mut faults = Faults {
        file: path,
        list: Vec::new(),
    };
    let classes = classes(file.categories, &mut faults);
    let mut pictures = pictures(spec, file.images, &mut faults);
    for (place, entry) in file.annotations.into_iter().enumerate() {
        let name = format!("annotations[{place}]");
        let (image, class, place) = match entry {
            Entry::Good(entry) => (
                Some(entry.image_id),
                Some(entry.category_id),
                Ok((entry.bbox, entry.iscrowd != 0)),
            ),
            Entry::Bad(value, problem) => (
                number_in(&value, "image_id"),
                number_in(&value, "category_id"),
                Err(problem),
            ),
        };
        let Some(picture) = image.and_then(|image| pictures.get_mut(&image)) else {
            faults.add(
                name,
                place.err().unwrap_or("its picture is not listed".into()),
            );
            continue;
        };
        let Some(class) = class.and_then(|class| classes.get(&class)) else {
            picture.unclear = true;
            faults.add(
                name,
                place.err().unwrap_or("its class is not listed".into()),
            );
            continue;
        };
        let within = |corners| Box2::within(corners, picture.width, picture.height);
        let (place, crowd) = match place {
            Ok((bbox, crowd)) => {
                let place = corners(bbox).and_then(within);
                if place.is_none() {
                    faults.add(
                        name,
                        format!("its box {bbox:?} has nothing inside the picture"),
                    );
                }
                (place, crowd)
            }
            Err(problem) => {
                faults.add(name, problem);
                (None, false)
            }
        };
        picture.instances.push(Instance {
            class: class.clone(),
            group: class.clone(),
            place,
            crowd,
            solid: None,
            ignored: None,
        });
        picture.words.insert(class.clone());
    }
    Ok(Found {
        pictures: pictures.into_values().collect(),
        faults: faults.list,
        files: vec![(path.display().to_string(), digest)],
    })
}

fn corners([left, top, width, height]: [f64; 4]) -> Option<[f64; 4]> {
    (width > 0.0 && height > 0.0).then_some([left, top, left + width, top + height])
}

fn classes(entries: Vec<Entry<Category>>, faults: &mut Faults<'_>) -> HashMap<u64, String> {
    let mut classes = HashMap::new();
    for (place, entry) in entries.into_iter().enumerate() {
        match entry {
            Entry::Good(class) if class.name.trim().is_empty() => {
                faults.add(format!("categories[{place}]"), "its name is empty");
            }
            Entry::Good(class) => {
                if let Some(first) = classes.get(&class.id) {
                    let problem = format!("the id {} is that of `{first}` already", class.id);
                    faults.add(format!("categories[{place}]"), problem);
                    continue;
                }
                classes.insert(class.id, class.name.trim().to_owned());
            }
            Entry::Bad(_, problem) => faults.add(format!("categories[{place}]"), problem),
        }
    }
    classes
}

fn pictures(
    spec: &SourceSpec,
    entries: Vec<Entry<Image>>,
    faults: &mut Faults<'_>,
) -> BTreeMap<u64, Annotated> {
    let folder = spec.pictures.clone().unwrap_or_else(|| PathBuf::from("."));
    let collection = spec.collection.as_deref().unwrap_or("COCO");
    let mut pictures = BTreeMap::new();
    for (place, entry) in entries.into_iter().enumerate() {
        let image = match entry {
            Entry::Good(image) if image.file_name.trim().is_empty() => {
                faults.add(format!("images[{place}]"), "the name of its file is empty");
                continue;
            }
            Entry::Good(image) if image.width > 0 && image.height > 0 => image,
            Entry::Good(_) => {
                faults.add(format!("images[{place}]"), "it has no pixels");
                continue;
            }
            Entry::Bad(_, problem) => {
                faults.add(format!("images[{place}]"), problem);
                continue;
            }
        };
        if pictures.contains_key(&image.id) {
            faults.add(
                format!("images[{place}]"),
                format!("the id {} is there twice", image.id),
            );
            continue;
        }
        pictures.insert(
            image.id,
            Annotated {
                family: Family::Coco,
                collection: collection.to_owned(),
                path: folder.join(&image.file_name),
                name: image.file_name,
                width: image.width,
                height: image.height,
                instances: Vec::new(),
                words: BTreeSet::new(),
                unclear: false,
            },
        );
    }
    pictures
}
