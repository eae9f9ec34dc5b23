//! Loading a model for a verb, and telling the user about it.

use std::path::PathBuf;
use std::time::Instant;

use opabinia_image::{ImageLimits, ImageSource, RgbImage, load_with_info};
use opabinia_model::fit::Size;
use opabinia_model::{LoadModel, Model, PictureView};
use opabinia_vision::EncoderSpec;
use opabinia_weights::hub;

use crate::args::{DtypeArg, ModelArgs};
use crate::failure::Failure;
use crate::{device, output, shipped};

/// The folder of a model, by its path or its name.
pub fn folder(name: &str) -> Result<PathBuf, Failure> {
    hub::resolve(name, None, &[]).map_err(|error| {
        Failure::from(error).hint(
            "pass a model folder (it holds config.json), or a name on the Hugging Face hub; \
             `opabinia model pull NAME` downloads one",
        )
    })
}

/// Where the weights of an encoder are: beside the shipped model, else on the hub.
pub fn encoder_weights(spec: &EncoderSpec) -> Result<PathBuf, Failure> {
    match spec.entry.repository() {
        Ok(repository) => Ok(hub::resolve(repository, None, &[])?),
        Err(error) => match shipped::tower(spec.entry.name()) {
            Some(folder) => Ok(folder),
            None => Err(error.into()),
        },
    }
}

/// Loads the model that the flags name.
pub fn model(args: &ModelArgs, verbose: bool) -> Result<Model, Failure> {
    let start = Instant::now();
    let folder = match &args.model {
        Some(name) => folder(name)?,
        None => shipped::model()?,
    };
    let found = device::find(&args.device)?;
    let dtype = args
        .dtype
        .resolve(&found.device, || Ok(Size::of_model(&folder)?))?;
    if verbose && args.dtype == DtypeArg::Auto {
        output::note(&format!("weights as {dtype}"));
    }
    let options = LoadModel {
        dtype,
        device: found.device,
        encoders: args.encoder_paths()?,
        template: args.template.clone(),
    };
    let (model, loaded) = Model::load(&folder, &options)?;
    let unused: Vec<&String> = loaded.reports().flat_map(|report| &report.unused).collect();
    if let [first, ..] = unused.as_slice() {
        output::note(&format!(
            "warning: {} tensors of the checkpoint are used by no part of the model, such as \
             `{first}`; `--verbose` lists them",
            unused.len()
        ));
    }
    if verbose {
        for report in loaded.reports() {
            output::note(&format!("{}: {report}", report.location.display()));
        }
        for key in unused {
            output::note(&format!("unused: {key}"));
        }
        let (template, reason) = &loaded.template;
        output::note(&format!("template {template} ({reason})"));
        let seconds = start.elapsed().as_secs_f64();
        output::note(&format!("loaded on {} in {seconds:.1} s", found.name));
    }
    Ok(model)
}

/// Loads a picture through the one door.
pub fn picture(text: &str, limits: &ImageLimits, verbose: bool) -> Result<RgbImage, Failure> {
    let source: ImageSource = text.parse()?;
    let (picture, info) = load_with_info(&source, limits)?;
    if verbose {
        output::note(&info.to_string());
    }
    Ok(picture)
}

/// Says how a picture was seen.
pub fn describe_view(view: &PictureView, remembered: bool) {
    let again = if remembered { ", seen before" } else { "" };
    output::note(&format!(
        "picture {} × {}: {} visual tokens ({} × {} and row ends){again}",
        view.width, view.height, view.tokens, view.rows, view.cols
    ));
    if remembered {
        return;
    }
    for encoder in &view.encoders {
        let (rows, cols) = encoder.native;
        output::note(&format!(
            "  {}: {} px square, {} px of it padding, {rows} × {cols} features of width {} → {} × \
             {}, {:.2} s",
            encoder.name,
            encoder.side,
            encoder.padding,
            encoder.width,
            encoder.grid.0,
            encoder.grid.1,
            encoder.seconds
        ));
    }
}
