//! Ctrl-C stops an answer before it stops the program.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::failure::Failure;
use crate::output;

static ASKED: AtomicBool = AtomicBool::new(false);
static WATCHING: OnceLock<()> = OnceLock::new();

/// Starts to watch for Ctrl-C. The second one, if nobody has taken the first, ends the program.
pub fn watch() -> Result<(), Failure> {
    if WATCHING.set(()).is_err() {
        return Ok(());
    }
    ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::SeqCst) {
            output::note("interrupted");
            std::process::exit(130);
        }
    })?;
    Ok(())
}

/// Whether Ctrl-C was pressed since [`reset`].
pub fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}

/// Forgets an earlier Ctrl-C.
pub fn reset() {
    ASKED.store(false, Ordering::SeqCst);
}
