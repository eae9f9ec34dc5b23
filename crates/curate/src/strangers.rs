//! Names in a recipe that mean no source: mostly misspelt ones.
//!
//! A cap for a source that is not there does nothing, and says nothing. That is right where a table
//! of all sources of a large pool is used for a part of it, so a name that a rule has is fine; a name
//! that neither a rule nor any sample has is listed.

use std::collections::BTreeSet;

use crate::recipe::Recipe;
use crate::sources::Origin;
use crate::toml_file::with_nearest;

/// What the recipe says of sources that nothing knows. `origins` are the sources of the pool.
pub fn warnings<'a>(recipe: &Recipe, origins: impl Iterator<Item = &'a Origin>) -> Vec<String> {
    let ruled = recipe.source.iter().map(|rule| rule.name.as_str());
    let found = origins.map(|origin| origin.source.as_str());
    let known: BTreeSet<&str> = ruled.chain(found).collect();
    let prompts = recipe.prompts.as_ref();
    let prompted = prompts.into_iter().flat_map(|table| table.sources.keys());
    let capped = recipe.cap.sources.keys();
    let named = capped
        .map(|name| ("cap.sources", name))
        .chain(prompted.map(|name| ("prompts.sources", name)));
    let strange = named.filter(|(_, name)| !known.contains(name.as_str()));
    strange
        .map(|(table, name)| {
            let what =
                format!("`{table}` names `{name}`, but no rule and no sample has this source");
            with_nearest(&what, name, known.iter().copied())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_source_is_listed_with_the_nearest_name() {
        let text = "[cap.sources]\nDVQA = 1\nCLEVER = 2\nGQA = 3\n[[source]]\nname = 'DVQA'\n";
        let recipe: Recipe = toml::from_str(text).unwrap();
        let pool = ["CLEVR", "GQA"].map(|name| Origin {
            source: name.to_owned(),
            category: String::new(),
        });
        let warnings = warnings(&recipe, pool.iter());
        assert_eq!(warnings.len(), 1);
        assert!(
            warnings[0].ends_with("did you mean `CLEVR`?"),
            "{warnings:?}"
        );
    }
}
