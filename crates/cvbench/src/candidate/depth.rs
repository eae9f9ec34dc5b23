//! Depth order: which of two objects of different classes is closer to the camera.
//!
//! The farthest corner of one must be nearer than the nearest corner of the other, by an offset; the
//! distance is Euclidean.

use super::{Form, Found, Scene, clearly_nearer};
use crate::select::Fate;
use crate::source::Instance;

pub(super) fn candidates(scene: &Scene<'_>) -> Found {
    let objects: Vec<(usize, &Instance)> = scene.picture.instances.iter().enumerate().collect();
    let mut found = Vec::new();
    for (place, a) in objects.iter().enumerate() {
        for b in objects.iter().skip(place + 1) {
            if a.1.class != b.1.class {
                found.push(pair(scene, *a, *b));
            }
        }
    }
    found
}

fn pair(
    scene: &Scene<'_>,
    (a, one): (usize, &Instance),
    (b, other): (usize, &Instance),
) -> Result<Form, Fate> {
    let (place_a, solid_a) = scene.solid(one)?;
    let (place_b, solid_b) = scene.solid(other)?;
    if scene.similar(&one.class, &other.class) {
        return Err(Fate::SimilarClass);
    }
    if scene.coincide(place_a, place_b) {
        return Err(Fate::BoxesCoincide);
    }
    let camera = [[0.0; 3]];
    let (from_a, from_b) = (solid_a.range_from(&camera), solid_b.range_from(&camera));
    let rules = &scene.rules.depth;
    if clearly_nearer(from_a, from_b, rules.metres, rules.share) {
        Ok(Form::Depth { near: a, far: b })
    } else if clearly_nearer(from_b, from_a, rules.metres, rules.share) {
        Ok(Form::Depth { near: b, far: a })
    } else {
        Err(Fate::WithinOffset)
    }
}
