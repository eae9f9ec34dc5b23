//! Low-rank adapters on the decoder (LoRA, arXiv 2106.09685).
//!
//! While they train, the decoder's own weights rest. The result of a run is a whole model with the
//! adapters folded in, like any other, and beside it the adapters alone in the layout of PEFT
//! (`adapter_config.json`, `adapter_model.safetensors`), for whoever keeps one base and many of them.
//! Where a family's checkpoints hold several layers as one, their adapters become one, too.

use std::collections::BTreeMap;
use std::path::Path;

use opabinia_llm::{Decoder, DecoderConfig, DecoderFamily};
use opabinia_nn::{Linear, LoraShape};
use serde_json::{Map, json};

use crate::TrainError;
use crate::engine::loader::stream_seed;
use crate::engine::parameters::{self, Values};
use crate::engine::run_folder::write_values;
use crate::recipe::{LoraTable, LoraTarget};

/// Folder of the adapters in the resulting model's folder.
const FOLDER: &str = "adapter";

/// Puts adapters on the decoder's linear layers that the recipe names.
#[must_use]
pub fn adapt(decoder: Decoder, table: &LoraTable, seed: u64) -> Decoder {
    let shape = LoraShape {
        rank: table.rank,
        alpha: table.alpha,
        dropout: table.dropout,
    };
    each(decoder, |layer, target, linear| {
        if table.targets.contains(&target) {
            let index = [layer as u64, target as u64];
            linear.with_lora(shape, stream_seed(seed, "lora", index))
        } else {
            linear
        }
    })
}

/// Folds the adapters into the weights.
#[must_use]
pub fn merge(decoder: Decoder) -> Decoder {
    each(decoder, |_, _, linear| linear.merge_lora())
}

fn each(
    mut decoder: Decoder,
    mut change: impl FnMut(usize, LoraTarget, Linear) -> Linear,
) -> Decoder {
    let layers = std::mem::take(&mut decoder.layers).into_iter().enumerate();
    decoder.layers = layers
        .map(|(index, mut layer)| {
            let (attention, mlp) = (&mut layer.self_attn, &mut layer.mlp);
            for (target, linear) in [
                (LoraTarget::QProj, &mut attention.q_proj),
                (LoraTarget::KProj, &mut attention.k_proj),
                (LoraTarget::VProj, &mut attention.v_proj),
                (LoraTarget::OProj, &mut attention.o_proj),
                (LoraTarget::GateProj, &mut mlp.gate_proj),
                (LoraTarget::UpProj, &mut mlp.up_proj),
                (LoraTarget::DownProj, &mut mlp.down_proj),
            ] {
                *linear = change(index, target, linear.clone());
            }
            layer
        })
        .collect();
    decoder
}

/// Writes the adapters alone.
///
/// # Errors
/// If a file cannot be written.
pub fn write(decoder: &Decoder, table: &LoraTable, folder: &Path) -> Result<(), TrainError> {
    let folder = folder.join(FOLDER);
    let io = |source| TrainError::Io {
        doing: "write",
        path: folder.clone(),
        source,
    };
    std::fs::create_dir_all(&folder).map_err(io)?;
    let mut values = parameters::values(decoder, |parameter| is_factor(&parameter.name));
    let mut targets: Vec<&str> = table.targets.iter().map(|target| target.name()).collect();
    let (mut ranks, mut alphas) = (Map::new(), Map::new());
    for whole in fused(decoder.config()) {
        let found = whole.take_from(&mut values);
        let before = targets.len();
        targets.retain(|target| !whole.has(target));
        let parts = before - targets.len();
        if parts > 0 {
            values.extend(found);
            targets.push(whole.name());
            // What a pair of factors adds is scaled by alpha over rank, which stays the same.
            ranks.insert(whole.name().into(), json!(parts * table.rank));
            alphas.insert(whole.name().into(), json!(parts as f64 * table.alpha));
        }
    }
    for value in &mut values {
        value.name = peft_name(&value.name);
    }
    write_values(&folder.join("adapter_model.safetensors"), &values)?;
    let config = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": table.rank,
        "lora_alpha": table.alpha,
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "lora_dropout": table.dropout,
        "target_modules": targets,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
    });
    let text = format!("{config:#}\n");
    std::fs::write(folder.join("adapter_config.json"), text).map_err(io)
}

/// Layers that lie side by side in one weight of a checkpoint.
struct Fused {
    /// The path of the one, in a decoder layer.
    path: &'static str,
    /// Paths of the layers and their outputs, in the order of its rows.
    parts: Vec<(&'static str, usize)>,
}

/// What is fused in the checkpoints of a family. PEFT knows no other modules than theirs.
fn fused(config: &DecoderConfig) -> Vec<Fused> {
    if config.family != DecoderFamily::Phi3 {
        return Vec::new();
    }
    let (queries, keys) = (
        config.heads * config.head_dim,
        config.kv_heads * config.head_dim,
    );
    let up = config.intermediate;
    vec![
        Fused {
            path: "self_attn.qkv_proj",
            parts: vec![
                ("self_attn.q_proj", queries),
                ("self_attn.k_proj", keys),
                ("self_attn.v_proj", keys),
            ],
        },
        Fused {
            path: "mlp.gate_up_proj",
            parts: vec![("mlp.gate_proj", up), ("mlp.up_proj", up)],
        },
    ]
}

impl Fused {
    fn name(&self) -> &'static str {
        last_of(self.path)
    }

