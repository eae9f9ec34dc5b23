//! What holds for every picture of the world, whatever its seed.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;

use opabinia_world::truth::{Box2d, Camera, Document, Object, Picture, Scene, Shape, Truth};
use opabinia_world::{PictureOptions, Subject, draw};
use proptest::prelude::*;

fn options(side: u32) -> PictureOptions {
    PictureOptions {
        side,
        ..PictureOptions::default()
    }
}

fn scene(picture: &Picture) -> &Scene {
    match &picture.truth {
        Truth::Scene(scene) => scene,
        other => panic!("{other:?} is no scene"),
    }
}

/// Box and number of the pixels that a mask gives to an object.
fn extent(mask: &[u8], side: usize, owner: usize) -> (Box2d, u32) {
    let own = (0..mask.len()).filter(|at| usize::from(mask[*at]) == owner + 1);
    let columns: Vec<usize> = own.clone().map(|at| at % side).collect();
    let rows: Vec<usize> = own.map(|at| at / side).collect();
    let found = Box2d {
        left: *columns.iter().min().unwrap() as f64,
        top: *rows.iter().min().unwrap() as f64,
        right: *columns.iter().max().unwrap() as f64 + 1.0,
        bottom: *rows.iter().max().unwrap() as f64 + 1.0,
    };
    (found, columns.len() as u32)
}

