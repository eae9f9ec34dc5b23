//! Kinds `sva` and `projector`: parts of connectors alone.

use opabinia_connector::config::ProjectorConfig;
use opabinia_connector::sampler::{HEADS, Windows};
use opabinia_connector::{
    GlobalContext, LayerType, Projector, ProjectorKind, Sampler, SamplerConfig,
};
use opabinia_llm::config::MAX_LAYERS;
use opabinia_nn::{FeatureGrid, Grid, Trace};
use opabinia_weights::{Checkpoint, load_into};
use serde::Deserialize;

use super::{Case, CaseError, Check};
use crate::keys;

#[derive(Deserialize)]
struct SamplerKeys {
    q_dim: usize,
    context_dim: usize,
    vision_hidden_size: usize,
    kv_size_list: Vec<usize>,
    num_layers: usize,
    layer_type: String,
}

pub(super) fn run_sampler(case: &Case) -> Result<Vec<Check>, CaseError> {
    let tolerance = case.tolerance()?;
    let config = case.folder.join("config.json");
    let raw =
        SamplerKeys::deserialize(case.file("config.json")?).map_err(|source| CaseError::Json {
            path: config,
            source,
        })?;
    let layer_type = match raw.layer_type.as_str() {
        "joint" => LayerType::Joint,
        "sep" => LayerType::Separate,
        other => return Err(case.wrong(format!("layer type `{other}` is not known"))),
    };
    let sides = 1..=Grid::MAX_SIDE;
    if raw.vision_hidden_size == 0
        || !raw.vision_hidden_size.is_multiple_of(HEADS)
        || !(1..=MAX_LAYERS).contains(&raw.num_layers)
        || !raw.kv_size_list.iter().all(|side| sides.contains(side))
    {
        return Err(case.wrong("config.json describes no sampler that can be built"));
    }
    let config = SamplerConfig {
        query_width: raw.q_dim,
        context_width: raw.context_dim,
        width: raw.vision_hidden_size,
        window_sides: raw.kv_size_list,
        depth: raw.num_layers,
        layer_type,
    };
    let prefix = case.json["key_prefix"].as_str().unwrap_or_default();
    let sampler = Sampler::new(&config, &case.device);
    let checkpoint = Checkpoint::open(case.folder.join("model.safetensors"))?;
    let (sampler, report) = load_into(
        sampler,
        &checkpoint,
        &keys::sampler(prefix),
        &case.load_options(),
    )?;
    report.deny_unused()?;

    let queries = case.sized_input::<3>("q", [None, Some(1), Some(raw.q_dim)])?;
    let [n, _, q] = queries.dims();
    let context = case.sized_input::<3>("ctx", [Some(n), Some(1), Some(raw.context_dim)])?;
    let context = GlobalContext::even(context.reshape([n, raw.context_dim]));
    let keys: Vec<usize> = config.window_sides.iter().map(|side| side * side).collect();
    let latents = keys
        .iter()
        .enumerate()
        .map(|(i, &k)| {
            case.sized_input::<3>(&format!("kv{i}"), [Some(n), Some(k), Some(config.width)])
        })
        .collect::<Result<Vec<_>, _>>()?;
    let visible = keys
        .iter()
        .enumerate()
        .map(|(i, &k)| {
            let mask = case.sized_input::<2>(&format!("mask{i}"), [Some(n), Some(k)])?;
            Ok(mask.greater_elem(0.5))
        })
        .collect::<Result<Vec<_>, CaseError>>()?;

    let mut checks = Vec::new();
    let mut trace = Trace::on();
    let masked = Windows {
        latents: latents.clone(),
        visible: Some(visible),
    };
    let queries = queries.reshape([n, q]);
    let out = sampler.forward(queries.clone(), &context, &masked, &mut trace);
    for (name, data) in trace.into_tensors() {
        checks.push(case.compare(&name, &data, tolerance)?);
    }
    checks.push(case.compare("out", &out.unsqueeze_dim::<3>(1).into_data(), tolerance)?);
    let open = Windows {
        latents,
        visible: None,
    };
    let out = sampler.forward(queries, &context, &open, &mut Trace::off());
    checks.push(case.compare(
        "out_nomask",
        &out.unsqueeze_dim::<3>(1).into_data(),
        tolerance,
    )?);
    Ok(checks)
}

#[derive(Deserialize)]
struct ProjectorKeys {
    hidden_size: usize,
    mm_hidden_size: usize,
    mm_projector_type: String,
}

pub(super) fn run_projector(case: &Case) -> Result<Vec<Check>, CaseError> {
    let raw = ProjectorKeys::deserialize(case.file("config.json")?).map_err(|source| {
        CaseError::Json {
            path: case.folder.join("config.json"),
            source,
        }
    })?;
    let name = &raw.mm_projector_type;
    let kind = ProjectorKind::by_name(name)
        .ok_or_else(|| case.wrong(format!("no projector is called `{name}`")))?;
    let features = case.sized_input::<3>("x", [None, None, Some(raw.mm_hidden_size)])?;
    let [_, tokens, _] = features.dims();
    let grid = Grid::from_token_count(tokens)
        .ok_or_else(|| case.wrong(format!("{tokens} tokens are no square grid")))?;
    let config = ProjectorConfig {
        kind,
        input: raw.mm_hidden_size,
        hidden: raw.hidden_size,
        token_grid: grid,
    };
    let mut projector = Projector::new(&config, &case.device);
    let weights = case.folder.join("model.safetensors");
    if kind != ProjectorKind::Identity {
        let checkpoint = Checkpoint::open(&weights)?;
        let map = keys::projector_alone(kind, "^").prefix("model.");
        let (loaded, report) = load_into(projector, &checkpoint, &map, &case.load_options())?;
        report.deny_unused()?;
        projector = loaded;
    }
    let y = projector
        .forward(&[FeatureGrid::new(features, grid)])
        .features
        .into_data();
    let values: Vec<f64> = y.convert::<f64>().iter::<f64>().collect();
    Ok(vec![case.compare_list("y", &values, case.tolerance()?)?])
}
