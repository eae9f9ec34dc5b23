//! Scenes: which objects there are, where they stand, and the picture of them.
//!
//! The draw is made so that questions about it are worth asking: counts from none to six of the
//! same thing are all common, near misses (the right colour on the wrong shape) occur on purpose,
//! and objects hide one another, but never so much that nobody could tell what is behind.

use std::f64::consts::{FRAC_PI_2, PI};
use std::ops::Range;

use opabinia_image::RgbImage;
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::render::ground::{Ground, Pattern};
use crate::render::layer::{DepthBuffer, Layer, PixelBox, boxes};
use crate::render::light::{Light, Rgb, Surface, from_srgb};
use crate::render::paint::{Piece, Stage};
use crate::render::solid::Solid;
use crate::truth::{Box2d, Camera, Colour, Material, Object, Scene, Shape, Size, Truth};

/// Side to which the numbers of pixels here refer; others are scaled.
const REFERENCE_SIDE: f64 = 256.0;
/// An object keeps at least this share of its own pixels visible.
pub const LEAST_VISIBLE_SHARE: f64 = 0.35;
/// An object keeps at least this many pixels visible at a side of 256.
pub const LEAST_VISIBLE_PIXELS: f64 = 120.0;
/// Objects stay this many pixels away from the edges at a side of 256.
const MARGIN: f64 = 2.0;
/// Objects stand at least this far from each other, in metres.
const GAP: f64 = 0.06;
/// Width of a close-up in widths of its object.
const CLOSE_UP: Range<f64> = 1.2..2.2;
/// Width of a scene in widths of all its objects together, if the picture is that wide. A scene is
/// framed like a photograph: where objects are a thing in one picture element out of thirty, a model
/// learns for very long that pictures are of floors.
const FRAMED: Range<f64> = 1.15..1.7;
/// The farthest that an object may stand, in metres.
const FARTHEST: f64 = 5.6;
/// Places tried for an object before it is left out.
const ATTEMPTS: usize = 80;
/// How often 1, 2, … 8 objects are wanted.
const COUNT_WEIGHTS: [u32; 8] = [10, 15, 17, 17, 15, 12, 8, 6];

/// An object before it has a place.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Kind {
    shape: Shape,
    colour: Colour,
    material: Material,
    size: Size,
}

/// Draws a scene of at most so many objects: pixels, mask (index of the object plus one) and truth.
pub(crate) fn draw(rng: &mut ChaCha8Rng, side: u32, objects: usize) -> (RgbImage, Vec<u8>, Truth) {
    let mut cast = draw_cast(rng);
    cast.truncate(objects);
    draw_all(rng, side, cast, false)
}

/// Draws one object that fills most of the picture: where an encoder begins to learn.
pub(crate) fn draw_close_up(rng: &mut ChaCha8Rng, side: u32) -> (RgbImage, Vec<u8>, Truth) {
    let cast = vec![draw_kind(rng)];
    draw_all(rng, side, cast, true)
}

fn draw_all(
    rng: &mut ChaCha8Rng,
    side: u32,
    cast: Vec<Kind>,
    close_up: bool,
) -> (RgbImage, Vec<u8>, Truth) {
    let camera = draw_camera(rng, side);
    let mut arrangement = Arrangement::new(side);
    for kind in cast {
        let (objects, seen) = (&arrangement.objects, &arrangement.seen);
        if let Some((object, layer)) = place(rng, &camera, side, kind, objects, seen) {
            arrangement.add(rng, object, &layer);
        }
    }
    let width = if close_up { CLOSE_UP } else { FRAMED };
    let (arrangement, camera) = arrangement.framed(rng, camera, side, width);
    arrangement.paint(rng, camera, side, close_up)
}

/// The same camera with a lens whose picture is a square around a part of its own, so many times as
/// wide as that.
fn closer(
    rng: &mut ChaCha8Rng,
    camera: &Camera,
    bounds: PixelBox,
    side: u32,
    times: Range<f64>,
) -> Camera {
    let [left, top, right, bottom] =
        [bounds.left, bounds.top, bounds.right, bounds.bottom].map(f64::from);
    let whole = f64::from(side);
    let width = ((right - left).max(bottom - top) * rng.random_range(times)).min(whole);
    let mut origin = |low: f64, high: f64| {
        let place = high - width + rng.random_range(0.1..0.9) * (width - (high - low));
        place.clamp(0.0, whole - width)
    };
    let (x, y) = (origin(left, right), origin(top, bottom));
    let zoom = whole / width;
    Camera {
        focal: camera.focal * zoom,
        centre: [(camera.centre[0] - x) * zoom, (camera.centre[1] - y) * zoom],
        ..*camera
    }
}

