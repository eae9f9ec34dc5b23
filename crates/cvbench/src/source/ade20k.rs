//! ADE20K, the full release (`ADE20K_2021_17_01`): a JSON file beside each picture.
//!
//! Parts of things (`part_level` above 0) are no things of their own; only their names are kept,
//! since a picture with a car has wheels. The box is the extent of the outline. Fields that hold a
//! list or a single value are taken either way.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::entries::{Entry, Faults, OneOrMany, read_json};
use super::{Annotated, Family, Found, Instance, SourceSpec};
use crate::error::CvBenchError;
use crate::geometry::Box2;

#[derive(Deserialize)]
struct File {
    annotation: Annotation,
}

#[derive(Deserialize)]
struct Annotation {
    filename: String,
    #[serde(default)]
    folder: String,
    imsize: Vec<u32>,
    #[serde(default)]
    object: Option<OneOrMany<Entry<Object>>>,
}

#[derive(Deserialize)]
struct Object {
    name: String,
    #[serde(default)]
    raw_name: Option<String>,
    #[serde(default)]
    name_ndx: Option<u64>,
    #[serde(default)]
    parts: Option<Parts>,
    #[serde(default)]
    polygon: Option<Polygon>,
}

#[derive(Deserialize)]
struct Parts {
    #[serde(default)]
    part_level: Option<Value>,
}

#[derive(Deserialize)]
struct Polygon {
    #[serde(default)]
    x: Option<OneOrMany<f64>>,
    #[serde(default)]
    y: Option<OneOrMany<f64>>,
}

/// Reads every JSON file below a folder.
pub(super) fn read(spec: &SourceSpec) -> Result<Found, CvBenchError> {
    let root = &spec.annotations;
    let mut paths = Vec::new();
    find_json(root, &mut paths)?;
    paths.sort();
    let mut found = Found::default();
    let mut all = Sha256::new();
    for path in &paths {
        match read_json::<File>(path, "ADE20K") {
            Ok((file, digest)) => {
                all.update(digest);
                add(spec, path, file.annotation, &mut found);
            }
            Err(error @ CvBenchError::Read { .. }) => return Err(error),
            Err(error) => found.faults.push(super::Fault {
                file: path.display().to_string(),
                entry: "file".to_owned(),
                problem: match std::error::Error::source(&error) {
                    Some(source) => source.to_string(),
                    None => error.to_string(),
                },
            }),
        }
    }
    let digest = opabinia_eval::hex(all.finalize());
    found.files.push((root.display().to_string(), digest));
    Ok(found)
}

fn find_json(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<(), CvBenchError> {
    let what = "the folder of annotations";
    for entry in fs::read_dir(folder).map_err(CvBenchError::read(what, folder))? {
        let entry = entry.map_err(CvBenchError::read(what, folder))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(CvBenchError::read(what, &path))?;
        if kind.is_dir() {
            find_json(&path, paths)?;
        } else if path.extension().is_some_and(|ending| ending == "json") {
            paths.push(path);
        }
    }
    Ok(())
}

fn add(spec: &SourceSpec, path: &Path, annotation: Annotation, found: &mut Found) {
    let mut faults = Faults {
        file: path,
        list: Vec::new(),
    };
    let size = match annotation.imsize[..] {
        [height, width, ..] if height > 0 && width > 0 => Some((width, height)),
        _ => None,
    };
    let Some((width, height)) = size else {
        faults.add("annotation.imsize".into(), "it is not height and width");
        found.faults.append(&mut faults.list);
        return;
    };
    let mut picture = Annotated {
        family: Family::Ade20k,
        collection: spec.collection.as_deref().unwrap_or("ADE20K").to_owned(),
        name: name(&annotation),
        path: place(spec, path, &annotation),
        width,
        height,
        instances: Vec::new(),
        words: BTreeSet::new(),
        unclear: false,
    };
    let objects = annotation.object.map(OneOrMany::into_vec);
    for (place, entry) in objects.unwrap_or_default().into_iter().enumerate() {
        match entry {
            Entry::Good(object) => {
                if let Err(problem) = add_object(&mut picture, object) {
                    faults.add(format!("annotation.object[{place}]"), problem);
                }
            }
            Entry::Bad(_, problem) => {
                picture.unclear = true;
                faults.add(format!("annotation.object[{place}]"), problem);
            }
        }
    }
    found.pictures.push(picture);
    found.faults.append(&mut faults.list);
}

/// Adds a thing.
///
/// # Errors
/// What is wrong with it, if nobody knows its class or its place; of parts only the class counts.
fn add_object(picture: &mut Annotated, object: Object) -> Result<(), &'static str> {
    let synonyms = object.name.split(',').map(str::trim);
    let synonyms: Vec<&str> = synonyms.filter(|name| !name.is_empty()).collect();
    let raw = object.raw_name.as_deref().map(str::trim);
    let class = raw.filter(|name| !name.is_empty());
    let Some(class) = class.or(synonyms.first().copied()) else {
        picture.unclear = true;
        return Err("it has no name");
    };
    let words = synonyms.iter().copied().chain([class]);
    picture.words.extend(words.map(str::to_owned));
    let level = object.parts.and_then(|parts| parts.part_level);
    if level.is_some_and(|level| is_part(&level)) {
        return Ok(());
    }
    let group = match object.name_ndx {
        Some(number) => format!("class {number}"),
        None => object.name.clone(),
    };
    let extent = object.polygon.and_then(extent);
    let within = |corners| Box2::within(corners, picture.width, picture.height);
    let place = extent.and_then(within);
    let known = place.is_some();
    picture.instances.push(Instance {
        class: class.to_owned(),
        group,
        place,
        crowd: false,
        solid: None,
        ignored: None,
    });
    match known {
        true => Ok(()),
        false => Err("its outline has nothing inside the picture"),
    }
}

/// Levels are numbers, and in some files texts of numbers.
fn is_part(level: &Value) -> bool {
    match level {
        Value::Number(number) => number.as_f64().is_some_and(|level| level > 0.0),
        Value::String(text) => !matches!(text.trim(), "" | "0"),
        _ => false,
    }
}

fn extent(polygon: Polygon) -> Option<[f64; 4]> {
    let range = |values: Option<OneOrMany<f64>>| {
        let values = values.map(OneOrMany::into_vec).unwrap_or_default();
        let ends = values
            .iter()
            .fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], &value| {
                [low.min(value), high.max(value)]
            });
        (ends[0] < ends[1]).then_some(ends)
    };
    let [left, right] = range(polygon.x)?;
    let [top, bottom] = range(polygon.y)?;
    Some([left, top, right, bottom])
}

fn name(annotation: &Annotation) -> String {
    match annotation.folder.trim_end_matches('/') {
        "" => annotation.filename.clone(),
        folder => format!("{folder}/{}", annotation.filename),
    }
}

/// Beside the annotation, as in the release; else below the folder of pictures.
fn place(spec: &SourceSpec, path: &Path, annotation: &Annotation) -> PathBuf {
    let beside = path.with_file_name(&annotation.filename);
    match &spec.pictures {
        Some(folder) if !beside.is_file() => folder.join(name(annotation)),
        _ => beside,
    }
}
