//! How a failure is shown: what was being done, what was found, what to do.

use std::error::Error;
use std::process::ExitCode;

use crate::output;

/// An error on its way to the user.
#[derive(Debug)]
pub struct Failure {
    error: Box<dyn Error>,
    hint: Option<String>,
}

impl Failure {
    /// A failure that has no error behind it.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            error: message.into().into(),
            hint: None,
        }
    }

    /// Says what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Prints `error:`, `caused by:` and `hint:` to standard error.
    pub fn report(&self) -> ExitCode {
        output::note(&format!("error: {}", self.error));
        let mut shown = self.error.to_string();
        let mut source = self.error.source();
        while let Some(cause) = source {
            // Transparent errors repeat their source's text.
            let text = cause.to_string();
            if text != shown {
                output::note(&format!("caused by: {text}"));
            }
            shown = text;
            source = cause.source();
        }
        if let Some(hint) = &self.hint {
            output::note(&format!("\nhint: {hint}"));
        }
        ExitCode::FAILURE
    }
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self {
            error: Box::new(error),
            hint: None,
        }
    }
}
