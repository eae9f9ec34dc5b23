//! Relative distance: which of two objects is closer to a third; all of different classes.
//!
//! The largest distance of a corner of one from the anchor must be smaller than the smallest of the
//! other, by an offset.

use super::{Form, Found, Scene, clearly_nearer};
use crate::geometry::{Box2, Solid};
use crate::rules::Anchor;
use crate::select::Fate;
use crate::source::Instance;

pub(super) fn candidates(scene: &Scene<'_>) -> Found {
    let objects = &scene.picture.instances;
    let states: Vec<State<'_>> = objects.iter().map(|object| scene.solid(object)).collect();
    let mut found = Vec::new();
    for (anchor, third) in objects.iter().enumerate() {
        let reference = states
            .get(anchor)
            .copied()
            .unwrap_or(Err(Fate::FaultyAnnotation));
        let points = reference.map(|(_, solid)| points(solid, scene.rules.distance.anchor));
        let ranges: Vec<Option<[f64; 2]>> = states
            .iter()
            .map(|state| Some(state.ok()?.1.range_from(points.as_deref().ok()?)))
            .collect();
        let place = reference.map(|(place, _)| place);
        for a in others(objects, third) {
            for b in others(objects, third).filter(|b| b.0 > a.0 && b.1.class != a.1.class) {
                let range = |index: usize| ranges.get(index).copied().flatten();
                let pair = [(a, states.get(a.0)), (b, states.get(b.0))];
                let ranges = [range(a.0), range(b.0)];
                found.push(triple(scene, (anchor, third, place), pair, ranges));
            }
        }
    }
    found
}

/// The box and solid of an object, or why it cannot be asked about.
type State<'a> = Result<(&'a Box2, &'a Solid), Fate>;
/// An object and its place among the picture's.
type Indexed<'a> = (usize, &'a Instance);

fn others<'a>(
    objects: &'a [Instance],
    third: &'a Instance,
) -> impl Iterator<Item = Indexed<'a>> + 'a {
    let objects = objects.iter().enumerate();
    objects.filter(|(_, object)| object.class != third.class)
}

fn points(solid: &Solid, anchor: Anchor) -> Vec<[f64; 3]> {
    match anchor {
        Anchor::Vertices => solid.corners().to_vec(),
        Anchor::Centre => vec![solid.centre()],
    }
}

fn triple(
    scene: &Scene<'_>,
    (anchor, third, place): (usize, &Instance, Result<&Box2, Fate>),
    pair: [(Indexed<'_>, Option<&State<'_>>); 2],
    ranges: [Option<[f64; 2]>; 2],
) -> Result<Form, Fate> {
    let place = place?;
    let [((a, one), state_a), ((b, other), state_b)] = pair;
    let state = |state: Option<&State<'_>>| {
        let state = state.copied().unwrap_or(Err(Fate::FaultyAnnotation));
        state.map(|(place, _)| *place)
    };
    let (place_a, place_b) = (state(state_a)?, state(state_b)?);
    let named = [&third.class, &one.class, &other.class];
    if scene.similar(named[0], named[1])
        || scene.similar(named[0], named[2])
        || scene.similar(named[1], named[2])
    {
        return Err(Fate::SimilarClass);
    }
    if scene.coincide(place, &place_a)
        || scene.coincide(place, &place_b)
        || scene.coincide(&place_a, &place_b)
    {
        return Err(Fate::BoxesCoincide);
    }
    let [Some(from_a), Some(from_b)] = ranges else {
        return Err(Fate::FaultyAnnotation);
    };
    let rules = &scene.rules.distance;
    if clearly_nearer(from_a, from_b, rules.metres, rules.share) {
        Ok(Form::Distance {
            anchor,
            near: a,
            far: b,
        })
    } else if clearly_nearer(from_b, from_a, rules.metres, rules.share) {
        Ok(Form::Distance {
            anchor,
            near: b,
            far: a,
        })
    } else {
        Err(Fate::WithinOffset)
    }
}
