//! Where the parts of a model lie in a published checkpoint: tables from module paths to file keys.

use opabinia_connector::{ConnectorConfig, ProjectorKind};
use opabinia_llm::{DecoderConfig, DecoderFamily};
use opabinia_weights::KeyMap;

/// The decoder's keys; `model.` in front of everything but the head.
#[must_use]
pub fn decoder(config: &DecoderConfig) -> KeyMap {
    let map = match config.family {
        DecoderFamily::Phi3 => phi3_fused(config),
        DecoderFamily::Llama | DecoderFamily::Mistral | DecoderFamily::Gemma => KeyMap::new(),
    };
    map.rename(r"^(embed_tokens|layers|norm)\.", "model.${1}.")
}

/// Phi-3 stores queries, keys and values as one matrix, and gate and up as another.
fn phi3_fused(config: &DecoderConfig) -> KeyMap {
    let queries = config.heads * config.head_dim;
    let keys = config.kv_heads * config.head_dim;
    let (k, v) = (queries, queries + keys);
    let up = config.intermediate;
    KeyMap::new()
        .part(r"self_attn\.q_proj\.", "self_attn.qkv_proj.", 0..k)
        .part(r"self_attn\.k_proj\.", "self_attn.qkv_proj.", k..v)
        .part(r"self_attn\.v_proj\.", "self_attn.qkv_proj.", v..v + keys)
        .part(r"mlp\.gate_proj\.", "mlp.gate_up_proj.", 0..up)
        .part(r"mlp\.up_proj\.", "mlp.gate_up_proj.", up..2 * up)
}

/// The connector's keys.
#[must_use]
pub fn connector(config: &ConnectorConfig) -> KeyMap {
    let map = match config {
        ConnectorConfig::Sva(_) => sva(),
        ConnectorConfig::Projector(config) => projector(config.kind),
    };
    map.rename(r"^newline$", "image_newline").prefix("model.")
}

fn sva() -> KeyMap {
    let map = KeyMap::new()
        .rename(r"^kind\.(Sva\.)?", "")
        .rename(r"^encoders\.(\d+)\.mlp\.fc1\.", "mm_projector_aux_${1}.0.")
        .rename(r"^encoders\.(\d+)\.mlp\.fc2\.", "mm_projector_aux_${1}.2.")
        .rename(r"^encoders\.(\d+)\.norm\.", "mm_projector_aux_${1}.3.")
        .rename(r"^queries$", "vision_query")
        .rename(r"^projector\.fc1\.", "mm_projector.0.")
        .rename(r"^projector\.fc2\.", "mm_projector.2.")
        .rename(r"^groups\.(\d+)\.", "vision_sampler_${1}.")
        .rename(r"^in_llm\.(\d+)\.", "vision_sampler_layers.${1}.");
    sampler_rules(map)
}

/// A sampler alone, its keys behind `prefix`.
#[must_use]
pub fn sampler(prefix: &str) -> KeyMap {
    sampler_rules(KeyMap::new()).prefix(prefix)
}

