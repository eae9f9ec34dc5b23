//! Object count: how many of a class there are, for every class in the picture and one that is not.
//!
//! A count is only certain if every object of the class has one good annotation, so one crowd, one
//! broken or tiny object or one that is there twice drops the class.

use std::collections::{BTreeMap, BTreeSet};

use rand::seq::IndexedRandom;

use super::{Form, Found, Scene};
use crate::select::Fate;
use crate::source::{Annotated, head_noun};
use crate::stream::stream;

/// The classes of each data set.
pub(super) type Vocabulary<'a> = BTreeMap<&'a str, Vec<&'a str>>;

/// The classes that a data set knows.
pub(super) fn vocabulary(pictures: &[Annotated]) -> Vocabulary<'_> {
    let mut classes: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for picture in pictures {
        let known = classes.entry(&picture.collection).or_default();
        known.extend(
            picture
                .instances
                .iter()
                .map(|instance| instance.class.as_str()),
        );
    }
    let classes = classes.into_iter();
    classes
        .map(|(collection, classes)| (collection, classes.into_iter().collect()))
        .collect()
}

pub(super) fn candidates(scene: &Scene<'_>, vocabulary: &Vocabulary<'_>) -> Found {
    let present = scene.classes.keys().map(|class| present(scene, class));
    present.chain(absent(scene, vocabulary)).collect()
}

fn present(scene: &Scene<'_>, class: &str) -> Result<Form, Fate> {
    if let Some(fate) = scene.class_fault(class) {
        return Err(fate);
    }
    if scene.picture.unclear {
        return Err(Fate::FaultyAnnotation);
    }
    let others = scene.classes.keys().filter(|other| **other != class);
    if others.into_iter().any(|other| scene.similar(class, other)) {
        return Err(Fate::SimilarClass);
    }
    let members = scene.of(class);
    let places = members.iter().filter_map(|member| member.place.as_ref());
    let (min_area, min_side) = (scene.rules.count.min_area, scene.rules.count.min_side);
    let too_small = |place: &&crate::Box2| {
        scene.share(place) < min_area || place.width().min(place.height()) < min_side
    };
    if places.clone().any(|place| too_small(&place)) {
        return Err(Fate::TooSmall);
    }
    if scene.has_duplicates(&members) {
        return Err(Fate::DuplicateBoxes);
    }
    if members.len() > scene.rules.count.max {
        return Err(Fate::TooMany);
    }
    let smallest = places.map(crate::Box2::area).min_by(f64::total_cmp);
    Ok(Form::Count {
        class: class.to_owned(),
        count: members.len(),
        smallest,
    })
}

/// A class of the data set that is not in the picture, drawn by chance.
fn absent(scene: &Scene<'_>, vocabulary: &Vocabulary<'_>) -> Option<Result<Form, Fate>> {
    let picture = scene.picture;
    let known = vocabulary.get(picture.collection.as_str())?;
    let absent = known
        .iter()
        .filter(|class| !scene.classes.contains_key(*class));
    let absent: Vec<&str> = absent.copied().collect();
    let name = format!("absent/{}/{}", picture.collection, picture.name);
    let class = *absent.choose(&mut stream(scene.rules.seed, &name))?;
    Some(absent_form(scene, class))
}

fn absent_form(scene: &Scene<'_>, class: &str) -> Result<Form, Fate> {
    if scene.is_stuff(class) {
        return Err(Fate::ExcludedClass);
    }
    if scene.picture.unclear {
        return Err(Fate::FaultyAnnotation);
    }
    // A car has wheels, and a coffee table is a table.
    let noun = head_noun(class);
    let named = |word: &String| {
        word.split_whitespace()
            .any(|part| part.to_lowercase() == noun)
    };
    if scene.picture.words.iter().any(named) {
        return Err(Fate::SimilarClass);
    }
    Ok(Form::Count {
        class: class.to_owned(),
        count: 0,
        smallest: None,
    })
}
