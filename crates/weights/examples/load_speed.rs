//! Measures loading: bytes per second and peak memory for each way a weight can be wanted.
//!
//! `cargo run --release -p opabinia-weights --example load_speed -- [gigabytes] [f32|bf16|f16|as-stored]`
//!
//! Writes a bf16 checkpoint of that size to the temporary folder, reads it once so that it is in
//! the page cache, and loads it as the given type.
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::error::Error;
use std::path::Path;

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Shape, Tensor};
use opabinia_weights::{Checkpoint, CheckpointWriter, KeyMap, LoadOptions, WeightDtype, load_into};

const SIDE: usize = 4096;

#[derive(Module, Debug)]
struct Layer {
    weight: Param<Tensor<2>>,
}

#[derive(Module, Debug)]
struct Net {
    layers: Vec<Layer>,
}

fn net(layers: usize, device: &Device) -> Net {
    let layer = |_| Layer {
        weight: Param::uninitialized(
            ParamId::new(),
            |device, _| Tensor::full([SIDE, SIDE], 0.5, device),
            device.clone(),
            false,
            Shape::from([SIDE, SIDE]),
        ),
    };
    Net {
        layers: (0..layers).map(layer).collect(),
    }
}

fn write(path: &Path, layers: usize, device: &Device) -> Result<(), Box<dyn Error>> {
    let mut writer = CheckpointWriter::new(WeightDtype::Bf16);
    // One layer under many names: the writer only holds handles.
    let module = net(1, device);
    for i in 0..layers {
        let name = format!("layers.{i}.");
        writer.add(&module, &KeyMap::new().rename(r"^layers\.0\.", &name))?;
    }
    println!("{:?}", writer.write_file(path)?);
    Ok(())
}

/// Peak resident memory of this process in bytes, where the system tells.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let gigabytes: f64 = arguments.next().map_or(Ok(2.0), |text| text.parse())?;
    let dtype = match arguments.next().as_deref() {
        None | Some("f32") => WeightDtype::F32,
        Some("bf16") => WeightDtype::Bf16,
        Some("f16") => WeightDtype::F16,
        Some("as-stored") => WeightDtype::AsStored,
        Some(other) => return Err(format!("`{other}` is not a type").into()),
    };
    let layers = (gigabytes * 1e9 / (2 * SIDE * SIDE) as f64).ceil() as usize;
    let device = Device::flex();
    let path = std::env::temp_dir().join("opabinia-load-speed.safetensors");
    if !path.exists() {
        write(&path, layers, &device)?;
        println!("written; run again to measure");
        return Ok(());
    }
    std::io::copy(&mut std::fs::File::open(&path)?, &mut std::io::sink())?;
    let before = peak_bytes();
    let checkpoint = Checkpoint::open(&path)?;
    let options = LoadOptions::new(dtype);
    let module = net(layers, &device);
    let (module, report) = load_into(module, &checkpoint, &KeyMap::new(), &options)?;
    println!("{report}");
    if let (Some(before), Some(after)) = (before, peak_bytes()) {
        let grown = (after - before) as f64;
        println!(
            "peak grew by {:.2} GB, {:.3} of the weights",
            grown / 1e9,
            grown / report.bytes as f64
        );
    }
    drop(module);
    Ok(())
}
