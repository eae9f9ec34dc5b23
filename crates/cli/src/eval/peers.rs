//! Other models: a served one that is judged, one that judges.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use opabinia_eval::JudgeModel;
use opabinia_eval::endpoint::{Endpoint, EndpointOptions, LocalJudge};

use crate::args::ModelArgs;
use crate::failure::Failure;
use crate::load;

/// Which other models take part.
#[derive(Args)]
pub struct PeerArgs {
    /// Judge a model that is served with OpenAI's chat protocol, in place of `--model`.
    #[arg(long, value_name = "URL", requires = "endpoint_model")]
    endpoint: Option<String>,
    /// Its name on the server.
    #[arg(long, value_name = "NAME", requires = "endpoint")]
    endpoint_model: Option<String>,
    /// The environment variable that holds the key of the server.
    #[arg(long, value_name = "VARIABLE", requires = "endpoint")]
    endpoint_key: Option<String>,
    /// Let a model grade answers that no rule can judge: the address of one that is served, with
    /// --judge-model, or a model folder.
    #[arg(long, value_name = "URL|FOLDER")]
    judge: Option<String>,
    /// Its name on the server.
    #[arg(long, value_name = "NAME", requires = "judge")]
    judge_model: Option<String>,
    /// The environment variable that holds the key of the judge's server.
    #[arg(long, value_name = "VARIABLE", requires = "judge")]
    judge_key: Option<String>,
    /// How often a served model is asked again that does not answer.
    #[arg(long, default_value_t = 5)]
    retries: u32,
    /// Seconds that a served model has for an answer.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
}

impl PeerArgs {
    /// The served model that is judged, if there is one.
    pub fn endpoint(&self) -> Result<Option<Endpoint>, Failure> {
        self.open(&self.endpoint, &self.endpoint_model, &self.endpoint_key)
    }

    /// The model that judges, if there is one. A folder is loaded as `--model` is, onto the same device.
    pub fn judge(&self, like: &ModelArgs, verbose: bool) -> Result<Option<JudgeModel>, Failure> {
        let Some(judge) = &self.judge else {
            return Ok(None);
        };
        if is_address(judge) {
            if self.judge_model.is_none() {
                return Err(
                    Failure::new(format!("which model at `{judge}` shall judge?"))
                        .hint("pass its name on the server: `--judge-model NAME`"),
                );
            }
            let judge = self.open(&self.judge, &self.judge_model, &self.judge_key)?;
            return Ok(judge.map(JudgeModel::new));
        }
        for (given, flag) in [
            (&self.judge_model, "--judge-model"),
            (&self.judge_key, "--judge-key"),
        ] {
            if given.is_some() {
                return Err(Failure::new(format!(
                    "{flag} is for a model that is served, and `{judge}` is no address"
                ))
                .hint("an address begins with http:// or https://; of a model folder leave the flag out"));
            }
        }
        let model = load::model(&like.for_another(judge), verbose).map_err(|failure| {
            failure.hint(
                "`--judge` is the address of a served model, which begins with http:// or https://, or a \
                 model folder (it holds config.json)",
            )
        })?;
        let name = Path::new(judge).file_name();
        let name = name.map_or(judge.as_str(), |name| name.to_str().unwrap_or(judge));
        Ok(Some(JudgeModel::new(LocalJudge::new(model, name))))
    }

    fn open(
        &self,
        url: &Option<String>,
        model: &Option<String>,
        key: &Option<String>,
    ) -> Result<Option<Endpoint>, Failure> {
        let (Some(url), Some(model)) = (url, model) else {
            return Ok(None);
        };
        let options = EndpointOptions {
            key_variable: key.clone(),
            retries: self.retries,
            timeout: Duration::from_secs(self.timeout),
            ..EndpointOptions::new(url, model)
        };
        Ok(Some(Endpoint::new(options)?))
    }
}

/// Whether a judge is named by an address.
fn is_address(judge: &str) -> bool {
    let lower = judge.to_ascii_lowercase();
    lower.starts_with("http://") || lower.starts_with("https://")
}
