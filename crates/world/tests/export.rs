//! Files in the formats of COCO, ADE20K and Omni3D say what the truth says.
#![allow(missing_docs, clippy::unwrap_used)]

use opabinia_image::{ImageLimits, ImageSource, load};
use opabinia_world::export::coco::{Annotation, Segmentation};
use opabinia_world::export::{Named, ade20k, category_id, coco, omni3d};
use opabinia_world::truth::{Object, Picture, Scene, Truth};
use opabinia_world::{PictureOptions, Subject, draw};
use serde_json::Value;

const SIDE: usize = 96;

fn pictures() -> Vec<(u64, String, Picture)> {
    let options = PictureOptions {
        side: SIDE as u32,
        ..PictureOptions::default()
    };
    let subjects = [Subject::Scene, Subject::Scene, Subject::Word];
    (0..30)
        .map(|seed| {
            let subject = subjects[seed as usize % 3];
            let name = format!("images/00/{seed:06}.png");
            (seed + 1, name, draw(seed, subject, &options))
        })
        .collect()
}

fn named(pictures: &[(u64, String, Picture)]) -> impl Iterator<Item = Named<'_>> {
    pictures
        .iter()
        .map(|(id, name, picture)| (*id, name.as_str(), picture))
}

fn scenes(pictures: &[(u64, String, Picture)]) -> Vec<(u64, &Picture, &Scene)> {
    let scenes = pictures
        .iter()
        .filter_map(|(id, _, picture)| match &picture.truth {
            Truth::Scene(scene) => Some((*id, picture, scene)),
            _ => None,
        });
    scenes.collect()
}

/// Each object with its picture's number and its own pixels.
fn objects(pictures: &[(u64, String, Picture)]) -> Vec<(u64, &Object, Vec<bool>)> {
    let mut found = Vec::new();
    for (id, picture, scene) in scenes(pictures) {
        for (index, object) in scene.objects.iter().enumerate() {
            let own = picture
                .mask
                .iter()
                .map(|owner| usize::from(*owner) == index + 1);
            found.push((id, object, own.collect()));
        }
    }
    found
}

/// Whether the middle of a pixel is inside an odd number of polygons' edges to its right.
fn fill(polygons: &[Vec<f64>]) -> Vec<bool> {
    let inside = |x: f64, y: f64| {
        let mut crossings = 0;
        for polygon in polygons {
            let corners: Vec<&[f64]> = polygon.chunks(2).collect();
            for (index, a) in corners.iter().enumerate() {
                let b = corners[(index + 1) % corners.len()];
                let spans = (a[1] > y) != (b[1] > y);
                if spans && x < a[0] + (y - a[1]) / (b[1] - a[1]) * (b[0] - a[0]) {
                    crossings += 1;
                }
            }
        }
        crossings % 2 == 1
    };
    (0..SIDE * SIDE)
        .map(|at| inside((at % SIDE) as f64 + 0.5, (at / SIDE) as f64 + 0.5))
        .collect()
}

#[test]
fn coco_masks_are_the_pictures_masks() {
    let pictures = pictures();
    let mut file = Vec::new();
    let written = coco::write(&mut file, named(&pictures)).unwrap();
    let read: Value = serde_json::from_slice(&file).unwrap();
    let images = read["images"].as_array().unwrap();
    assert_eq!(images.len(), scenes(&pictures).len());
    assert_eq!(written.images, images.len());
    assert_eq!(images[0]["file_name"], "images/00/000000.png");
    assert_eq!(read["categories"][0]["name"], "ball");
    assert_eq!(read["categories"].as_array().unwrap().len(), 6);

    let annotations: Vec<Annotation> = serde_json::from_value(read["annotations"].clone()).unwrap();
    let objects = objects(&pictures);
    assert_eq!(annotations.len(), objects.len());
    assert_eq!(written.annotations, objects.len());
    let mut with_holes = 0;
    for (number, (annotation, (image, object, own))) in annotations.iter().zip(&objects).enumerate()
    {
        assert_eq!(annotation.id, number as u64 + 1);
        assert_eq!(annotation.image_id, *image);
        assert_eq!(annotation.category_id, category_id(object.shape));
        assert_eq!(annotation.area, f64::from(object.visible));
        assert_eq!(annotation.iscrowd, 0);
        let [left, top, width, height] = annotation.bbox;
        assert_eq!((left, top), (object.box2d.left, object.box2d.top));
        assert_eq!(left + width, object.box2d.right);
        assert_eq!(top + height, object.box2d.bottom);
        assert_eq!(&annotation.rle.expand().unwrap().to_mask().unwrap(), own);
        match &annotation.segmentation {
            Segmentation::Polygons(polygons) => assert_eq!(&fill(polygons), own),
            Segmentation::Runs(runs) => {
                assert_eq!(&runs.to_mask().unwrap(), own);
                with_holes += 1;
            }
        }
    }
    assert!(with_holes > 0, "no ring among the pictures");
}

