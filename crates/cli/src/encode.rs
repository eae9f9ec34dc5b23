//! `encode`: what one vision encoder sees.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use burn::prelude::Device;
use clap::Args;
use opabinia_image::{Filter, RgbImage, prepare, resize};
use opabinia_model::fit::Size;
use opabinia_nn::{FeatureGrid, Grid, pca};
use opabinia_vision::{EncoderSpec, load_encoder, pixel_tensor};
use opabinia_weights::{Checkpoint, LoadOptions};
use safetensors::tensor::{Dtype, TensorView};

use crate::args::{DtypeArg, ImageArgs};
use crate::failure::Failure;
use crate::{Outcome, device, load, output};

/// Write the features that a vision encoder gives for a picture.
#[derive(Args)]
pub struct Encode {
    /// The picture: a file, `-` for standard input, or a `data:` URL.
    image: String,
    /// Published name of the encoder, with `-res…` or `-interp…` if wanted; `opabinia encoders`
    /// lists them.
    #[arg(long)]
    encoder: String,
    /// Folder or file with its weights; without it those of the shipped model or of the hub.
    #[arg(long)]
    weights: Option<String>,
    /// Resample the features to this many tokens, a square number.
    #[arg(long)]
    tokens: Option<usize>,
    /// File to write: `.safetensors` or `.npy`.
    #[arg(short, long, default_value = "features.safetensors")]
    out: PathBuf,
    /// Picture of the first three principal components to write (PNG).
    #[arg(long, default_value = "features.png")]
    picture: PathBuf,
    /// Type of the large weights in memory.
    #[arg(long, value_enum, default_value_t = DtypeArg::Stored)]
    dtype: DtypeArg,
    /// Device to run on.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Say what was loaded and seen.
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    limits: ImageArgs,
}

/// Longest side of the picture of components, about.
const PICTURE_SIDE: u32 = 672;

impl Encode {
    /// Loads, looks, writes.
    pub fn run(self) -> Outcome {
        let spec = EncoderSpec::parse(&self.encoder)?;
        let tokens = self.tokens.map(token_grid).transpose()?;
        let format = Format::of(&self.out)?;
        let picture = load::picture(&self.image, &self.limits.limits(), self.verbose)?;
        let found = device::find(&self.device)?;
        let weights = match &self.weights {
            Some(path) => PathBuf::from(path),
            None => load::encoder_weights(&spec)?,
        };
        let size = || Ok(Size::of_checkpoint(&Checkpoint::open(&weights)?));
        let dtype = self.dtype.resolve(&found.device, size)?.for_encoders();
        let options = LoadOptions::new(dtype).on_device(&found.device);
        let (encoder, report) = load_encoder(&spec, &weights, &options)?;
        if self.verbose {
            output::note(&format!("{}: {report}", weights.display()));
        }
        let pixels = prepare(&picture, &encoder.preprocessor())?;
        let start = std::time::Instant::now();
        let features = encoder.encode(pixel_tensor(pixels, &found.device), tokens);
        let (grid, width) = (features.grid, features.width());
        let features = on_cpu(features)?;
        if self.verbose {
            let seconds = start.elapsed().as_secs_f64();
            output::note(&format!(
                "{seconds:.2} s for {grid} features of width {width}"
            ));
        }
        format.write(&self.out, &features)?;
        components(&features)?.save_png(&self.picture)?;
        output::data(&format!(
            "{}  {grid} features of width {width}",
            self.out.display()
        ));
        output::data(&format!("{}  principal components", self.picture.display()));
        Ok(ExitCode::SUCCESS)
    }
}

fn token_grid(tokens: usize) -> Result<Grid, Failure> {
    Grid::from_token_count(tokens).ok_or_else(|| {
        let side = tokens.isqrt().clamp(1, Grid::MAX_SIDE - 1);
        let near = match tokens {
            0 => "use 1".to_owned(),
            _ => format!("use {} or {}", side * side, (side + 1) * (side + 1)),
        };
        Failure::new(format!(
            "{tokens} tokens are no square grid that can be made"
        ))
        .hint(near)
    })
}

/// The features as a tensor on the CPU, wherever they were computed.
fn on_cpu(features: FeatureGrid) -> Result<FeatureGrid, Failure> {
    let grid = features.grid;
    let data = features.features.into_data().convert::<f32>();
    Ok(FeatureGrid::new(
        burn::tensor::Tensor::from_data(data, &Device::flex()),
        grid,
    ))
}

/// The first three principal components as colours, enlarged without smoothing.
fn components(features: &FeatureGrid) -> Result<RgbImage, Failure> {
    let side = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let (rows, cols) = (side(features.grid.rows), side(features.grid.cols));
    let pixels = pca::colours(features).into_iter().flatten().collect();
    let small = RgbImage::from_raw(cols, rows, pixels)?;
    let scale = (PICTURE_SIDE / rows.max(cols)).max(1);
    Ok(resize(&small, cols * scale, rows * scale, Filter::Nearest))
}

/// File formats of features.
enum Format {
    Safetensors,
    Npy,
}

impl Format {
    fn of(path: &Path) -> Result<Self, Failure> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("safetensors") => Ok(Self::Safetensors),
            Some("npy") => Ok(Self::Npy),
            _ => Err(
                Failure::new(format!("cannot tell the format of `{}`", path.display()))
                    .hint("end it in .safetensors or .npy"),
            ),
        }
    }

    /// Writes `[rows, cols, width]`.
    fn write(&self, path: &Path, features: &FeatureGrid) -> Result<(), Failure> {
        let shape = [features.grid.rows, features.grid.cols, features.width()];
        let values: Vec<f32> = features.features.to_data().iter::<f32>().collect();
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        let written = match self {
            Self::Safetensors => {
                let view = TensorView::new(Dtype::F32, shape.to_vec(), &bytes)?;
                std::fs::write(path, safetensors::serialize([("features", view)], None)?)
            }
            Self::Npy => write_npy(path, &shape, &bytes),
        };
        written.map_err(|error| Failure::new(format!("cannot write `{}`: {error}", path.display())))
    }
}

/// NumPy's format, version 1.0: magic, length of the header, a Python literal padded to 64 bytes,
/// the values.
fn write_npy(path: &Path, shape: &[usize; 3], bytes: &[u8]) -> std::io::Result<()> {
    let [rows, cols, width] = shape;
    let mut header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {cols}, {width}), }}");
    const PREFIX: usize = 10;
    let padding = 63 - (PREFIX + header.len()) % 64;
    header.push_str(&" ".repeat(padding));
    header.push('\n');
    let length = u16::try_from(header.len()).map_err(std::io::Error::other)?;
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    file.write_all(b"\x93NUMPY\x01\x00")?;
    file.write_all(&length.to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    file.write_all(bytes)?;
    file.flush()
}
