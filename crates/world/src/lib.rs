//! A small world: a seed becomes pictures with exact ground truth, and questions about them.

pub mod caption;
mod chart;
pub mod conversation;
mod document;
pub mod error;
pub mod export;
pub mod font;
pub mod knowledge;
pub mod labels;
pub mod listing;
pub mod make;
pub mod palette;
mod picture;
pub mod question;
mod render;
mod scene;
pub mod stream;
pub mod truth;
mod words;

pub use error::WorldError;
pub use picture::{PictureOptions, SIDES, Subject, draw};