/// Radius of the disc on the ground above which an object stays.
fn reach(object: &Object) -> f64 {
    match object.shape {
        Shape::Cube | Shape::Pyramid => object.extent[0].hypot(object.extent[1]) / 2.0,
        _ => object.extent[0] / 2.0,
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for subject in Subject::ALL {
        let first = draw(11, subject, &options(128));
        let again = draw(11, subject, &options(128));
        assert_eq!(first.pixels, again.pixels, "{subject:?}");
        assert_eq!(first.mask, again.mask);
        assert_eq!(first.truth, again.truth);
        let other = draw(12, subject, &options(128));
        assert_ne!(first.pixels, other.pixels, "{subject:?}");
    }
}

/// A close-up shows one object in at least a third of its width, whole, and nobody asks for its size.
#[test]
fn close_ups_are_close() {
    for seed in 0..60 {
        let picture = draw(seed, Subject::CloseUp, &options(128));
        let scene = scene(&picture);
        assert!(scene.close_up);
        assert_eq!(scene.objects.len(), 1, "seed {seed}");
        let object = &scene.objects[0];
        let (found, _) = extent(&picture.mask, 128, 0);
        assert_eq!(found, object.box2d, "seed {seed}");
        let span = (found.right - found.left).max(found.bottom - found.top);
        assert!(span >= 40.0, "seed {seed}: {span} of 128 pixels");
        let middle = scene.camera.project(object.centre).unwrap();
        assert!(middle[0] > found.left && middle[0] < found.right);
    }
}

#[test]
fn threads_do_not_matter() {
    let alone: Vec<String> = (0..8)
        .map(|seed| {
            draw(seed, Subject::Scene, &options(64))
                .pixels
                .content_hash()
        })
        .collect();
    let handles: Vec<_> = (0..8)
        .map(|seed| {
            std::thread::spawn(move || {
                draw(seed, Subject::Scene, &options(64))
                    .pixels
                    .content_hash()
            })
        })
        .collect();
    let together: Vec<String> = handles
        .into_iter()
        .map(|each| each.join().unwrap())
        .collect();
    assert_eq!(alone, together);
}

#[test]
fn unreasonable_sides_are_brought_into_range() {
    let picture = draw(0, Subject::Word, &options(1));
    assert_eq!(picture.pixels.size(), (64, 64));
}

#[test]
fn every_side_has_scenes() {
    for side in [64, 128, 384] {
        for seed in 0..5 {
            let picture = draw(seed, Subject::Scene, &options(side));
            assert_eq!(picture.pixels.size(), (side, side));
            assert!(!scene(&picture).objects.is_empty(), "{side}, seed {seed}");
        }
    }
}

/// Counting questions need every answer from 1 to 6, and places everywhere.
#[test]
fn scenes_are_varied() {
    let (mut counts, mut largest_groups) = (BTreeMap::new(), BTreeMap::new());
    let (mut left, mut near, mut hidden, mut objects) = (0, 0, 0, 0);
    for seed in 0..200 {
        let picture = draw(seed, Subject::Scene, &options(128));
        let scene = scene(&picture);
        *counts.entry(scene.objects.len()).or_insert(0) += 1;
        let mut groups = BTreeMap::new();
        for object in &scene.objects {
            *groups.entry((object.shape, object.colour)).or_insert(0) += 1;
            let middle = (object.box2d.left + object.box2d.right) / 2.0;
            left += usize::from(middle < 64.0);
            near += usize::from(object.depth < 3.5);
            hidden += usize::from(object.visible < object.covered);
            objects += 1;
        }
        *largest_groups
            .entry(groups.into_values().max().unwrap())
            .or_insert(0) += 1;
    }
    for count in 1..=7 {
        assert!(counts.get(&count).is_some_and(|n| *n >= 6), "{counts:?}");
    }
    for group in 1..=5 {
        assert!(
            largest_groups.get(&group).is_some_and(|n| *n >= 4),
            "{largest_groups:?}"
        );
    }
    let share = |part: usize| part as f64 / objects as f64;
    assert!((0.4..0.6).contains(&share(left)), "{}", share(left));
    assert!((0.25..0.75).contains(&share(near)), "{}", share(near));
    assert!(share(hidden) > 0.08, "{}", share(hidden));
}

/// Depth at which the ray through the middle of a pixel enters a ball, from the definition of both.
fn depth_of_ball(camera: &Camera, ball: &Object, x: usize, y: usize) -> Option<f64> {
    let direction = [
        (x as f64 + 0.5 - camera.centre[0]) / camera.focal,
        (y as f64 + 0.5 - camera.centre[1]) / camera.focal,
        1.0,
    ];
    let centre = camera.to_camera(ball.centre);
    let dot = |a: [f64; 3], b: [f64; 3]| a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
    let radius = ball.extent[0] / 2.0;
    let (a, b) = (dot(direction, direction), dot(direction, centre));
    let discriminant = b * b - a * (dot(centre, centre) - radius * radius);
    (discriminant >= 0.0).then(|| (b - discriminant.sqrt()) / a)
}

/// Where balls overlap in the picture, the nearest is seen, unless something else hides it.
#[test]
fn at_an_overlap_the_nearer_object_is_seen() {
    let side = 128;
    let mut overlaps = 0;
    for seed in 0..100 {
        let picture = draw(seed, Subject::Scene, &options(side as u32));
        let scene = scene(&picture);
        let is_ball = |object: &Object| object.shape == Shape::Ball;
        if scene
            .objects
            .iter()
            .filter(|object| is_ball(object))
            .count()
            < 2
        {
            continue;
        }
        for (at, owner) in picture.mask.iter().enumerate() {
            let Some(owner) = usize::from(*owner).checked_sub(1) else {
                continue;
            };
            let balls = scene.objects.iter().enumerate();
            let mut hits: Vec<(f64, usize)> = balls
                .filter(|(_, object)| is_ball(object))
                .filter_map(|(index, ball)| {
                    let depth = depth_of_ball(&scene.camera, ball, at % side, at / side)?;
                    Some((depth, index))
                })
                .collect();
            hits.sort_by(|a, b| a.0.total_cmp(&b.0));
            if is_ball(&scene.objects[owner]) {
                assert_eq!(hits[0].1, owner, "seed {seed}, pixel {at}");
                overlaps += usize::from(hits.len() > 1);
            }
        }
    }
    assert!(overlaps > 100, "{overlaps}");
}

#[test]
fn words_are_on_their_pictures() {
    for seed in 0..30 {
        let picture = draw(seed, Subject::Word, &options(256));
        let Truth::Document(Document::Word { text }) = &picture.truth else {
            panic!("{:?}", picture.truth);
        };
        assert!((3..=8).contains(&text.len()));
        // Ink and paper differ strongly somewhere, and the border is all paper.
        let pixels = picture.pixels.data();
        let paper = i32::from(picture.pixels.pixel(0, 0).unwrap()[1]);
        let far = |channel: &u8| (i32::from(*channel) - paper).abs() > 30;
        assert!(
            pixels.iter().filter(|channel| far(channel)).count() > 60,
            "seed {seed}"
        );
        assert!(!picture.pixels.row(0).iter().any(far));
        assert!(!picture.pixels.row(255).iter().any(far));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    #[test]
    fn the_truth_of_a_scene_is_true(seed in any::<u64>()) {
        let side = 128;
        let picture = draw(seed, Subject::Scene, &options(side));
        let scene = scene(&picture);
        let scale = f64::from(side) / 256.0;
        prop_assert_eq!(picture.mask.len(), (side * side) as usize);
        prop_assert!((1..=8).contains(&scene.objects.len()));
        let highest = picture.mask.iter().max().copied().unwrap();
        prop_assert_eq!(usize::from(highest), scene.objects.len());
        for (index, object) in scene.objects.iter().enumerate() {
            let (found, visible) = extent(&picture.mask, side as usize, index);
            prop_assert_eq!(object.box2d, found);
            prop_assert_eq!(object.visible, visible);
            prop_assert!(object.visible <= object.covered);
            prop_assert!(f64::from(visible) >= 0.35 * f64::from(object.covered));
            prop_assert!(f64::from(visible) >= 120.0 * scale * scale);
            prop_assert!((object.centre[2] - object.extent[2] / 2.0).abs() < 1e-9);
            let depth = scene.camera.to_camera(object.centre)[2];
            prop_assert!((object.depth - depth).abs() < 1e-9);
            for corner in object.corners() {
                let [x, y] = scene.camera.project(corner).unwrap();
                prop_assert!((0.0..=f64::from(side)).contains(&x));
                prop_assert!((0.0..=f64::from(side)).contains(&y));
                prop_assert!(x >= 0.0 && y >= 0.0);
            }
            for other in &scene.objects[index + 1..] {
                let (dx, dy) = (
                    object.centre[0] - other.centre[0],
                    object.centre[1] - other.centre[1],
                );
                prop_assert!(dx.hypot(dy) > reach(object) + reach(other));
            }
        }
    }

    #[test]
    fn flat_pictures_have_no_mask(seed in any::<u64>(), subject in 2usize..9) {
        let picture = draw(seed, Subject::ALL[subject], &options(64));
        prop_assert!(picture.mask.is_empty());
        prop_assert_eq!(picture.seed, seed);
    }
}

/// A limit on objects holds, and leaves other subjects as they are.
#[test]
fn a_scene_has_no_more_objects_than_allowed() {
    let few = PictureOptions {
        objects: 2,
        ..options(64)
    };
    for seed in 0..40 {
        let Truth::Scene(scene) = draw(seed, Subject::Scene, &few).truth else {
            panic!("asked for a scene")
        };
        assert!((1..=2).contains(&scene.objects.len()), "{seed}");
        let [limited, free] = [few, options(64)].map(|options| draw(seed, Subject::Bar, &options));
        assert_eq!(limited.pixels, free.pixels);
    }
}
