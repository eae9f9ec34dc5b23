//! `model inspect`: what a model is made of, without loading it.

use std::process::ExitCode;

use clap::Args;
use opabinia_model::describe::{Cost, Description, describe};

use crate::{Outcome, load, output};

/// Show what a model is made of, without loading it.
#[derive(Args)]
pub struct Inspect {
    /// Model folder, or a name on the hub.
    model: String,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

impl Inspect {
    /// Prints the tree.
    pub fn run(self) -> Outcome {
        let folder = load::folder(&self.model)?;
        let description = describe(&folder)?;
        if self.json {
            output::data(&serde_json::to_string(&description)?);
        } else {
            show(&description);
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn show(model: &Description) {
    output::data(&format!(
        "{} ({})",
        model.folder.display(),
        model.model_type
    ));
    for (i, part) in model.parts.iter().enumerate() {
        let last = i + 1 == model.parts.len();
        output::data(&format!(
            "{} {:<22} {:>9} parameters  {:>9}  {}",
            if last { "└─" } else { "├─" },
            part.name,
            output::count(part.parameters),
            part.bytes.map_or_else(|| "not here".into(), output::bytes),
            part.what
        ));
        for (j, line) in part.details.iter().enumerate() {
            let stem = if last { "  " } else { "│ " };
            let branch = if j + 1 == part.details.len() {
                "└─"
            } else {
                "├─"
            };
            output::data(&format!("{stem} {branch} {line}"));
        }
    }
    output::data("");
    if let Some(picture) = &model.picture {
        output::data(&format!(
            "a square picture   {} × {} visual tokens and row ends, {} tokens in all",
            picture.rows, picture.cols, picture.tokens
        ));
    }
    output::data(&format!("longest prompt     {} tokens", model.max_length));
    output::data(&format!(
        "template           {} ({})",
        model.template.0, model.template.1
    ));
    let Cost {
        weights,
        cache,
        workspace,
        encode_flop,
        prefill_flop,
        ..
    } = model.cost;
    output::data(&format!(
        "memory             {} weights as stored, {} cache for a full context, {} to work",
        output::bytes(weights),
        output::bytes(cache),
        output::bytes(workspace)
    ));
    output::data(&format!(
        "an answer          {} to look, {} to read the prompt, {} read per token",
        output::flop(encode_flop),
        output::flop(prefill_flop),
        output::bytes(model.cost.bytes_per_token)
    ));
    output::data(&format!(
        "on this machine    about {} until the first word, {:.1} tokens/s ({:.0} GFLOP/s, \
         {:.1} GB/s measured just now)",
        output::seconds(model.cost.first_token_seconds),
        model.cost.tokens_per_second,
        model.cost.measured_flops / 1e9,
        model.cost.measured_bandwidth / 1e9
    ));
}
