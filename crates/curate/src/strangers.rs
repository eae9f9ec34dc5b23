//! Names in a recipe that mean no source, mostly misspelt ones, and prompts that no source asks for.
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
    let rewritten = recipe.rewrite.iter().flat_map(|table| &table.sources);
    let named = capped
        .map(|name| ("cap.sources", name))
        .chain(prompted.map(|name| ("prompts.sources", name)))
        .chain(rewritten.map(|name| ("rewrite.sources", name)));
    let strange = named.filter(|(_, name)| !known.contains(name.as_str()));
    let strange = strange.map(|(table, name)| {
        let what = format!("`{table}` names `{name}`, but no rule and no sample has this source");
        with_nearest(&what, name, known.iter().copied())
    });
    strange.chain(idle_prompts(recipe)).collect()
}

/// A table of prompts without sources would add nothing, and say nothing.
fn idle_prompts(recipe: &Recipe) -> Option<String> {
    let prompts = recipe.prompts.as_ref()?;
    let ruled = recipe.source.iter().map(|rule| &rule.prompts);
    let is_asked = ruled
        .chain(prompts.sources.values())
        .any(|names| !names.is_empty());
    (!is_asked && !prompts.prompt.is_empty()).then(|| {
        format!(
            "no source asks for any of the {} format prompts, so none is added; `prompts.sources`, or `prompts` in a \
             file of sources, says which source gets which",
            prompts.prompt.len()
        )
    })
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

    #[test]
    fn prompts_that_nobody_asks_for_are_said() {
        let of = |more: &str| {
            let text = format!("[[prompts.prompt]]\nname = 'word'\ntext = 'One word.'\n{more}");
            let recipe: Recipe = toml::from_str(&text).unwrap();
            warnings(&recipe, std::iter::empty())
        };
        assert!(of("")[0].contains("no source asks for any of the 1 format prompts"));
        assert_eq!(of("[[source]]\nname = 'a'\nprompts = ['word']\n"), [""; 0]);
        let named = of("[[source]]\nname = 'a'\n[prompts.sources]\na = ['word']\n");
        assert_eq!(named, [""; 0]);
    }
}
