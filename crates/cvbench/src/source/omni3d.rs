//! Omni3D (arXiv 2207.10660).
//!
//! Frame of the camera: right, down, into the scene, in metres; `-1` means unknown. Which boxes are
//! good enough is the standard rule of its publishers ([`ignored`]); a box that fails it is not asked
//! about, and the reasons are counted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::entries::{Entry, Faults, number_in, read_json};
use super::{Annotated, Family, Found, Instance, SourceSpec};
use crate::error::CvBenchError;
use crate::geometry::{Box2, Solid};
use crate::rules::OmniRules;

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    info: Info,
    images: Vec<Entry<Image>>,
    annotations: Vec<Entry<Annotation>>,
}

#[derive(Default, Deserialize)]
struct Info {
    #[serde(default)]
    source: Option<String>,
}

#[derive(Deserialize)]
struct Image {
    id: u64,
    file_path: String,
    width: u32,
    height: u32,
}

#[derive(Deserialize)]
#[allow(non_snake_case, reason = "the names of the format")]
struct Annotation {
    image_id: u64,
    category_name: String,
    #[serde(default = "yes")]
    valid3D: bool,
    #[serde(default = "unknown")]
    bbox2D_tight: [f64; 4],
    #[serde(default = "unknown")]
    bbox2D_trunc: [f64; 4],
    #[serde(default = "unknown")]
    bbox2D_proj: [f64; 4],
    bbox3D_cam: [[f64; 3]; 8],
    center_cam: [f64; 3],
    dimensions: [f64; 3],
    #[serde(default)]
    behind_camera: bool,
    #[serde(default = "minus_one")]
    visibility: f64,
    #[serde(default = "minus_one")]
    truncation: f64,
    #[serde(default = "minus_one")]
    segmentation_pts: f64,
    #[serde(default = "minus_one")]
    lidar_pts: f64,
    #[serde(default = "minus_one")]
    depth_error: f64,
}

fn yes() -> bool {
    true
}

fn unknown() -> [f64; 4] {
    [-1.0; 4]
}

fn minus_one() -> f64 {
    -1.0
}

/// Why a thing does not count that is nowhere in the picture.
const NO_BOX: &str = "no_2d_box";

/// Reads a file of one data set and split.
pub(super) fn read(spec: &SourceSpec, rules: &OmniRules) -> Result<Found, CvBenchError> {
    let path = &spec.annotations;
    let (file, digest): (File, String) = read_json(path, "Omni3D")?;
    let collection = match &spec.collection {
        Some(collection) => collection.clone(),
        None => collection_of(&file.info, path),
    };
    let mut faults = Faults {
        file: path,
        list: Vec::new(),
    };
    let mut pictures = pictures(spec, &collection, file.images, &mut faults);
    for (place, entry) in file.annotations.into_iter().enumerate() {
        let name = format!("annotations[{place}]");
        let annotation = match entry {
            Entry::Good(annotation) => annotation,
            Entry::Bad(value, problem) => {
                let image = number_in(&value, "image_id");
                if let Some(picture) = image.and_then(|image| pictures.get_mut(&image)) {
                    picture.unclear = true;
                }
                faults.add(name, problem);
                continue;
            }
        };
        match pictures.get_mut(&annotation.image_id) {
            Some(picture) if annotation.category_name.trim().is_empty() => {
                picture.unclear = true;
                faults.add(name, "the name of its class is empty");
            }
            Some(picture) => {
                if let Some(corners) = add(picture, &annotation, rules) {
                    let problem = format!("its box {corners:?} has nothing inside the picture");
                    faults.add(name, problem);
                }
            }
            None => faults.add(name, "its picture is not listed"),
        }
    }
    Ok(Found {
        pictures: pictures.into_values().collect(),
        faults: faults.list,
        files: vec![(path.display().to_string(), digest)],
    })
}

/// `Omni3D_SUNRGBD`: the source as the file names it, or else the file's own name before its split.
fn collection_of(info: &Info, path: &Path) -> String {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    let stem = stem.map(|stem| stem.split('_').next().unwrap_or(stem));
    let source = info.source.as_deref().or(stem).unwrap_or("unknown");
    let plain = |letter: char| {
        if letter.is_alphanumeric() {
            letter
        } else {
            '_'
        }
    };
    format!(
        "Omni3D_{}",
        source.trim().chars().map(plain).collect::<String>()
    )
}

