//! Where golden values of the training recipe lie.

use std::path::PathBuf;

use serde::de::DeserializeOwned;

/// The path of a file below `recipe/`.
pub fn path(name: &str) -> PathBuf {
    let root = std::env::var_os("OPABINIA_GOLDEN").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden")),
        PathBuf::from,
    );
    root.join("recipe").join(name)
}

/// Reads a JSON file below `recipe/`.
pub fn json<T: DeserializeOwned>(name: &str) -> T {
    let path = path(name);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{} is not as expected: {error}", path.display()))
}
