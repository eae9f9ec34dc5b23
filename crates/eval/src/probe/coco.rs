//! Annotated pictures as a probe reads them: COCO's instances, and the scenes of the small world.
//!
//! A picture has the label of whatever is annotated in it, once. Entries that make no sense are listed.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use opabinia_data::stays_inside;
use serde::Deserialize;

use super::data::{Label, ProbeData, ProbePicture, Split, SplitRule, Task, drawn, refuse};
use super::error::ProbeError;

/// A file of COCO's instances and the folder of its pictures.
#[derive(Clone, Debug)]
pub struct CocoPart {
    /// Such as `instances_train2017.json`.
    pub annotations: PathBuf,
    /// Such as `train2017`.
    pub pictures: PathBuf,
}

impl ProbeData {
    /// Reads COCO's instances: a picture has the labels of the categories that are annotated in it,
    /// crowds included. Without a `test`, the pictures of `train` are divided by the rule.
    ///
    /// # Errors
    /// If a file cannot be read or is none of instances.
    pub fn coco(
        train: &CocoPart,
        test: Option<&CocoPart>,
        rule: SplitRule,
    ) -> Result<Self, ProbeError> {
        let data = Self::empty(&train.annotations, Task::Labels);
        data.annotated(train, test, rule, &|labels, object| {
            labels.extend(object.category.map(|name| ("category", name)));
        })
    }

    /// Reads the scenes of a small world, `train` and `test`: which shapes, colours and materials are
    /// in the picture. A world of one split is divided by the rule.
    ///
    /// # Errors
    /// If there are no annotations of scenes.
    pub fn world(folder: &Path, rule: SplitRule) -> Result<Self, ProbeError> {
        let part = |split: &str| CocoPart {
            annotations: folder.join(split).join("annotations/coco.json"),
            pictures: folder.join(split),
        };
        let parts: Vec<CocoPart> = ["train", "test"]
            .map(part)
            .into_iter()
            .filter(|part| part.annotations.is_file())
            .collect();
        let Some((train, rest)) = parts.split_first() else {
            return Err(refuse(
                folder,
                "no `train/annotations/coco.json` and no `test/…`; `opabinia world make` writes them unless told `--no-annotations`",
            ));
        };
        let data = Self::empty(folder, Task::Labels);
        data.annotated(train, rest.first(), rule, &|labels, object| {
            labels.extend(object.category.map(|name| ("shape", name)));
            for group in ["colour", "material"] {
                labels.extend(
                    object
                        .attributes
                        .get(group)
                        .map(|name| (group, name.as_str())),
                );
            }
        })
    }

    fn annotated(
        mut self,
        train: &CocoPart,
        test: Option<&CocoPart>,
        rule: SplitRule,
        labels_of: &LabelsOf,
    ) -> Result<Self, ProbeError> {
        let mut found = self.part(train, Split::Train, labels_of)?;
        match test {
            Some(test) => found.extend(self.part(test, Split::Test, labels_of)?),
            None => {
                let strata = vec![(); found.len()];
                for place in drawn(&strata, rule.test_share, rule.seed, "probe.split") {
                    if let Some(entry) = found.get_mut(place) {
                        entry.2 = Split::Test;
                    }
                }
            }
        }
        let all: BTreeSet<&Label> = found.iter().flat_map(|(_, labels, _)| labels).collect();
        let places: BTreeMap<&Label, usize> = all.iter().copied().zip(0..).collect();
        for (path, labels, split) in &found {
            self.pictures.push(ProbePicture {
                path: path.clone(),
                labels: labels
                    .iter()
                    .filter_map(|l| places.get(l).copied())
                    .collect(),
                split: *split,
            });
        }
        self.labels = all.into_iter().cloned().collect();
        if self.labels.is_empty() {
            return Err(refuse(&train.annotations, "no picture has an annotation"));
        }
        let at = train.annotations.clone();
        self.finished(&at)
    }

