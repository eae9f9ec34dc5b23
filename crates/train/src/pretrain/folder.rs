//! Small files of a checkpoint folder.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::TrainError;

/// Writes a JSON file that appears whole or not at all; the folder is created if need be.
pub(crate) fn write_json(folder: &Path, name: &str, value: &Value) -> Result<(), TrainError> {
    let path = folder.join(name);
    let temporary = folder.join(format!(".{name}.{}.part", std::process::id()));
    let write = || {
        fs::create_dir_all(folder)?;
        fs::write(&temporary, format!("{value:#}\n"))?;
        fs::rename(&temporary, &path)
    };
    write().map_err(|source| TrainError::Io {
        doing: "write",
        path: path.clone(),
        source,
    })
}
