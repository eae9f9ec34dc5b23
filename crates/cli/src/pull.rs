//! `model pull`: from the Hugging Face hub to a folder.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use opabinia_model::ModelConfig;
use opabinia_vision::EncoderSpec;
use opabinia_weights::hub;

use crate::failure::Failure;
use crate::{Outcome, output};

/// Download a model folder from the Hugging Face hub.
#[derive(Args)]
pub struct Pull {
    /// Name on the hub, such as `nyu-visionx/cambrian-8b`.
    name: String,
    /// Branch, tag or commit.
    #[arg(long)]
    revision: Option<String>,
    /// Folder to write to; without it the files stay in the hub's cache.
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
    /// Leave the vision encoders that the model needs where they are.
    #[arg(long)]
    no_encoders: bool,
}

impl Pull {
    /// Downloads, and says where to.
    pub fn run(self) -> Outcome {
        let folder = hub::pull(&self.name, self.revision.as_deref(), self.to.as_deref())?;
        output::data(&folder.display().to_string());
        if !self.no_encoders {
            self.pull_encoders(&folder)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The released models keep their encoders' weights in repositories of their own.
    fn pull_encoders(&self, folder: &std::path::Path) -> Result<(), Failure> {
        let Some(vision) = ModelConfig::from_folder(folder)?.vision else {
            return Ok(());
        };
        for name in &vision.encoders {
            let spec = EncoderSpec::parse(name)?;
            // Some encoders are published with their model only, and came with the folder.
            let Ok(repository) = spec.entry.repository() else {
                continue;
            };
            let found = hub::resolve(repository, None, &[])?;
            output::data(&found.display().to_string());
        }
        Ok(())
    }
}