/// Objects that have found their places.
struct Arrangement {
    objects: Vec<Object>,
    pieces: Vec<Piece>,
    seen: DepthBuffer,
}

impl Arrangement {
    fn new(side: u32) -> Self {
        Self {
            objects: Vec::new(),
            pieces: Vec::new(),
            seen: DepthBuffer::new(side),
        }
    }

    fn add(&mut self, rng: &mut ChaCha8Rng, object: Object, layer: &Layer) {
        self.seen.add(layer);
        self.pieces.push(Piece {
            solid: solid_of(&object),
            surface: Surface::new(object.colour, object.material, rng.random_range(0.92..1.08)),
            bounds: layer.bounds,
        });
        self.objects.push(object);
    }

    /// The same objects through a longer lens, which fills the picture with them; as they are if
    /// one of them would come too near an edge.
    fn framed(
        mut self,
        rng: &mut ChaCha8Rng,
        camera: Camera,
        side: u32,
        times: Range<f64>,
    ) -> (Self, Camera) {
        let bounds = self.pieces.iter().map(|piece| piece.bounds);
        let Some(bounds) = bounds.reduce(PixelBox::union) else {
            return (self, camera);
        };
        let closer = closer(rng, &camera, bounds, side, times);
        let margin = MARGIN * f64::from(side) / REFERENCE_SIDE;
        let layers = self.objects.iter().map(|object| {
            let bounding = (object.centre, object.extent, object.yaw);
            Layer::cast(&closer, &solid_of(object), bounding, side, margin)
        });
        let Some(layers) = layers.collect::<Option<Vec<Layer>>>() else {
            return (self, camera);
        };
        self.seen = DepthBuffer::new(side);
        let things = self.objects.iter_mut().zip(&mut self.pieces);
        for ((object, piece), layer) in things.zip(&layers) {
            self.seen.add(layer);
            object.covered = layer.covered;
            piece.bounds = layer.bounds;
        }
        (self, closer)
    }

    fn paint(
        self,
        rng: &mut ChaCha8Rng,
        camera: Camera,
        side: u32,
        close_up: bool,
    ) -> (RgbImage, Vec<u8>, Truth) {
        let Self {
            mut objects,
            pieces,
            seen,
        } = self;
        let visible = seen.visible().to_vec();
        let mask = seen.into_mask();
        let boxes = boxes(&mask, side, objects.len());
        for ((object, visible), found) in objects.iter_mut().zip(visible).zip(boxes) {
            object.visible = visible;
            object.box2d = found;
        }
        let (ground, light) = draw_surroundings(rng);
        let pixels = Stage {
            camera: &camera,
            pieces: &pieces,
            ground: &ground,
            light: &light,
        }
        .paint(&mask, side);
        let scene = Scene {
            camera,
            width: side,
            height: side,
            objects,
            close_up,
        };
        (pixels, mask, Truth::Scene(scene))
    }
}

fn draw_camera(rng: &mut ChaCha8Rng, side: u32) -> Camera {
    let middle = f64::from(side) / 2.0;
    Camera {
        focal: f64::from(side) * rng.random_range(1.4..1.8),
        centre: [middle, middle],
        height: rng.random_range(1.5..2.2),
        pitch: rng.random_range(0.36..0.50),
    }
}

/// Which objects the scene should have, in random order.
fn draw_cast(rng: &mut ChaCha8Rng) -> Vec<Kind> {
    let mut wanted = weighted(rng, &COUNT_WEIGHTS) + 1;
    let mut cast: Vec<Kind> = Vec::new();
    let leader = draw_kind(rng);
    let same = |rng: &mut ChaCha8Rng| rng.random_range(2..=6usize);
    match rng.random_range(0..20u32) {
        // The same thing several times over.
        0..7 => {
            let identical = rng.random_bool(0.5);
            let count = same(rng);
            cast.extend((0..count).map(|_| {
                let other = draw_kind(rng);
                Kind {
                    material: if identical {
                        leader.material
                    } else {
                        other.material
                    },
                    size: if identical { leader.size } else { other.size },
                    ..leader
                }
            }));
        }
        // The same shape in several colours.
        7..10 => {
            let count = same(rng);
            cast.extend((0..count).map(|_| Kind {
                shape: leader.shape,
                ..draw_kind(rng)
            }));
        }
        // One colour in several shapes.
        10..13 => {
            let count = same(rng);
            cast.extend((0..count).map(|_| Kind {
                colour: leader.colour,
                ..draw_kind(rng)
            }));
        }
        _ => cast.push(leader),
    }
    wanted = wanted.max(cast.len());
    while cast.len() < wanted {
        cast.push(draw_companion(rng, leader));
    }
    cast.shuffle(rng);
    cast
}