    fn has(&self, target: &str) -> bool {
        self.parts.iter().any(|(path, _)| last_of(path) == target)
    }

    /// Takes the factors of its parts out of `values`, and gives those of the whole: the first factors
    /// one below the other, the second ones in the corners of blocks, with zeros between.
    fn take_from(&self, values: &mut Vec<Values>) -> Vec<Values> {
        let place = |name: &str| {
            let module = [".self_attn.", ".mlp."]
                .iter()
                .find_map(|part| name.find(part))?;
            let (layer, rest) = (name[..module].to_owned(), &name[module + 1..]);
            let (path, factor) = rest.split_once(".lora.")?;
            let part = self.parts.iter().position(|(known, _)| *known == path)?;
            Some((layer, part, factor.to_owned()))
        };
        let mut layers: BTreeMap<String, BTreeMap<usize, [Option<Values>; 2]>> = BTreeMap::new();
        values.retain(|value| {
            let Some((layer, part, factor)) = place(&value.name) else {
                return true;
            };
            let pair = layers.entry(layer).or_default().entry(part).or_default();
            pair[usize::from(factor == "b")] = Some(value.clone());
            false
        });
        let whole = |(layer, parts): (String, BTreeMap<usize, [Option<Values>; 2]>)| {
            let outputs: usize = self.parts.iter().map(|(_, outputs)| outputs).sum();
            let first: Vec<&Values> = parts.values().filter_map(|[a, _]| a.as_ref()).collect();
            let ranks: usize = first.iter().map(|a| a.shape[0]).sum();
            let inputs = first.first().map_or(0, |a| a.shape[1]);
            let mut second = vec![0.0; outputs * ranks];
            let (mut row, mut column) = (0, 0);
            for (part, (_, height)) in self.parts.iter().enumerate() {
                if let Some([_, Some(b)]) = parts.get(&part) {
                    let rank = b.shape[1];
                    for (y, values) in b.values.chunks(rank).enumerate() {
                        let at = (row + y) * ranks + column;
                        second[at..at + rank].copy_from_slice(values);
                    }
                    column += rank;
                }
                row += height;
            }
            let value = |factor: &str, shape: [usize; 2], values| Values {
                name: format!("{layer}.{}.lora.{factor}", self.path),
                shape: shape.to_vec(),
                values,
            };
            let first = first
                .iter()
                .flat_map(|a| a.values.iter().copied())
                .collect();
            [
                value("a", [ranks, inputs], first),
                value("b", [outputs, ranks], second),
            ]
        };
        layers.into_iter().flat_map(whole).collect()
    }
}

fn last_of(path: &'static str) -> &'static str {
    path.rsplit('.').next().unwrap_or(path)
}

fn is_factor(path: &str) -> bool {
    path.ends_with(".lora.a") || path.ends_with(".lora.b")
}

/// `layers.0.self_attn.q_proj.lora.a` as PEFT calls it.
fn peft_name(path: &str) -> String {
    let path = path.replace(".lora.a", ".lora_A.weight");
    let path = path.replace(".lora.b", ".lora_B.weight");
    format!("base_model.model.model.{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_have_the_names_of_peft() {
        assert_eq!(
            peft_name("layers.3.mlp.up_proj.lora.b"),
            "base_model.model.model.layers.3.mlp.up_proj.lora_B.weight"
        );
        assert!(!is_factor("layers.3.mlp.up_proj.weight"));
    }

    /// Of two layers of two and one outputs, rank 1, with one input: what the whole adds is what they add.
    #[test]
    fn factors_of_fused_layers_are_blocks() {
        let value = |name: &str, shape: [usize; 2], values: &[f32]| Values {
            name: name.into(),
            shape: shape.to_vec(),
            values: values.to_vec(),
        };
        let mut values = vec![
            value("layers.0.mlp.gate_proj.lora.a", [1, 2], &[1.0, 2.0]),
            value("layers.0.mlp.gate_proj.lora.b", [2, 1], &[3.0, 4.0]),
            value("layers.0.mlp.down_proj.lora.a", [1, 1], &[9.0]),
            value("layers.0.mlp.up_proj.lora.a", [1, 2], &[5.0, 6.0]),
            value("layers.0.mlp.up_proj.lora.b", [1, 1], &[7.0]),
        ];
        let whole = Fused {
            path: "mlp.gate_up_proj",
            parts: vec![("mlp.gate_proj", 2), ("mlp.up_proj", 1)],
        };
        let found = whole.take_from(&mut values);
        assert_eq!(values.len(), 1);
        let (a, b) = ([1.0, 2.0, 5.0, 6.0], [3.0, 0.0, 4.0, 0.0, 0.0, 7.0]);
        let name = "layers.0.mlp.gate_up_proj.lora";
        let wanted = [
            value(&format!("{name}.a"), [2, 2], &a),
            value(&format!("{name}.b"), [3, 2], &b),
        ];
        assert_eq!(found, wanted);
        assert!(whole.has("up_proj") && !whole.has("down_proj"));
    }
}
