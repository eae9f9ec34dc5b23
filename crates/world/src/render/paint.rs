//! Colours of a scene: every pixel is shaded once through its centre, and where neighbours differ
//! in object, in slope or in light it is shaded again at four points.

use opabinia_image::RgbImage;

use super::camera::Ray;
use super::ground::Ground;
use super::layer::PixelBox;
use super::light::{LAMP_RAYS, Light, Rgb, Surface, mix, to_srgb};
use super::solid::{Hit, Solid};
use super::vector::Vec3;
use crate::truth::Camera;

/// Where within a pixel it is shaded again: a square turned, so that neither rows nor columns
/// coincide.
const FINER: [[f64; 2]; 4] = [
    [0.375, 0.125],
    [0.875, 0.375],
    [0.125, 0.625],
    [0.625, 0.875],
];
/// Cosine between normals below which there is an edge.
const CREASE: f64 = 0.85;
/// Difference of light above which there is an edge.
const SHADOW_EDGE: f64 = 0.45;
/// Rays that leave a surface start this far from it, in metres.
const OFF_SURFACE: f64 = 1e-3;
/// How much darker the ground is right under an object.
const CONTACT: f64 = 0.45;

/// One object to paint.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub solid: Solid,
    pub surface: Surface,
    /// Pixels that it can be on.
    pub bounds: PixelBox,
}

/// Everything that a picture of a scene depends on.
#[derive(Clone, Debug)]
pub(crate) struct Stage<'a> {
    pub camera: &'a Camera,
    pub pieces: &'a [Piece],
    pub ground: &'a Ground,
    pub light: &'a Light,
}

/// What one ray sees.
#[derive(Clone, Copy, Debug)]
struct Shaded {
    colour: Rgb,
    normal: Vec3,
    /// Share of the lamp that arrives.
    lit: f64,
}

