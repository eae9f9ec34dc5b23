//! Drawing: a camera and solid objects become pixels and masks; rectangles, lines and letters
//! become charts and documents.
//!
//! Solid objects are ray cast. One ray through the centre of each pixel decides which object the
//! pixel belongs to, so masks, boxes, depths and pictures are four views of the same rays and agree
//! to the pixel. Only colours are averaged over more rays, where neighbouring pixels differ.

mod camera;
pub(crate) mod canvas;
pub(crate) mod ground;
pub(crate) mod layer;
pub(crate) mod light;
pub(crate) mod noise;
pub(crate) mod paint;
pub(crate) mod solid;
pub(crate) mod vector;