/// An object that often shares its shape or its colour with another, and so is easily taken for it.
fn draw_companion(rng: &mut ChaCha8Rng, leader: Kind) -> Kind {
    let other = draw_kind(rng);
    match rng.random_range(0..10u32) {
        0..3 => Kind {
            colour: leader.colour,
            ..other
        },
        3..6 => Kind {
            shape: leader.shape,
            ..other
        },
        _ => other,
    }
}

fn draw_kind(rng: &mut ChaCha8Rng) -> Kind {
    Kind {
        shape: pick(rng, &Shape::ALL),
        colour: pick(rng, &Colour::ALL),
        material: pick(rng, &Material::ALL),
        size: pick(rng, &Size::ALL),
    }
}

fn pick<T: Copy>(rng: &mut ChaCha8Rng, of: &[T]) -> T {
    *of.choose(rng).expect("the list to pick from is a constant")
}

/// An index, drawn as often as its weight says.
fn weighted(rng: &mut ChaCha8Rng, weights: &[u32]) -> usize {
    let mut left = rng.random_range(0..weights.iter().sum());
    for (index, weight) in weights.iter().enumerate() {
        if left < *weight {
            return index;
        }
        left -= weight;
    }
    0
}

/// Looks for a place where the object touches no other, is inside the picture, and leaves itself
/// and all others recognisable. `None` if the scene is too full.
fn place(
    rng: &mut ChaCha8Rng,
    camera: &Camera,
    side: u32,
    kind: Kind,
    others: &[Object],
    seen: &DepthBuffer,
) -> Option<(Object, Layer)> {
    let scale = f64::from(side) / REFERENCE_SIDE;
    let least_pixels = LEAST_VISIBLE_PIXELS * scale * scale;
    for _ in 0..ATTEMPTS {
        let object = draw_place(rng, camera, side, kind);
        let free = others.iter().all(|other| {
            let (dx, dy) = (
                other.centre[0] - object.centre[0],
                other.centre[1] - object.centre[1],
            );
            dx.hypot(dy) > footprint_radius(other) + footprint_radius(&object) + GAP
        });
        if !free {
            continue;
        }
        let bounding = (object.centre, object.extent, object.yaw);
        let solid = solid_of(&object);
        let Some(layer) = Layer::cast(camera, &solid, bounding, side, MARGIN * scale) else {
            continue;
        };
        let covered = others.iter().map(|other| other.covered);
        let covered = covered.chain(std::iter::once(layer.covered));
        let recognisable =
            seen.visible_with(&layer)
                .into_iter()
                .zip(covered)
                .all(|(visible, covered)| {
                    let visible = f64::from(visible);
                    visible >= least_pixels && visible >= LEAST_VISIBLE_SHARE * f64::from(covered)
                });
        if recognisable {
            let object = Object {
                covered: layer.covered,
                ..object
            };
            return Some((object, layer));
        }
    }
    None
}

/// A random place on the ground that the camera sees, as near as often as far.
fn draw_place(rng: &mut ChaCha8Rng, camera: &Camera, side: u32, kind: Kind) -> Object {
    let extent = draw_extent(rng, kind);
    let yaw = match kind.shape {
        Shape::Cube | Shape::Pyramid => rng.random_range(0.0..FRAC_PI_2),
        Shape::Ball | Shape::Cylinder | Shape::Cone | Shape::Ring => 0.0,
    };
    let bottom = camera.ray(camera.centre[0], f64::from(side));
    let nearest = -camera.height / bottom.direction.z * bottom.direction.y + extent[0] / 2.0;
    let y = rng.random_range(nearest.ln()..FARTHEST.ln()).exp();
    let depth = camera.to_camera([0.0, y, extent[2] / 2.0])[2];
    let half_width = f64::from(side) / 2.0 / camera.focal * depth - extent[0] / 2.0;
    let x = rng.random_range(-1.0..1.0) * half_width;
    let centre = [x, y, extent[2] / 2.0];
    Object {
        shape: kind.shape,
        colour: kind.colour,
        material: kind.material,
        size: kind.size,
        centre,
        extent,
        yaw,
        depth: camera.to_camera(centre)[2],
        box2d: Box2d {
            left: 0.0,
            top: 0.0,
            right: 0.0,
            bottom: 0.0,
        },
        visible: 0,
        covered: 0,
    }
}