/// Adds a thing; gives back a box that is stated and cannot be one, if no other of its boxes is good and
/// the rules do not ignore the thing for another reason.
fn add(picture: &mut Annotated, annotation: &Annotation, rules: &OmniRules) -> Option<[f64; 4]> {
    let class = annotation.category_name.trim();
    let boxes = [
        annotation.bbox2D_tight,
        annotation.bbox2D_trunc,
        annotation.bbox2D_proj,
    ];
    let within = |corners: [f64; 4]| Box2::within(corners, picture.width, picture.height);
    let place = boxes
        .into_iter()
        .filter(|corners| *corners != unknown())
        .find_map(within);
    let solid = Solid::new(annotation.bbox3D_cam);
    let ignored = ignored(annotation, place.as_ref(), picture.height, rules);
    let broken = match (&place, ignored) {
        (None, Some(NO_BOX)) => boxes.into_iter().find(|corners| *corners != unknown()),
        _ => None,
    };
    picture.words.insert(class.to_owned());
    picture.instances.push(Instance {
        class: class.to_owned(),
        group: class.to_owned(),
        ignored,
        place,
        crowd: false,
        solid,
    });
    broken
}

/// Why a box does not count: the rule of Omni3D's own data loader, with its default limits.
fn ignored(
    annotation: &Annotation,
    place: Option<&Box2>,
    height: u32,
    rules: &OmniRules,
) -> Option<&'static str> {
    let known = |value: f64| value >= 0.0;
    let share = place.map_or(0.0, |place| place.height() / f64::from(height));
    let class = annotation.category_name.trim().to_lowercase();
    let reasons = [
        (annotation.behind_camera, "behind_camera"),
        (!annotation.valid3D, "no_3d_box"),
        (
            !annotation.dimensions.iter().all(|side| *side > 0.0),
            "no_dimensions",
        ),
        (annotation.lidar_pts == 0.0, "no_lidar_points"),
        (annotation.segmentation_pts == 0.0, "no_segmentation_points"),
        (annotation.depth_error > 0.5, "depth_error"),
        (annotation.center_cam[2] > rules.max_depth, "too_far"),
        (place.is_none() || share <= rules.min_height, NO_BOX),
        (share >= rules.max_height, "too_high"),
        (
            known(annotation.truncation) && annotation.truncation >= rules.max_truncation,
            "truncated",
        ),
        (
            known(annotation.visibility) && annotation.visibility <= rules.min_visibility,
            "hidden",
        ),
        (rules.ignore_classes.contains(&class), "ignored_class"),
    ];
    let mut reasons = reasons.into_iter();
    reasons.find(|(holds, _)| *holds).map(|(_, reason)| reason)
}

fn pictures(
    spec: &SourceSpec,
    collection: &str,
    entries: Vec<Entry<Image>>,
    faults: &mut Faults<'_>,
) -> BTreeMap<u64, Annotated> {
    let folder = spec.pictures.clone().unwrap_or_else(|| PathBuf::from("."));
    let mut pictures = BTreeMap::new();
    for (place, entry) in entries.into_iter().enumerate() {
        let name = format!("images[{place}]");
        let image = match entry {
            Entry::Good(image) if image.file_path.trim().is_empty() => {
                faults.add(name, "the name of its file is empty");
                continue;
            }
            Entry::Good(image) if image.width > 0 && image.height > 0 => image,
            Entry::Good(_) => {
                faults.add(name, "it has no pixels");
                continue;
            }
            Entry::Bad(_, problem) => {
                faults.add(name, problem);
                continue;
            }
        };
        if pictures.contains_key(&image.id) {
            faults.add(name, format!("the id {} is there twice", image.id));
            continue;
        }
        pictures.insert(
            image.id,
            Annotated {
                family: Family::Omni3D,
                collection: collection.to_owned(),
                path: folder.join(&image.file_path),
                name: image.file_path,
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