#[test]
fn ade20k_pixels_and_objects_agree() {
    let folder = tempfile::tempdir().unwrap();
    let pictures = pictures();
    ade20k::write(folder.path(), named(&pictures)).unwrap();
    assert!(
        !folder.path().join("000002.json").exists(),
        "a word has no objects"
    );
    let classes = std::fs::read_to_string(folder.path().join("objectInfo.txt")).unwrap();
    assert!(classes.contains("6\tring"));
    for (id, picture, scene) in scenes(&pictures) {
        let stem = format!("{:06}", id - 1);
        let text = std::fs::read(folder.path().join(format!("{stem}.json"))).unwrap();
        let file: ade20k::File = serde_json::from_slice(&text).unwrap();
        assert_eq!(file.annotation.imsize, [SIDE as u32, SIDE as u32, 3]);
        assert_eq!(file.annotation.folder, "images/00");
        let mut ranks: Vec<u32> = Vec::new();
        for (entry, object) in file.annotation.object.iter().zip(&scene.objects) {
            assert_eq!(entry.raw_name, object.shape.name());
            assert_eq!(entry.occluded == "yes", object.visible < object.covered);
            assert_eq!(entry.parts.part_level, 0);
            let (low, high) = (entry.polygon.x.iter().min(), entry.polygon.x.iter().max());
            assert!(f64::from(*low.unwrap()) >= object.box2d.left);
            assert!(f64::from(*high.unwrap()) <= object.box2d.right);
            ranks.push(entry.depth_ordering_rank);
        }
        ranks.sort_unstable();
        assert_eq!(ranks, (1..=scene.objects.len() as u32).collect::<Vec<_>>());

        let path = folder.path().join(format!("{stem}_seg.png"));
        let source: ImageSource = path.to_str().unwrap().parse().unwrap();
        let seg = load(&source, &ImageLimits::default()).unwrap();
        for (pixel, owner) in seg.data().chunks(3).zip(&picture.mask) {
            let class = u32::from(pixel[0]) / 10 * 256 + u32::from(pixel[1]);
            let object = usize::from(*owner)
                .checked_sub(1)
                .map(|index| &scene.objects[index]);
            assert_eq!(class, object.map_or(0, |object| category_id(object.shape)));
            assert_eq!(pixel[2], *owner);
        }
    }
}

#[test]
fn omni3d_boxes_follow_from_rotation_and_project_onto_the_picture() {
    let pictures = pictures();
    let mut file = Vec::new();
    omni3d::write(&mut file, "test", named(&pictures)).unwrap();
    let read: Value = serde_json::from_slice(&file).unwrap();
    let images: Vec<omni3d::Image> = serde_json::from_value(read["images"].clone()).unwrap();
    let annotations: Vec<omni3d::Annotation> =
        serde_json::from_value(read["annotations"].clone()).unwrap();
    let objects = objects(&pictures);
    assert_eq!(annotations.len(), objects.len());
    // Half extents along the object's own x (length), y (height), z (width), in order of corners.
    const SIGNS: [[f64; 3]; 8] = [
        [-1.0, -1.0, -1.0],
        [1.0, -1.0, -1.0],
        [1.0, 1.0, -1.0],
        [-1.0, 1.0, -1.0],
        [-1.0, -1.0, 1.0],
        [1.0, -1.0, 1.0],
        [1.0, 1.0, 1.0],
        [-1.0, 1.0, 1.0],
    ];
    for (annotation, (image, object, _)) in annotations.iter().zip(&objects) {
        assert_eq!(annotation.image_id, *image);
        let image = images
            .iter()
            .find(|image| image.id == annotation.image_id)
            .unwrap();
        let [width, height, length] = annotation.dimensions;
        let half = [length / 2.0, height / 2.0, width / 2.0];
        for (corner, signs) in annotation.bbox3D_cam.iter().zip(SIGNS) {
            for axis in 0..3 {
                let turned: f64 = (0..3)
                    .map(|own| annotation.R_cam[axis][own] * signs[own] * half[own])
                    .sum();
                let expected = annotation.center_cam[axis] + turned;
                assert!((corner[axis] - expected).abs() < 1e-9, "{annotation:?}");
            }
            let u = image.K[0][0] * corner[0] / corner[2] + image.K[0][2];
            let v = image.K[1][1] * corner[1] / corner[2] + image.K[1][2];
            let [left, top, right, bottom] = annotation.bbox2D_proj;
            assert!(u >= left - 1e-9 && u <= right + 1e-9);
            assert!(v >= top - 1e-9 && v <= bottom + 1e-9);
        }
        assert!((annotation.center_cam[2] - object.depth).abs() < 1e-9);
        assert_eq!(annotation.bbox2D_proj, annotation.bbox2D_trunc);
        assert_eq!(annotation.truncation, 0.0);
        // What is visible lies within the projected box, to the pixel.
        let [left, top, right, bottom] = annotation.bbox2D_tight;
        let around = annotation.bbox2D_proj;
        assert!(left >= around[0] - 1.0 && top >= around[1] - 1.0);
        assert!(right <= around[2] + 1.0 && bottom <= around[3] + 1.0);
        assert!(annotation.valid3D && !annotation.behind_camera);
        assert!((0.35..=1.0).contains(&annotation.visibility));
    }
}

#[test]
fn a_file_about_nothing_is_still_a_file() {
    let mut file = Vec::new();
    coco::write(&mut file, std::iter::empty()).unwrap();
    let read: Value = serde_json::from_slice(&file).unwrap();
    assert_eq!(read["annotations"], Value::Array(Vec::new()));
    assert_eq!(read["images"], Value::Array(Vec::new()));
}
