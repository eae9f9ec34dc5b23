//! How encoders are probed, and what there is to choose from.

use serde::Serialize;

use super::error::ProbeError;

/// A way of reading features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// A linear layer.
    Linear,
    /// The nearest neighbours.
    Knn,
}

impl Method {
    /// As tables have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Knn => "kNN",
        }
    }
}

/// How encoders are probed.
#[derive(Clone, Debug, Serialize)]
pub struct ProbeOptions {
    /// By what.
    pub methods: Vec<Method>,
    /// Strengths of the penalty λ to choose from.
    pub l2: Vec<f64>,
    /// Numbers of neighbours to choose from.
    pub neighbours: Vec<usize>,
    /// Temperatures of their votes to choose from.
    pub temperatures: Vec<f64>,
    /// Share of the training pictures that chooses.
    pub held_out: f64,
    /// Seed of what is held out and of intervals.
    pub seed: u64,
    /// Draws of a resampled interval.
    pub resamples: usize,
    /// Largest entry of the gradient that counts as the optimum.
    pub tolerance: f64,
    /// Steps of one fit at most.
    pub iterations: usize,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        Self {
            methods: vec![Method::Linear, Method::Knn],
            l2: vec![1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0],
            neighbours: vec![1, 5, 10, 20, 50, 100],
            temperatures: vec![0.02, 0.07, 0.2],
            held_out: 0.2,
            seed: 0,
            resamples: 500,
            tolerance: 1e-5,
            iterations: 500,
        }
    }
}

impl ProbeOptions {
    /// # Errors
    /// [`ProbeError::Option`] for values that mean nothing.
    pub fn check(&self) -> Result<(), ProbeError> {
        let refuse = |option, found: String, wanted| {
            Err(ProbeError::Option {
                option,
                found,
                wanted,
            })
        };
        if self.methods.is_empty() {
            return refuse("methods", "empty".into(), "at least one");
        }
        for (option, values) in [("l2", &self.l2), ("temperature", &self.temperatures)] {
            let bad = values
                .iter()
                .find(|value| !(**value > 0.0 && value.is_finite()));
            if let Some(bad) = bad {
                return refuse(option, bad.to_string(), "numbers above 0");
            }
            if values.is_empty() {
                return refuse(option, "empty".into(), "at least one number");
            }
        }
        if self.neighbours.is_empty() || self.neighbours.contains(&0) {
            let found = format!("{:?}", self.neighbours);
            return refuse("neighbours", found, "numbers from 1");
        }
        if !(self.held_out > 0.0 && self.held_out < 1.0) {
            let found = self.held_out.to_string();
            return refuse("held-out", found, "a share between 0 and 1");
        }
        if self.resamples == 0 {
            return refuse("resamples", "0".into(), "at least 1");
        }
        Ok(())
    }
}

/// A choice of hyper-parameters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Setting {
    /// Of the linear layer.
    Linear {
        /// λ.
        l2: f64,
    },
    /// Of the neighbours.
    Knn {
        /// How many.
        neighbours: usize,
        /// Of their votes.
        temperature: f64,
    },
}

impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Linear { l2 } => write!(f, "λ = {l2}"),
            Self::Knn {
                neighbours,
                temperature,
            } => write!(f, "k = {neighbours}, T = {temperature}"),
        }
    }
}