impl Stage<'_> {
    /// Paints `side × side` pixels; `mask` says which piece the centre of each belongs to, as index
    /// plus one.
    pub fn paint(&self, mask: &[u8], side: u32) -> RgbImage {
        let mut picture =
            RgbImage::filled(side, side, [0; 3]).expect("the side of a scene is above zero");
        let width = side as usize;
        let centres = self.shade_centres(mask, side);
        let pixels = picture.data_mut().chunks_exact_mut(3);
        for (at, pixel) in pixels.enumerate() {
            let (x, y) = ((at % width) as u32, (at / width) as u32);
            let colour = if is_edge(mask, &centres, width, at) {
                self.shade_finely(x, y)
            } else {
                centres[at].colour
            };
            pixel.copy_from_slice(&to_srgb(colour));
        }
        picture
    }

    /// Shades every pixel through its centre.
    fn shade_centres(&self, mask: &[u8], side: u32) -> Vec<Shaded> {
        let rays = (0..side).flat_map(|y| self.camera.row_of_rays(y, 0, side));
        rays.zip(mask)
            .map(|((_, ray), &owner)| {
                let piece = usize::from(owner).checked_sub(1);
                let piece = piece.and_then(|index| self.pieces.get(index));
                match piece.and_then(|piece| Some((piece, piece.solid.hit(&ray)?))) {
                    Some((piece, hit)) => self.shade_piece(piece, &ray, hit),
                    None => self.shade_background(&ray),
                }
            })
            .collect()
    }

    /// The mean of four points within a pixel, each of which may see another object.
    fn shade_finely(&self, x: u32, y: u32) -> Rgb {
        let mut sum = [0.0; 3];
        for [dx, dy] in FINER {
            let ray = self.camera.ray(f64::from(x) + dx, f64::from(y) + dy);
            let nearest = self
                .pieces
                .iter()
                .filter(|piece| piece.bounds.is_near(x, y))
                .filter_map(|piece| Some((piece, piece.solid.hit(&ray)?)))
                .min_by(|(_, a), (_, b)| a.t.total_cmp(&b.t));
            let shaded = match nearest {
                Some((piece, hit)) => self.shade_piece(piece, &ray, hit),
                None => self.shade_background(&ray),
            };
            for (sum, channel) in sum.iter_mut().zip(shaded.colour) {
                *sum += channel / FINER.len() as f64;
            }
        }
        sum
    }

    fn shade_piece(&self, piece: &Piece, ray: &Ray, hit: Hit) -> Shaded {
        let point = ray.at(hit.t);
        let start = point + hit.normal * OFF_SURFACE;
        let lit = if hit.normal.dot(self.light.direction) > 0.0 {
            let skip = (!piece.solid.shades_itself()).then_some(piece);
            self.lit(start, skip)
        } else {
            0.0
        };
        let view = ray.direction.unit();
        let colour = piece
            .surface
            .shade(self.light, hit.normal, view, lit, point.z);
        Shaded {
            colour,
            normal: hit.normal,
            lit,
        }
    }

    /// The ground or, where the ray never meets it, the sky.
    fn shade_background(&self, ray: &Ray) -> Shaded {
        const UP: Vec3 = Vec3::new(0.0, 0.0, 1.0);
        let sky = || self.light.sky(ray.direction.unit());
        if ray.direction.z > -1e-3 {
            return Shaded {
                colour: sky(),
                normal: UP,
                lit: 1.0,
            };
        }
        let depth = -ray.origin.z / ray.direction.z;
        let point = ray.at(depth);
        let haze = Ground::haze(depth);
        let lit = self.lit(point, None);
        let light = self.light.ambient * self.openness(point) + (1.0 - self.light.ambient) * lit;
        let wide = depth / self.camera.focal;
        let footprint = [wide, wide * depth / self.camera.height];
        let tone = self.ground.colour(point.x, point.y, footprint);
        let ground = tone.map(|channel| channel * light);
        Shaded {
            colour: if haze > 0.0 {
                mix(ground, sky(), haze)
            } else {
                ground
            },
            normal: UP,
            lit,
        }
    }

    /// Share of the lamp that reaches a point.
    fn lit(&self, point: Vec3, skip: Option<&Piece>) -> f64 {
        let mut arriving = LAMP_RAYS;
        let to_middle = Ray {
            origin: point,
            direction: self.light.direction,
        };
        let near = |piece: &&Piece| {
            !skip.is_some_and(|skip| std::ptr::eq(skip, *piece))
                && piece.solid.may_block(&to_middle)
        };
        if !self.pieces.iter().any(|piece| near(&piece)) {
            return 1.0;
        }
        for direction in self.light.rays {
            let ray = Ray {
                origin: point,
                direction,
            };
            let blocked = self
                .pieces
                .iter()
                .filter(near)
                .any(|piece| piece.solid.hit(&ray).is_some());
            arriving -= usize::from(blocked);
        }
        arriving as f64 / LAMP_RAYS as f64
    }

    /// How much of the sky a point of the ground sees past the objects on it, 0 to 1.
    fn openness(&self, point: Vec3) -> f64 {
        let mut open = 1.0;
        for piece in self.pieces {
            let (dx, dy) = (
                point.x - piece.solid.centre.x,
                point.y - piece.solid.centre.y,
            );
            let reach = 2.2 * piece.solid.half.x;
            let squared = dx * dx + dy * dy;
            if squared < reach * reach {
                let contact = piece.solid.contact_radius();
                let away = ((squared.sqrt() - contact) / (reach - contact)).max(0.0);
                open *= 1.0 - CONTACT * (1.0 - away).powi(3);
            }
        }
        open
    }
}

/// Whether a pixel differs from one of its neighbours in object, in slope or in light.
fn is_edge(mask: &[u8], centres: &[Shaded], width: usize, at: usize) -> bool {
    let x = at % width;
    let neighbours = [
        (x > 0).then(|| at - 1),
        (x + 1 < width).then_some(at + 1),
        at.checked_sub(width),
        (at + width < mask.len()).then_some(at + width),
    ];
    let here = &centres[at];
    neighbours.into_iter().flatten().any(|other| {
        let there = &centres[other];
        mask[other] != mask[at]
            || here.normal.dot(there.normal) < CREASE
            || (here.lit - there.lit).abs() > SHADOW_EDGE
    })
}
