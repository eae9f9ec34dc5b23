//! Served models: one that is judged, one that judges.

use std::time::Duration;

use clap::Args;
use opabinia_eval::JudgeModel;
use opabinia_eval::endpoint::{Endpoint, EndpointOptions};

use crate::failure::Failure;

/// Which served models take part.
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
    /// Let a served model grade answers that no rule can judge.
    #[arg(long, value_name = "URL", requires = "judge_model")]
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

    /// The model that judges, if there is one.
    pub fn judge(&self) -> Result<Option<JudgeModel>, Failure> {
        let judge = self.open(&self.judge, &self.judge_model, &self.judge_key)?;
        Ok(judge.map(JudgeModel::new))
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
