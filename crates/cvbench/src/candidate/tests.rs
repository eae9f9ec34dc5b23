//! Small scenes whose fates can be seen by eye.

use super::*;
use crate::geometry::Solid;
use crate::source::Annotated;

/// A thing of a class in a picture of 100 × 100.
fn thing(class: &str, corners: [f64; 4]) -> Instance {
    Instance {
        class: class.to_owned(),
        group: class.to_owned(),
        place: Box2::within(corners, 100, 100),
        crowd: false,
        solid: None,
        ignored: None,
    }
}

/// A cube of side 1 whose near face is `z` before the camera, `x` to the right.
fn solid(class: &str, x: f64, z: f64) -> Instance {
    let corners = [0, 1, 2, 3, 4, 5, 6, 7].map(|bits: u8| {
        let half = |bit: u8| if bits >> bit & 1 == 0 { -0.5 } else { 0.5 };
        [x + half(0), half(1), z + 0.5 + half(2)]
    });
    let left = 40.0 + 8.0 * x;
    Instance {
        solid: Solid::new(corners),
        ..thing(class, [left, 10.0, left + 20.0, 30.0 + z])
    }
}

fn picture(family: Family, instances: Vec<Instance>) -> Annotated {
    Annotated {
        family,
        collection: family.name().to_owned(),
        name: "picture.png".to_owned(),
        path: "picture.png".into(),
        width: 100,
        height: 100,
        words: instances.iter().map(|one| one.class.clone()).collect(),
        instances,
        unclear: false,
    }
}

fn found(task: Task, picture: &Annotated) -> Pool {
    pool(
        task,
        std::slice::from_ref(picture),
        &BTreeSet::new(),
        &Rules::default(),
    )
}

/// The one fate of a picture's candidates.
#[track_caller]
fn fate(task: Task, family: Family, instances: Vec<Instance>) -> Fate {
    let pool = found(task, &picture(family, instances));
    assert!(pool.candidates.is_empty(), "{pool:?}");
    let fates: Vec<Fate> = pool.dropped.keys().map(|(_, fate)| *fate).collect();
    assert_eq!(fates.len(), 1, "{fates:?}");
    fates[0]
}

const LEFT: [f64; 4] = [0.0, 40.0, 20.0, 60.0];
const RIGHT: [f64; 4] = [70.0, 40.0, 90.0, 60.0];
const TOP: [f64; 4] = [70.0, 0.0, 90.0, 20.0];

#[test]
fn sides_are_seen_from_the_other() {
    let pool = found(
        Task::Relation,
        &picture(Family::Coco, vec![thing("cat", LEFT), thing("dog", TOP)]),
    );
    let [candidate] = &pool.candidates[..] else {
        panic!("{pool:?}")
    };
    let Form::Relation {
        first,
        answers,
        boxed,
        ..
    } = &candidate.form
    else {
        panic!()
    };
    assert_eq!((*first, *boxed), (0, false), "the cat");
    assert_eq!(answers, &[Side::Left, Side::Below]);
}

#[test]
fn one_of_several_has_a_box() {
    let things = vec![thing("cat", LEFT), thing("dog", RIGHT), thing("dog", TOP)];
    let pool = found(Task::Relation, &picture(Family::Coco, things));
    let [candidate] = &pool.candidates[..] else {
        panic!("{pool:?}")
    };
    assert!(matches!(
        &candidate.form,
        Form::Relation { first: 1, second: 0, boxed: true, answers } if answers == &[Side::Right]
    ));
}

#[test]
fn filters_of_relation() {
    let check = |a: Instance, b: Instance| fate(Task::Relation, Family::Coco, vec![a, b]);
    let cat = || thing("cat", LEFT);
    let crowd = Instance {
        crowd: true,
        ..thing("dog", RIGHT)
    };
    let broken = Instance {
        place: None,
        ..thing("dog", RIGHT)
    };
    let same_group = Instance {
        group: "cat".into(),
        ..thing("kitty", RIGHT)
    };
    assert_eq!(check(cat(), crowd), Fate::Crowd);
    assert_eq!(check(cat(), broken), Fate::FaultyAnnotation);
    assert_eq!(check(cat(), same_group), Fate::SimilarClass);
    assert_eq!(check(cat(), thing("big cat", RIGHT)), Fate::SimilarClass);
    assert_eq!(check(cat(), thing("wall", RIGHT)), Fate::ExcludedClass);
    assert_eq!(
        check(cat(), thing("dog", [70.0, 40.0, 80.0, 60.0])),
        Fate::TooSmall
    );
    assert_eq!(
        check(cat(), thing("dog", [10.0, 10.0, 90.0, 90.0])),
        Fate::TooLarge
    );
    assert_eq!(check(cat(), thing("dog", LEFT)), Fate::BoxesCoincide);
    // Beside each other, but the middles are 17 % apart.
    assert_eq!(
        check(cat(), thing("dog", [15.0, 45.0, 39.0, 69.0])),
        Fate::NoClearAxis
    );
    let pairs = [
        ("cat", LEFT),
        ("dog", RIGHT),
        ("cat", TOP),
        ("dog", [0.0, 0.0, 20.0, 20.0]),
    ];
    let pairs = pairs.map(|(class, corners)| thing(class, corners)).to_vec();
    assert_eq!(
        fate(Task::Relation, Family::Coco, pairs),
        Fate::SeveralOfBoth
    );
}

