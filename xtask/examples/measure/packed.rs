//! Loading a decoder of the size of 8B with packed weights: from a file in which they are packed, and from
//! one in bf16 that has to be packed on the way.
//!
//! A few of 32 layers stand for all, as in `decoder.rs`. Packed weights are used where the file is mapped,
//! so a pass ends with reading one byte of every memory page: what it takes until they can be used.

use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::module::{Module, ModuleVisitor, Param};
use burn::prelude::*;
use opabinia_llm::Decoder;
use opabinia_nn::packed;
use opabinia_weights::{Checkpoint, CheckpointWriter, KeyMap, LoadOptions, WeightDtype, load_into};

use crate::weights::{count, fill_for_file};
use crate::{Fallible, WeightFormat, Workload, decoder};

/// Bytes of a memory page.
const PAGE: usize = 4096;

pub(crate) fn workload(
    name: &str,
    path: &Path,
    dtype: WeightFormat,
    smoke: bool,
    device: &Device,
) -> Fallible<Workload> {
    let stored = match name {
        "packed" => Some(dtype),
        // A checkpoint as people publish it: tensors in bf16, nothing packed.
        "packing" => None,
        _ => return Err(format!("there is no loading workload `{name}`").into()),
    };
    let config = decoder::config(smoke);
    let path = named(path, stored);
    if !path.exists() {
        let module = fill_for_file(Decoder::new(&config, device), stored);
        let mut writer = CheckpointWriter::new(WeightDtype::AsStored);
        writer.add(&module, &KeyMap::new())?;
        writer.write_file(&path)?;
    }
    let options = LoadOptions::new(dtype.loaded());
    let device = device.clone();
    Ok(Workload {
        parameters: count(&Decoder::new(&config, &device)),
        amount: 1.0,
        losses: Vec::new(),
        pass: Box::new(move || {
            let start = Instant::now();
            let checkpoint = Checkpoint::open(&path)?;
            let module = Decoder::new(&config, &device);
            let (loaded, _) = load_into(module, &checkpoint, &KeyMap::new(), &options)?;
            loaded.visit(&mut Touch);
            let seconds = start.elapsed().as_secs_f64();
            // Embeddings and the head are there once, and count as layers do: they are a tenth.
            Ok(seconds * decoder::ALL_LAYERS as f64 / config.layers as f64)
        }),
    })
}

/// A file of its own for every kind of content.
fn named(path: &Path, stored: Option<WeightFormat>) -> PathBuf {
    let kind = stored.map_or("tensors".to_owned(), |format| {
        format!("{format:?}").to_lowercase()
    });
    path.with_extension(format!("{kind}.safetensors"))
}

/// Reads a byte of every page of every weight.
struct Touch;

impl ModuleVisitor for Touch {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        packed::with_bytes(param, |bytes| {
            let sum: u64 = bytes
                .iter()
                .step_by(PAGE)
                .map(|byte| u64::from(*byte))
                .sum();
            std::hint::black_box(sum);
        });
    }
}
