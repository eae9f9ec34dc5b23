//! Light and surfaces: one soft lamp, a sky, and two materials.
//!
//! Colours are linear here; [`to_srgb`] takes the square root at the end, close enough to the sRGB
//! curve for pictures that are made and not measured.

use crate::render::vector::Vec3;
use crate::truth::{Colour, Material};

/// Linear red, green, blue; 1 is white.
pub(crate) type Rgb = [f64; 3];

/// Rays towards the lamp; their spread is the softness of shadows.
pub(crate) const LAMP_RAYS: usize = 4;
/// Radius of the lamp as seen from the ground, in radians.
const LAMP_RADIUS: f64 = 0.045;

/// The lamp and what surrounds the scene.
#[derive(Clone, Debug)]
pub(crate) struct Light {
    /// Towards its middle, length 1.
    pub direction: Vec3,
    /// Towards points spread over it, length 1.
    pub rays: [Vec3; LAMP_RAYS],
    /// Share of the light that comes from everywhere.
    pub ambient: f64,
    /// Sky at the horizon.
    pub horizon: Rgb,
    /// Sky overhead.
    pub zenith: Rgb,
    /// What the ground throws back into mirrors.
    pub floor: Rgb,
}

impl Light {
    /// A lamp at an angle about the vertical axis (0 is to the right of the viewer, a quarter turn
    /// is straight ahead) and above the horizon.
    pub fn new(
        azimuth: f64,
        elevation: f64,
        ambient: f64,
        [horizon, zenith, floor]: [Rgb; 3],
    ) -> Self {
        let (height, across) = elevation.sin_cos();
        let direction = Vec3::new(azimuth.cos() * across, azimuth.sin() * across, height);
        let sideways = Vec3::new(-azimuth.sin(), azimuth.cos(), 0.0);
        let upwards = Vec3::new(-azimuth.cos() * height, -azimuth.sin() * height, across);
        let spread = |a: f64, b: f64| {
            (direction + sideways * (a * LAMP_RADIUS) + upwards * (b * LAMP_RADIUS)).unit()
        };
        Self {
            direction,
            rays: [
                spread(-0.9, -0.3),
                spread(-0.3, 0.9),
                spread(0.3, -0.9),
                spread(0.9, 0.3),
            ],
            ambient,
            horizon,
            zenith,
            floor,
        }
    }

    /// What is seen in a direction of length 1 that meets nothing, the lamp left out.
    pub fn sky(&self, direction: Vec3) -> Rgb {
        let up = (direction.z * 2.5).clamp(0.0, 1.0);
        mix(self.horizon, self.zenith, up.sqrt())
    }

    /// What a mirror shows that throws the view into this direction: the sky with a bright band
    /// above the horizon, and below it the floor, which is darker straight down.
    fn surroundings(&self, direction: Vec3) -> Rgb {
        if direction.z > 0.0 {
            let band = if (0.12..0.4).contains(&direction.z) {
                1.5
            } else {
                0.9
            };
            self.sky(direction).map(|channel| channel * band)
        } else {
            let dark = 0.75 - 0.6 * (-direction.z).min(1.0);
            self.floor.map(|channel| channel * dark)
        }
    }

    /// How much a mirror that stands upright shows of the lamp's shine on whatever is below it: only
    /// the direction about the vertical axis counts.
    fn streak(&self, direction: Vec3) -> f64 {
        let flat = |v: Vec3| Vec3::new(v.x, v.y, 0.0);
        let (mirrored, lamp) = (flat(direction), flat(self.direction));
        let lengths = mirrored.length() * lamp.length();
        if direction.z > 0.0 || lengths == 0.0 {
            return 0.0;
        }
        (mirrored.dot(lamp) / lengths).max(0.0).powi(40)
    }
}

/// The surface of an object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surface {
    colour: Rgb,
    material: Material,
}

impl Surface {
    /// A surface whose colour is a little lighter or darker than the named one by the factor
    /// `tone`.
    pub fn new(colour: Colour, material: Material, tone: f64) -> Self {
        Self {
            colour: from_srgb(colour.rgb()).map(|channel| (channel * tone).min(1.0)),
            material,
        }
    }

    /// The colour of a point that is seen along `view`, both of length 1; `lit` is the share of the
    /// lamp that reaches it, `height` its distance from the ground in metres.
    pub fn shade(&self, light: &Light, normal: Vec3, view: Vec3, lit: f64, height: f64) -> Rgb {
        let facing = normal.dot(light.direction).max(0.0) * lit;
        let openness = 0.75 + 0.25 * normal.z;
        let contact = 0.7 + 0.3 * (height / 0.15).min(1.0);
        let ambient = light.ambient * openness * contact;
        let diffuse = ambient + (1.0 - light.ambient) * facing;
        match self.material {
            Material::Rubber => self.colour.map(|channel| channel * diffuse),
            Material::Metal => {
                let mirrored = view.reflected(normal);
                // Brighter towards the top, as the darker ground close by is mirrored below.
                let rise = 0.5 + 0.9 * (height / 0.6).min(1.0);
                let surroundings = light.surroundings(mirrored).map(|channel| channel * rise);
                let glow = mirrored.dot(light.direction).max(0.0);
                let highlight = (glow.powi(48) + 0.25 * glow.powi(8)) * lit
                    + 0.45 * light.streak(mirrored) * lit;
                std::array::from_fn(|i| {
                    let tinted = self.colour[i] * (0.55 * diffuse + 0.6 * surroundings[i]);
                    tinted + 0.08 * surroundings[i] + highlight
                })
            }
        }
    }
}

/// Between `a` and `b`.
pub(crate) fn mix(a: Rgb, b: Rgb, t: f64) -> Rgb {
    std::array::from_fn(|i| a[i] + (b[i] - a[i]) * t)
}

/// Linear light from bytes, by the square.
pub(crate) fn from_srgb(bytes: [u8; 3]) -> Rgb {
    bytes.map(|byte| (f64::from(byte) / 255.0).powi(2))
}

/// Bytes from linear light, by the square root.
pub(crate) fn to_srgb(colour: Rgb) -> [u8; 3] {
    // Adding a half and cutting off rounds, and is one instruction where `round` is a call.
    colour.map(|channel| (channel.clamp(0.0, 1.0).sqrt() * 255.0 + 0.5) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lamp_overhead() -> Light {
        let white = [1.0; 3];
        Light::new(0.0, std::f64::consts::FRAC_PI_2, 0.4, [white; 3])
    }

    #[test]
    fn bytes_survive_the_way_to_linear_light_and_back() {
        for byte in 0..=255 {
            assert_eq!(to_srgb(from_srgb([byte; 3])), [byte; 3]);
        }
    }

    /// Full light from above on a level surface far from the ground: ambient 0.4 and lamp 0.6.
    #[test]
    fn rubber_in_full_light_shows_its_colour() {
        let surface = Surface::new(Colour::Red, Material::Rubber, 1.0);
        let up = Vec3::new(0.0, 0.0, 1.0);
        let seen = surface.shade(&lamp_overhead(), up, -up, 1.0, 1.0);
        assert_eq!(to_srgb(seen), Colour::Red.rgb());
    }

    #[test]
    fn metal_has_a_highlight_and_rubber_has_none() {
        let up = Vec3::new(0.0, 0.0, 1.0);
        let shade = |material| {
            let surface = Surface::new(Colour::Blue, material, 1.0);
            to_srgb(surface.shade(&lamp_overhead(), up, -up, 1.0, 1.0))
        };
        assert_eq!(shade(Material::Metal), [255; 3]);
        assert!(shade(Material::Rubber)[0] < 60);
    }
}
