//! Low-rank adapters on the decoder (LoRA, arXiv 2106.09685).
//!
//! While they train, the decoder's own weights rest. The result of a run is a whole model with the
//! adapters folded in, like any other, and beside it the adapters alone in the layout of PEFT
//! (`adapter_config.json`, `adapter_model.safetensors`), for whoever keeps one base and many of them.

use std::path::Path;

use opabinia_llm::Decoder;
use opabinia_nn::{Linear, LoraShape};
use serde_json::json;

use crate::TrainError;
use crate::engine::loader::stream_seed;
use crate::engine::parameters;
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
    for value in &mut values {
        value.name = peft_name(&value.name);
    }
    write_values(&folder.join("adapter_model.safetensors"), &values)?;
    let targets: Vec<&str> = table.targets.iter().map(|target| target.name()).collect();
    let config = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": table.rank,
        "lora_alpha": table.alpha,
        "lora_dropout": table.dropout,
        "target_modules": targets,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
    });
    let text = format!("{config:#}\n");
    std::fs::write(folder.join("adapter_config.json"), text).map_err(io)
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
}