#[test]
fn counts_and_what_drops_them() {
    let things = vec![thing("cat", LEFT), thing("cat", RIGHT), thing("wall", TOP)];
    let pool = found(Task::Count, &picture(Family::Ade20k, things));
    assert_eq!(pool.candidates.len(), 1);
    assert_eq!(
        pool.candidates[0].form,
        Form::Count {
            class: "cat".into(),
            count: 2,
            smallest: Some(400.0),
        }
    );
    assert_eq!(pool.dropped.len(), 1, "the wall");
    let check = |things: Vec<Instance>| fate(Task::Count, Family::Coco, things);
    let again = [0.0, 40.0, 20.0, 61.0];
    assert_eq!(
        check(vec![thing("cat", LEFT), thing("cat", again)]),
        Fate::DuplicateBoxes
    );
    assert_eq!(
        check(vec![
            thing("cat", LEFT),
            thing("cat", [0.0, 0.0, 7.0, 50.0])
        ]),
        Fate::TooSmall
    );
    assert_eq!(
        check(vec![thing("table", LEFT), thing("coffee table", RIGHT)]),
        Fate::SimilarClass
    );
    let many = (0..13).map(|n| {
        let (left, top) = (20.0 * f64::from(n % 5), 20.0 * f64::from(n / 5));
        thing("cat", [left, top, left + 10.0, top + 10.0])
    });
    assert_eq!(check(many.collect()), Fate::TooMany);
}

/// A class that is elsewhere is counted as 0, unless a part of something has its name.
#[test]
fn what_is_absent() {
    let car = Annotated {
        words: ["car", "wheel"].map(str::to_owned).into(),
        ..picture(Family::Ade20k, vec![thing("car", LEFT)])
    };
    let other = Annotated {
        name: "other.png".into(),
        ..picture(Family::Ade20k, vec![thing("wheel", LEFT)])
    };
    let pool = pool(
        Task::Count,
        &[car, other],
        &BTreeSet::new(),
        &Rules::default(),
    );
    let zeros = pool
        .candidates
        .iter()
        .filter(|one| matches!(&one.form, Form::Count { class, count: 0, .. } if class == "car"));
    assert_eq!(zeros.count(), 1, "there is no car in the other picture");
    assert_eq!(
        pool.dropped[&("ADE20K".to_owned(), Fate::SimilarClass)],
        1,
        "the wheel"
    );
}

/// Faces at 3 and 5: the far corner of the first is at √(4² + 0.5) = 4.06, so 0.44 behind the second
/// at 4.5 is not enough, and at 5 it is.
#[test]
fn depth_needs_an_offset() {
    let of = |z: f64| vec![solid("cube", 0.0, 3.0), solid("ball", 1.0, z)];
    let pool = found(Task::Depth, &picture(Family::Omni3D, of(5.0)));
    assert_eq!(pool.candidates[0].form, Form::Depth { near: 0, far: 1 });
    assert_eq!(
        fate(Task::Depth, Family::Omni3D, of(4.5)),
        Fate::WithinOffset
    );
    let mut ignored = of(5.0);
    ignored[1].ignored = Some("truncated");
    assert_eq!(fate(Task::Depth, Family::Omni3D, ignored), Fate::Ignored);
}

#[test]
fn distance_needs_three_classes() {
    let things = vec![
        solid("cube", 0.0, 5.0),
        solid("ball", 1.5, 5.0),
        solid("cone", -4.0, 5.0),
    ];
    let pool = found(Task::Distance, &picture(Family::Omni3D, things.clone()));
    let forms: Vec<&Form> = pool.candidates.iter().map(|one| &one.form).collect();
    assert!(
        forms.contains(&&Form::Distance {
            anchor: 0,
            near: 1,
            far: 2
        }),
        "{forms:?}"
    );
    let two = found(
        Task::Distance,
        &picture(Family::Omni3D, things[..2].to_vec()),
    );
    assert!(two.candidates.is_empty() && two.dropped.is_empty());
    let none = found(Task::Distance, &picture(Family::Coco, things));
    assert!(none.candidates.is_empty(), "3D questions want Omni3D");
}
