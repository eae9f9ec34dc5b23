//! Referring expressions: words that fit exactly the objects that are meant.
//!
//! A question about *the red ball* is only fair where there is one. [`single_out`] looks for a
//! description that fits one object of a scene and no other; what a question asks for (the colour,
//! the shape) can be kept out of it.

use rand_chacha::ChaCha8Rng;

use super::wording::{self, weighted, with_article};
use crate::truth::{Colour, Material, Object, Scene, Shape, Size};

/// What can be said about an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// Small or large.
    Size,
    /// One of eight colours.
    Colour,
    /// Rubber or metal.
    Material,
    /// Ball, cube, ….
    Shape,
}

/// Some attributes of an object, as they are said: *large red metal ball*, *red object*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Said first.
    pub size: Option<Size>,
    /// Said second.
    pub colour: Option<Colour>,
    /// Said third.
    pub material: Option<Material>,
    /// The noun; without it the noun is *object*.
    pub shape: Option<Shape>,
}

/// Ways to name an object, and how often each is tried first.
const NAMES: [(&[Attribute], u32); 8] = [
    (&[Attribute::Colour, Attribute::Shape], 8),
    (&[Attribute::Shape], 3),
    (&[Attribute::Colour], 2),
    (&[Attribute::Size, Attribute::Shape], 2),
    (&[Attribute::Size, Attribute::Colour, Attribute::Shape], 2),
    (&[Attribute::Material, Attribute::Shape], 1),
    (
        &[Attribute::Colour, Attribute::Material, Attribute::Shape],
        1,
    ),
    (
        &[
            Attribute::Size,
            Attribute::Colour,
            Attribute::Material,
            Attribute::Shape,
        ],
        1,
    ),
];

/// Whether a picture shows these attributes: not every picture shows sizes.
pub fn shown(scene: &Scene, attributes: &[Attribute]) -> bool {
    scene.shows_sizes() || !attributes.contains(&Attribute::Size)
}

impl Description {
    /// Says these attributes of an object.
    pub fn of(object: &Object, attributes: &[Attribute]) -> Self {
        let said = |attribute| attributes.contains(&attribute);
        Self {
            size: said(Attribute::Size).then_some(object.size),
            colour: said(Attribute::Colour).then_some(object.colour),
            material: said(Attribute::Material).then_some(object.material),
            shape: said(Attribute::Shape).then_some(object.shape),
        }
    }

    /// Whether the object is what is described.
    pub fn fits(&self, object: &Object) -> bool {
        self.size.is_none_or(|size| size == object.size)
            && self.colour.is_none_or(|colour| colour == object.colour)
            && self
                .material
                .is_none_or(|material| material == object.material)
            && self.shape.is_none_or(|shape| shape == object.shape)
    }

    /// How many objects of the scene it fits.
    pub fn count(&self, scene: &Scene) -> usize {
        scene
            .objects
            .iter()
            .filter(|object| self.fits(object))
            .count()
    }

    /// Without an article: `large red ball`.
    pub fn singular(&self) -> String {
        let words = [
            self.size.map(Size::name),
            self.colour.map(Colour::name),
            self.material.map(Material::name),
            Some(self.shape.map_or("object", Shape::name)),
        ];
        words.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    /// `large red balls`. All nouns of the world take an *s*.
    pub fn plural(&self) -> String {
        format!("{}s", self.singular())
    }

    /// `the large red ball`.
    pub fn the(&self) -> String {
        format!("the {}", self.singular())
    }

    /// `a large red ball`.
    pub fn a(&self) -> String {
        with_article(&self.singular())
    }

    /// `no red balls`, `one red ball`, `three red balls`.
    pub fn numbered(&self, count: usize) -> String {
        match count {
            0 => format!("no {}", self.plural()),
            1 => format!("one {}", self.singular()),
            _ => format!("{} {}", wording::number(count), self.plural()),
        }
    }
}

/// A description that fits this object alone and does not say `hidden`; `None` if there is none.
pub fn single_out(
    scene: &Scene,
    object: &Object,
    hidden: Option<Attribute>,
    random: &mut ChaCha8Rng,
) -> Option<Description> {
    let usable = |attributes: &[Attribute]| {
        hidden.is_none_or(|hidden| !attributes.contains(&hidden))
            && shown(scene, attributes)
            && Description::of(object, attributes).count(scene) == 1
    };
    let names: Vec<(&[Attribute], u32)> = match hidden {
        // Every name above has a noun; where the shape is asked for, the noun is *object*.
        Some(Attribute::Shape) => vec![
            (&[Attribute::Colour], 8),
            (&[Attribute::Size, Attribute::Colour], 2),
            (&[Attribute::Colour, Attribute::Material], 1),
            (&[Attribute::Size], 1),
            (&[Attribute::Material], 1),
        ],
        _ => NAMES.to_vec(),
    };
    let usable: Vec<(&[Attribute], u32)> = names
        .into_iter()
        .filter(|(attributes, _)| usable(attributes))
        .collect();
    weighted(&usable, random).map(|attributes| Description::of(object, attributes))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::question::tests::{object, scene};

    #[test]
    fn words_come_in_the_usual_order() {
        let ball = object(Shape::Ball, Colour::Orange, 0.0);
        let all = [
            Attribute::Shape,
            Attribute::Material,
            Attribute::Colour,
            Attribute::Size,
        ];
        let said = Description::of(&ball, &all);
        assert_eq!(said.singular(), "small orange rubber ball");
        assert_eq!(said.numbered(0), "no small orange rubber balls");
        let orange = Description::of(&ball, &[Attribute::Colour]);
        assert_eq!(orange.a(), "an orange object");
        assert_eq!(orange.numbered(1), "one orange object");
        assert_eq!(orange.numbered(2), "two orange objects");
    }

    /// Two red balls and a red cube: only the cube can be named, and never by its colour alone.
    #[test]
    fn a_name_fits_one_object_alone() {
        let scene = scene(vec![
            object(Shape::Ball, Colour::Red, -1.0),
            object(Shape::Ball, Colour::Red, 0.0),
            object(Shape::Cube, Colour::Red, 1.0),
        ]);
        let mut random = ChaCha8Rng::seed_from_u64(0);
        for _ in 0..100 {
            assert_eq!(
                single_out(&scene, &scene.objects[0], None, &mut random),
                None
            );
            let cube = single_out(&scene, &scene.objects[2], None, &mut random).unwrap();
            assert_eq!(cube.count(&scene), 1);
            assert_eq!(cube.shape, Some(Shape::Cube));
        }
    }

    #[test]
    fn what_is_asked_for_is_not_said() {
        let scene = scene(vec![
            object(Shape::Ball, Colour::Red, -1.0),
            object(Shape::Cube, Colour::Blue, 1.0),
        ]);
        let mut random = ChaCha8Rng::seed_from_u64(0);
        for _ in 0..100 {
            let object = &scene.objects[0];
            let name = single_out(&scene, object, Some(Attribute::Colour), &mut random).unwrap();
            assert_eq!((name.colour, name.shape), (None, Some(Shape::Ball)));
            let name = single_out(&scene, object, Some(Attribute::Shape), &mut random).unwrap();
            assert_eq!((name.colour, name.shape), (Some(Colour::Red), None));
        }
    }
}