fn sampler_rules(map: KeyMap) -> KeyMap {
    let joint = "aggregation.(?:Joint\\.)?";
    let separate = "aggregation.(?:Separate\\.)?";
    let solo = format!(r"{separate}encoders\.(\d+)\.(?:Attention\.|Feature\.)?");
    map.rename(r"\.pos_embed\.(\d+)$", ".pos_embed_${1}")
        .rename(r"\.proj_out\.fc(\d)\.", ".proj_out.linear_${1}.")
        // Joint layers: one attention over all encoders.
        .rename(
            &format!(r"{joint}encoders\.(\d+)\.key\.norm\."),
            "cross_attn.k_proj_${1}.0.",
        )
        .rename(
            &format!(r"{joint}encoders\.(\d+)\.key\.linear\."),
            "cross_attn.k_proj_${1}.1.",
        )
        .rename(
            &format!(r"{joint}encoders\.(\d+)\.value\.norm\."),
            "cross_attn.v_proj_${1}.0.",
        )
        .rename(
            &format!(r"{joint}encoders\.(\d+)\.value\.linear\."),
            "cross_attn.v_proj_${1}.1.",
        )
        .rename(&format!(r"{joint}query\.norm\."), "cross_attn.q_proj.0.")
        .rename(&format!(r"{joint}query\.linear\."), "cross_attn.q_proj.1.")
        .rename(&format!(r"{joint}out\."), "cross_attn.o_proj.")
        // Separate layers: an attention or an MLP per encoder, and their weights.
        .rename(
            &format!(r"{separate}weights\.fc(\d)\."),
            "weight_mlp.linear_${1}.",
        )
        .rename(
            &format!(r"{solo}fc(\d)\."),
            "aggregate_${1}.attention_layer.linear_${2}.",
        )
        .rename(
            &format!(r"{solo}query\.norm\."),
            "aggregate_${1}.attention_layer.q_proj.0.",
        )
        .rename(
            &format!(r"{solo}query\.linear\."),
            "aggregate_${1}.attention_layer.q_proj.1.",
        )
        .rename(
            &format!(r"{solo}window\.key\.norm\."),
            "aggregate_${1}.attention_layer.k_proj.0.",
        )
        .rename(
            &format!(r"{solo}window\.key\.linear\."),
            "aggregate_${1}.attention_layer.k_proj.1.",
        )
        .rename(
            &format!(r"{solo}window\.value\.norm\."),
            "aggregate_${1}.attention_layer.v_proj.0.",
        )
        .rename(
            &format!(r"{solo}window\.value\.linear\."),
            "aggregate_${1}.attention_layer.v_proj.1.",
        )
        .rename(
            &format!(r"{solo}out\."),
            "aggregate_${1}.attention_layer.o_proj.",
        )
}

fn projector(kind: ProjectorKind) -> KeyMap {
    projector_alone(kind, r"^kind\.(?:Projector\.)?")
}

/// A projector's keys; `root` is the pattern of the module path to it.
#[must_use]
pub fn projector_alone(kind: ProjectorKind, root: &str) -> KeyMap {
    let map = KeyMap::new().rename(
        &format!("{root}(?:Mlp|SqueezeExcite|CAbstractor)?\\.?"),
        "mm_projector.",
    );
    match kind {
        ProjectorKind::Linear => map.rename(r"^mm_projector\.0\.", "mm_projector."),
        // Numbers count the activations between the layers too.
        ProjectorKind::Mlp { layers } => (1..layers).rev().fold(map, |map, i| {
            spread(map, r"^mm_projector", "mm_projector", i)
        }),
        ProjectorKind::Identity => map,
        ProjectorKind::SqueezeExcite => map
            .rename(r"^mm_projector\.gate\.1\.", "mm_projector.se.2.")
            .rename(r"^mm_projector\.gate\.0\.", "mm_projector.se.0.")
            .rename(r"^mm_projector\.proj\.1\.", "mm_projector.proj.2."),
        ProjectorKind::CAbstractor => map
            .rename(r"^mm_projector\.downsample\.", "mm_projector.downsamples.")
            .rename(r"^mm_projector\.readout\.1\.", "mm_projector.readout.2."),
    }
}

/// Layer `i` of a sequence is item `2·i` in the file.
fn spread(map: KeyMap, pattern: &str, replacement: &str, i: usize) -> KeyMap {
    map.rename(
        &format!(r"{pattern}\.{i}\."),
        &format!("{replacement}.{}.", 2 * i),
    )
}

/// In front of the keys of vision encoder `index` where it is inside the model's own files.
#[must_use]
pub fn encoder_inside(index: usize) -> String {
    format!("model.vision_tower_aux_list.{index}.vision_tower.")
}

/// Keys of a checkpoint that no part of the model asks for, by rule.
pub const IGNORED: &[&str] = &[
    // Buffers, not weights.
    r"rotary_emb\.inv_freq$",
    // A table in GGUF files of what `rope_scaling` in `config.json` says.
    r"^rope_freqs\.weight$",
    // Encoders inside the file are loaded by their own maps.
    r"^model\.vision_tower_aux_list\.",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_of_a_sequence_are_spread_without_colliding() {
        let map = projector(ProjectorKind::Mlp { layers: 4 });
        let keys: Vec<_> = (0..4)
            .map(|i| map.file_key(&format!("kind.Projector.Mlp.{i}.weight")).key)
            .collect();
        assert_eq!(
            keys,
            [
                "mm_projector.0.weight",
                "mm_projector.2.weight",
                "mm_projector.4.weight",
                "mm_projector.6.weight"
            ]
        );
    }
}
