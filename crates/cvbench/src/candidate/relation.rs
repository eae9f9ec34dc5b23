//! Spatial relationship: on which side of one thing another is.
//!
//! One candidate per pair of classes. What the other is compared with must be the only one of its
//! class; the other may be one of several and then has a red box. An axis is clear if the boxes do not
//! overlap on it and their middles are far enough apart.

use super::{Form, Found, Scene, Side};
use crate::geometry::Box2;
use crate::select::Fate;

pub(super) fn candidates(scene: &Scene<'_>) -> Found {
    let classes: Vec<&str> = scene.classes.keys().copied().collect();
    let mut found = Vec::new();
    for (place, a) in classes.iter().enumerate() {
        for b in classes.iter().skip(place + 1) {
            found.push(pair(scene, a, b));
        }
    }
    found
}

fn pair(scene: &Scene<'_>, a: &str, b: &str) -> Result<Form, Fate> {
    for class in [a, b] {
        if let Some(fate) = scene.class_fault(class) {
            return Err(fate);
        }
    }
    if scene.picture.unclear {
        return Err(Fate::FaultyAnnotation);
    }
    if scene.similar(a, b) {
        return Err(Fate::SimilarClass);
    }
    let (of_a, of_b) = (members(scene, a), members(scene, b));
    for class in [a, b] {
        if scene.has_duplicates(&scene.of(class)) {
            return Err(Fate::DuplicateBoxes);
        }
    }
    match (of_a, of_b) {
        ([one], [other]) => relation(scene, *one, *other, false),
        (several, [one]) | ([one], several) => boxed(scene, several, *one),
        _ => Err(Fate::SeveralOfBoth),
    }
}

fn members<'s>(scene: &'s Scene<'_>, class: &str) -> &'s [usize] {
    scene.classes.get(class).map_or(&[], Vec::as_slice)
}

/// The first of several that can be asked about; else what is wrong with the last.
fn boxed(scene: &Scene<'_>, several: &[usize], other: usize) -> Result<Form, Fate> {
    let mut fate = Fate::NoClearAxis;
    for &one in several {
        match relation(scene, one, other, true) {
            Ok(form) => return Ok(form),
            Err(found) => fate = found,
        }
    }
    Err(fate)
}

fn relation(scene: &Scene<'_>, first: usize, second: usize, boxed: bool) -> Result<Form, Fate> {
    let place = |index| {
        let instance = scene.instance(index);
        let place = instance.and_then(|instance| instance.place.as_ref());
        place.ok_or(Fate::FaultyAnnotation)
    };
    let (a, b) = (place(first)?, place(second)?);
    if let Some(fate) = scene.size_fault(a).or_else(|| scene.size_fault(b)) {
        return Err(fate);
    }
    if scene.coincide(a, b) {
        return Err(Fate::BoxesCoincide);
    }
    let answers = sides(scene, a, b);
    if answers.is_empty() {
        return Err(Fate::NoClearAxis);
    }
    Ok(Form::Relation {
        first,
        second,
        answers,
        boxed,
    })
}

/// The clear sides of `b` on which `a` is.
fn sides(scene: &Scene<'_>, a: &Box2, b: &Box2) -> Vec<Side> {
    let margin = scene.rules.relation.margin;
    let apart = |axis: usize, side: u32| {
        (a.centre()[axis] - b.centre()[axis]).abs() >= margin * f64::from(side)
    };
    let mut sides = Vec::new();
    if apart(0, scene.picture.width) {
        if a.right <= b.left {
            sides.push(Side::Left);
        } else if b.right <= a.left {
            sides.push(Side::Right);
        }
    }
    if apart(1, scene.picture.height) {
        if a.bottom <= b.top {
            sides.push(Side::Above);
        } else if b.bottom <= a.top {
            sides.push(Side::Below);
        }
    }
    sides
}
