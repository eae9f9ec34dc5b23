//! Names of files that data brings along: they may name what is in their folder, and nothing else.

use std::path::{Component, Path};

/// Whether a name cannot leave the folder that it is joined to. Names in data are written with `/`; one
/// with a backslash would mean another file elsewhere, and is refused.
#[must_use]
pub fn stays_inside(name: &str) -> bool {
    let inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    !name.is_empty() && !name.contains('\\') && Path::new(name).components().all(inside)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_stay_inside() {
        assert!(stays_inside("MMVP Images/1.jpg") && stays_inside("./a") && stays_inside("a..b"));
        for wrong in ["", "/etc/passwd", "..", "../a", "a/../../b", "a\\..\\b"] {
            assert!(!stays_inside(wrong), "{wrong}");
        }
    }

    proptest! {
        /// Whatever is accepted, joined to a folder, begins with it and never goes up.
        #[test]
        fn what_is_accepted_is_below(name in "[a./\\\\]{0,8}") {
            if stays_inside(&name) {
                let joined = Path::new("/folder").join(&name);
                prop_assert!(joined.starts_with("/folder"));
                prop_assert!(!joined.components().any(|part| part == Component::ParentDir));
            }
        }
    }
}
