//! Contact sheets of the world: `cargo run --release -p opabinia-world --example gallery -- FOLDER`
//! writes one sheet of pictures per subject, to be looked at, and says how long a picture takes.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::path::PathBuf;
use std::time::Instant;

use opabinia_image::RgbImage;
use opabinia_world::{PictureOptions, Subject, draw};

/// Pictures along each side of a sheet.
const COLUMNS: u32 = 5;
/// Pictures drawn for the measurement.
const MEASURED: u32 = 100;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| ".".to_owned()));
    std::fs::create_dir_all(&folder)?;
    let options = PictureOptions::default();
    for subject in Subject::ALL {
        let begin = Instant::now();
        for seed in 0..u64::from(MEASURED) {
            draw(seed, subject, &options);
        }
        let per_second = f64::from(MEASURED) / begin.elapsed().as_secs_f64();
        println!("{}: {per_second:.0} pictures per second", subject.name());
        let path = folder.join(format!("{}.png", subject.name()));
        sheet(subject, &options)?.save_png(path)?;
    }
    Ok(())
}

/// The first pictures of a subject in rows and columns.
fn sheet(
    subject: Subject,
    options: &PictureOptions,
) -> Result<RgbImage, opabinia_image::ImageError> {
    let side = options.side;
    let mut sheet = RgbImage::filled(COLUMNS * side, COLUMNS * side, [255; 3])?;
    let row_bytes = 3 * side as usize;
    for seed in 0..u64::from(COLUMNS * COLUMNS) {
        let picture = draw(seed, subject, options);
        let (left, top) = (seed as u32 % COLUMNS * side, seed as u32 / COLUMNS * side);
        for y in 0..side {
            let start = 3 * ((top + y) as usize * (COLUMNS * side) as usize + left as usize);
            sheet.data_mut()[start..start + row_bytes].copy_from_slice(picture.pixels.row(y));
        }
    }
    Ok(sheet)
}
