//! The Spatial Vision Aggregator in the size of the released 8B model, on a square picture.

use std::time::Instant;

use burn::prelude::*;
use opabinia_connector::sampler::Windows;
use opabinia_connector::{
    GlobalContext, LayerType, PictureSize, Sampler, SamplerConfig, Sva, SvaConfig,
};
use opabinia_nn::{FeatureGrid, Grid, Trace};

use crate::weights::{activations, count, fill};
use crate::{Fallible, WeightFormat, Workload};

/// Feature width and grid side of SigLIP, CLIP, DINOv2 and ConvNeXt.
const ENCODERS: [(usize, usize); 4] = [(1152, 24), (1024, 24), (1536, 24), (5760, 96)];
/// Width inside the connector.
const WIDTH: usize = 1024;
/// Width of the language model.
const HIDDEN: usize = 4096;
/// Side of the grids of queries and of visual tokens.
const CELLS: usize = 24;
/// Layers of the query group.
const DEPTH: usize = 3;

pub(crate) fn workload(
    name: &str,
    dtype: WeightFormat,
    smoke: bool,
    device: &Device,
) -> Fallible<Workload> {
    match name {
        "sva" => aggregator(dtype, if smoke { 1 } else { DEPTH }, device),
        "in-llm" => Ok(in_llm_layer(dtype, device)),
        _ => Err(format!("there is no connector workload `{name}`").into()),
    }
}

/// From four feature grids to visual tokens.
fn aggregator(dtype: WeightFormat, depth: usize, device: &Device) -> Fallible<Workload> {
    let config = SvaConfig {
        encoder_widths: ENCODERS.iter().map(|(width, _)| *width).collect(),
        encoder_grids: ENCODERS
            .iter()
            .map(|(_, side)| Grid::square(*side))
            .collect(),
        width: WIDTH,
        hidden: HIDDEN,
        query_grids: vec![Grid::square(CELLS)],
        token_grid: Grid::square(CELLS),
        depth,
        layer_type: LayerType::Joint,
        in_llm: None,
    };
    let sva = fill(Sva::new(&config, device), dtype);
    let grid = |&(width, side): &(usize, usize)| {
        FeatureGrid::new(
            activations([1, side * side, width], device),
            Grid::square(side),
        )
    };
    let grids: Vec<FeatureGrid> = ENCODERS.iter().map(grid).collect();
    let square = PictureSize {
        width: 1024,
        height: 1024,
    };
    Ok(Workload {
        parameters: count(&sva),
        amount: 1.0,
        losses: Vec::new(),
        pass: Box::new(move || {
            let start = Instant::now();
            let (tokens, _) = sva.forward(&grids, &[square], &mut Trace::off())?;
            tokens.features.device().sync()?;
            Ok(start.elapsed().as_secs_f64())
        }),
    })
}

/// One of the layers between those of the language model, over all visual tokens of a picture.
fn in_llm_layer(dtype: WeightFormat, device: &Device) -> Workload {
    let config = SamplerConfig {
        query_width: HIDDEN,
        context_width: WIDTH,
        width: WIDTH,
        window_sides: ENCODERS.iter().map(|(_, side)| side / CELLS).collect(),
        depth: 1,
        layer_type: LayerType::Joint,
    };
    let sampler = fill(Sampler::new(&config, device), dtype);
    let tokens = CELLS * CELLS;
    let window = |side: &usize| activations([tokens, side * side, WIDTH], device);
    let windows = Windows {
        latents: config.window_sides.iter().map(window).collect(),
        visible: None,
    };
    let hidden: Tensor<2> = activations([tokens, HIDDEN], device);
    // A context of its own for each token, as the peer has it.
    let context = GlobalContext::even(activations([tokens, WIDTH], device));
    Workload {
        parameters: count(&sampler),
        amount: 1.0,
        losses: Vec::new(),
        pass: Box::new(move || {
            let start = Instant::now();
            let updated = sampler.forward(hidden.clone(), &context, &windows, &mut Trace::off());
            updated.device().sync()?;
            Ok(start.elapsed().as_secs_f64())
        }),
    }
}
