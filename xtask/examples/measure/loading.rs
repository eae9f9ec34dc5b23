//! A bf16 checkpoint from the page cache into a module.
//!
//! Loading as bf16 maps the file and copies nothing, so a pass ends with reading one number of every
//! memory page: what it takes until the weights can be used, not until they are promised.

use std::path::Path;
use std::time::Instant;

use burn::module::{Module, Param, ParamId};
use burn::prelude::*;
use opabinia_weights::{Checkpoint, CheckpointWriter, KeyMap, LoadOptions, WeightDtype, load_into};

use crate::weights::{count, fill};
use crate::{Fallible, WeightFormat, Workload};

/// Each tensor is a square matrix of this side.
const SIDE: usize = 4096;
/// Numbers of bf16 in a memory page of 4 KiB.
const PAGE: usize = 2048;

#[derive(Module, Debug)]
struct Layer {
    weight: Param<Tensor<2>>,
}

#[derive(Module, Debug)]
struct Net {
    layers: Vec<Layer>,
}

/// A network of which nothing is allocated.
fn net(layers: usize, device: &Device) -> Net {
    let layer = |_| Layer {
        weight: Param::uninitialized(
            ParamId::new(),
            |device, _| Tensor::zeros([SIDE, SIDE], device),
            device.clone(),
            false,
            Shape::from([SIDE, SIDE]),
        ),
    };
    Net {
        layers: (0..layers).map(layer).collect(),
    }
}

pub(crate) fn workload(
    path: &Path,
    dtype: WeightFormat,
    smoke: bool,
    device: &Device,
) -> Fallible<Workload> {
    let layers = if smoke { 2 } else { 64 };
    if !path.exists() {
        write(path, layers, device)?;
    }
    // These are no linear layers: bf16 stays where it is mapped.
    let options = LoadOptions::new(match dtype {
        WeightFormat::Bf16 => WeightDtype::Bf16,
        other => other.loaded(),
    });
    let (path, device) = (path.to_path_buf(), device.clone());
    Ok(Workload {
        parameters: count(&net(layers, &device)),
        amount: std::fs::metadata(&path)?.len() as f64,
        losses: Vec::new(),
        pass: Box::new(move || {
            let start = Instant::now();
            let checkpoint = Checkpoint::open(&path)?;
            let (loaded, _) =
                load_into(net(layers, &device), &checkpoint, &KeyMap::new(), &options)?;
            loaded.layers.iter().for_each(touch);
            Ok(start.elapsed().as_secs_f64())
        }),
    })
}

/// Reads a number of every page of a weight.
fn touch(layer: &Layer) {
    for column in (0..SIDE).step_by(PAGE) {
        let numbers = layer.weight.val().slice([0..SIDE, column..column + 1]);
        std::hint::black_box(numbers.into_data());
    }
}

/// Writes one matrix under the names of all layers.
fn write(path: &Path, layers: usize, device: &Device) -> Fallible<()> {
    let module = fill(net(1, device), WeightFormat::Bf16);
    let mut writer = CheckpointWriter::new(WeightDtype::Bf16);
    for i in 0..layers {
        let name = format!("layers.{i}.");
        writer.add(&module, &KeyMap::new().rename(r"^layers\.0\.", &name))?;
    }
    writer.write_file(path)?;
    Ok(())
}
