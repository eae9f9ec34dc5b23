//! The two sets of rules.

use serde::{Deserialize, Serialize};

/// Which rules decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum Protocol {
    /// Those of common harnesses (lmms-eval, VLMEvalKit) and of the benchmarks' authors.
    #[default]
    Standard,
    /// Those of the reference implementation's scripts.
    Reference,
}

impl Protocol {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Standard, Self::Reference];

    /// As it is written on the command line and in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Reference => "reference",
        }
    }
}