    /// The pictures of one file of annotations, with their labels.
    fn part(
        &mut self,
        part: &CocoPart,
        split: Split,
        labels_of: &LabelsOf,
    ) -> Result<Vec<(PathBuf, BTreeSet<Label>, Split)>, ProbeError> {
        let path = &part.annotations;
        let bytes = std::fs::read(path).map_err(ProbeError::read("the annotations", path))?;
        let file: CocoFile =
            serde_json::from_slice(&bytes).map_err(|source| ProbeError::Annotations {
                path: path.clone(),
                source,
            })?;
        let categories: HashMap<i64, &str> = file
            .categories
            .iter()
            .map(|category| (category.id, category.name.as_str()))
            .collect();
        let mut of_image: HashMap<i64, BTreeSet<Label>> = HashMap::new();
        let mut images = BTreeMap::new();
        for image in &file.images {
            if !stays_inside(&image.file_name) {
                self.fault(
                    &image.file_name,
                    "its name leads out of the folder of pictures",
                );
                continue;
            }
            match images.entry(image.id) {
                Entry::Vacant(free) => {
                    free.insert(image.file_name.as_str());
                }
                Entry::Occupied(_) => {
                    self.fault(&image.file_name, "another picture has the same id");
                }
            }
        }
        for annotation in &file.annotations {
            let category = categories.get(&annotation.category_id).copied();
            if category.is_none() {
                let problem = format!("category {} is not listed", annotation.category_id);
                self.fault(
                    &format!("an annotation of picture {}", annotation.image_id),
                    &problem,
                );
            }
            if !images.contains_key(&annotation.image_id) {
                let problem = format!("there is no picture {}", annotation.image_id);
                self.fault("an annotation", &problem);
                continue;
            }
            let mut labels = Vec::new();
            let object = Object {
                category,
                attributes: &annotation.attributes,
            };
            labels_of(&mut labels, &object);
            let mine = of_image.entry(annotation.image_id).or_default();
            mine.extend(labels.into_iter().map(|(group, name)| Label {
                group: group.to_owned(),
                name: name.to_owned(),
            }));
        }
        let found = images.into_iter().map(|(id, name)| {
            let labels = of_image.remove(&id).unwrap_or_default();
            (part.pictures.join(name), labels, split)
        });
        Ok(found.collect())
    }
}

/// Adds the labels, group and name, that an object gives its picture.
type LabelsOf = dyn for<'a> Fn(&mut Vec<(&'static str, &'a str)>, &Object<'a>);

/// An annotated object.
struct Object<'a> {
    category: Option<&'a str>,
    attributes: &'a HashMap<String, String>,
}

#[derive(Deserialize)]
struct CocoFile {
    images: Vec<CocoImage>,
    annotations: Vec<CocoAnnotation>,
    categories: Vec<CocoCategory>,
}

#[derive(Deserialize)]
struct CocoImage {
    id: i64,
    file_name: String,
}

#[derive(Deserialize)]
struct CocoAnnotation {
    image_id: i64,
    category_id: i64,
    /// Of the small world; other files may have others, which are passed over.
    #[serde(default, deserialize_with = "texts")]
    attributes: HashMap<String, String>,
}

#[derive(Deserialize)]
struct CocoCategory {
    id: i64,
    name: String,
}

/// The texts of a table; nothing of anything else.
fn texts<'de, D: serde::Deserializer<'de>>(from: D) -> Result<HashMap<String, String>, D::Error> {
    let value = serde_json::Value::deserialize(from)?;
    let table = value.as_object().into_iter().flatten();
    let texts = table.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    Ok(texts.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: SplitRule = SplitRule {
        test_share: 0.25,
        seed: 3,
    };

    #[test]
    fn annotations_become_labels_and_faults() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("instances.json");
        let json = serde_json::json!({
            "images": [
                {"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"},
                {"id": 3, "file_name": "../c.jpg"}, {"id": 1, "file_name": "d.jpg"},
            ],
            "annotations": [
                {"image_id": 1, "category_id": 7, "iscrowd": 1},
                {"image_id": 1, "category_id": 7, "attributes": {"colour": "red", "n": 3}},
                {"image_id": 2, "category_id": 9}, {"image_id": 5, "category_id": 7},
            ],
            "categories": [{"id": 7, "name": "cup"}],
        });
        std::fs::write(&path, json.to_string()).unwrap();
        let part = CocoPart {
            annotations: path.clone(),
            pictures: "p".into(),
        };
        let data = ProbeData::coco(&part, None, RULE).unwrap();
        assert_eq!(
            data.labels,
            [Label {
                group: "category".into(),
                name: "cup".into()
            }]
        );
        assert_eq!((data.count(Split::Train), data.count(Split::Test)), (1, 1));
        let labels = |name: &str| {
            let mut pictures = data.pictures.iter();
            pictures
                .find(|p| p.path.ends_with(name))
                .unwrap()
                .labels
                .clone()
        };
        assert_eq!((labels("a.jpg"), labels("b.jpg")), (vec![0], vec![]));
        // Name, id, category, picture.
        assert_eq!(data.faults.len(), 4, "{:?}", data.faults);
        std::fs::write(&path, "[]").unwrap();
        assert!(matches!(
            ProbeData::coco(&part, None, RULE),
            Err(ProbeError::Annotations { .. })
        ));
    }

    proptest::proptest! {
        #[test]
        fn no_file_of_annotations_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("x.json");
            std::fs::write(&path, bytes).unwrap();
            let part = CocoPart { annotations: path, pictures: "p".into() };
            let _ = ProbeData::coco(&part, None, RULE);
        }
    }
}
