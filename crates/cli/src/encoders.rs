//! `encoders`: the registry as a table.

use std::process::ExitCode;

use clap::Args;
use opabinia_vision::describe;
use serde_json::json;

use crate::{Outcome, output, shipped};

/// List the vision encoders.
#[derive(Args)]
pub struct Encoders {
    /// One JSON object per encoder.
    #[arg(long)]
    json: bool,
}

impl Encoders {
    /// Prints the table.
    pub fn run(self) -> Outcome {
        let rows = describe()?;
        if self.json {
            for row in rows {
                let line = json!({
                    "name": row.name, "family": row.family.to_string(), "side": row.side,
                    "stride": row.stride, "rows": row.grid.rows, "cols": row.grid.cols,
                    "width": row.width, "layers": row.layers, "parameters": row.parameters,
                    "license": row.licence, "repo": row.repo,
                });
                output::data(&line.to_string());
            }
            return Ok(ExitCode::SUCCESS);
        }
        let rows: Vec<Vec<String>> = rows
            .iter()
            .map(|row| {
                vec![
                    row.name.to_string(),
                    row.family.to_string(),
                    format!("{} px", row.side),
                    row.stride.to_string(),
                    row.grid.to_string(),
                    row.width.to_string(),
                    output::count(row.parameters),
                    row.licence.to_string(),
                    match (row.repo, shipped::tower(row.name)) {
                        (Some(_), _) => "hub",
                        (None, Some(_)) => "models/small",
                        (None, None) => "recipes/small",
                    }
                    .to_string(),
                ]
            })
            .collect();
        let header = [
            "name",
            "family",
            "input",
            "patch",
            "grid",
            "width",
            "parameters",
            "license",
            "weights",
        ];
        output::data(&output::table(&header, &rows));
        Ok(ExitCode::SUCCESS)
    }
}