/// Width, depth and height in metres. Proportions differ between shapes so that, for instance, a
/// cylinder is not a round cube.
fn draw_extent(rng: &mut ChaCha8Rng, kind: Kind) -> [f64; 3] {
    let size = match kind.size {
        Size::Small => 0.36,
        Size::Large => 0.70,
    } * rng.random_range(0.94..1.06);
    let (width, height) = match kind.shape {
        Shape::Ball => (1.0, 1.0),
        Shape::Cube => (0.86, 0.86),
        Shape::Cylinder => (0.74, 1.06),
        Shape::Cone => (0.96, 1.16),
        Shape::Pyramid => (1.0, 0.96),
        Shape::Ring => (1.28, 0.36),
    };
    [size * width, size * width, size * height]
}

/// Radius of the disc on the ground above which the object stays.
fn footprint_radius(object: &Object) -> f64 {
    match object.shape {
        Shape::Cube | Shape::Pyramid => object.extent[0].hypot(object.extent[1]) / 2.0,
        Shape::Ball | Shape::Cylinder | Shape::Cone | Shape::Ring => object.extent[0] / 2.0,
    }
}

fn solid_of(object: &Object) -> Solid {
    Solid::new(object.shape, object.centre, object.extent, object.yaw)
}

/// Ground, lamp and sky: muted, so that the objects stand out.
fn draw_surroundings(rng: &mut ChaCha8Rng) -> (Ground, Light) {
    let hue = rng.random_range(0.0..2.0 * PI);
    let lightness = rng.random_range(0.60..0.86);
    let tone = muted(hue, lightness, rng.random_range(0.01..0.05));
    let step = rng.random_range(0.06..0.13);
    let other = muted(hue + rng.random_range(-0.8..0.8), lightness - step, 0.03);
    let pattern = match rng.random_range(0..3u32) {
        0 => Pattern::Plain,
        1 => Pattern::Checker {
            tile: rng.random_range(0.35..0.9),
        },
        _ => Pattern::Blotches {
            size: rng.random_range(0.15..0.9),
        },
    };
    let ground = Ground {
        pattern,
        tones: [tone, other],
        turn: f64::sin_cos(rng.random_range(0.0..FRAC_PI_2)).into(),
        seed: rng.random(),
    };
    let sky_hue = rng.random_range(0.0..2.0 * PI);
    let sky = [muted(sky_hue, 0.95, 0.01), muted(sky_hue, 0.80, 0.05)];
    // From behind the viewer or from a side, so that the faces towards the viewer are lit.
    let azimuth = -FRAC_PI_2 + rng.random_range(-1.1..1.1);
    let elevation = rng.random_range(0.75..1.2);
    let ambient = rng.random_range(0.46..0.58);
    let light = Light::new(azimuth, elevation, ambient, [sky[0], sky[1], tone]);
    (ground, light)
}

/// A linear colour of some lightness (0 to 1 in sRGB) that leans a little towards a hue.
fn muted(hue: f64, lightness: f64, lean: f64) -> Rgb {
    let channels = [0.0, 2.0 * PI / 3.0, 4.0 * PI / 3.0];
    let bytes = channels.map(|phase| {
        let value = lightness + lean * (hue - phase).cos();
        (value.clamp(0.0, 1.0) * 255.0) as u8
    });
    from_srgb(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::stream;

    #[test]
    fn weights_are_respected() {
        let mut rng = stream(0, "test", 0);
        let mut counts = [0; 3];
        for _ in 0..3000 {
            counts[weighted(&mut rng, &[1, 0, 2])] += 1;
        }
        assert_eq!(counts[1], 0);
        assert!((900..1100).contains(&counts[0]), "{counts:?}");
    }

    #[test]
    fn a_crowd_of_the_same_thing_is_common() {
        let mut rng = stream(0, "test", 1);
        let mut by_count = [0; 9];
        for _ in 0..2000 {
            let cast = draw_cast(&mut rng);
            let first = cast[0];
            let alike = cast
                .iter()
                .filter(|kind| kind.shape == first.shape && kind.colour == first.colour);
            by_count[alike.count()] += 1;
        }
        assert!(
            by_count[2..=6].iter().all(|count| *count > 60),
            "{by_count:?}"
        );
    }

    #[test]
    fn muted_colours_are_nearly_gray() {
        for step in 0..12 {
            let colour = muted(f64::from(step), 0.7, 0.04).map(f64::sqrt);
            assert!(colour.iter().all(|channel| (channel - 0.7).abs() < 0.05));
        }
    }
}
