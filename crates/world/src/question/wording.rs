//! The small grammar that questions and captions need, and drawing by weights.
//!
//! Both spellings of *colour* occur in what is asked, because both occur in what people ask.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

/// A number up to twelve in words, larger ones in digits.
pub fn number(n: usize) -> String {
    const WORDS: [&str; 13] = [
        "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
        "eleven", "twelve",
    ];
    WORDS
        .get(n)
        .map_or_else(|| n.to_string(), |word| (*word).to_owned())
}

/// `first`, `second`, … up to `eighth`, then `9th`.
pub fn ordinal(index: usize) -> String {
    const WORDS: [&str; 8] = [
        "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth",
    ];
    WORDS
        .get(index)
        .map_or_else(|| format!("{}th", index + 1), |word| (*word).to_owned())
}

/// A noun phrase with `a` or `an`. Goes by the first letter, which is right for this vocabulary.
pub fn with_article(phrase: &str) -> String {
    let article = if phrase.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {phrase}")
}

/// `one`, `one and two`, `one, two and three`.
pub fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// The same text with a capital first letter.
pub fn capital(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}

/// `yes` or `no`.
pub fn yes_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

/// Puts values into a template: `{a}` becomes the value of `a`, `{A}` the same with a capital.
pub fn fill<V: AsRef<str>>(template: &str, values: &[(&str, V)]) -> String {
    let mut text = template.to_owned();
    for (name, value) in values {
        let value = value.as_ref();
        text = text.replace(&format!("{{{name}}}"), value);
        text = text.replace(&format!("{{{}}}", capital(name)), &capital(value));
    }
    text
}

/// One of a few phrasings, filled in.
pub fn phrase<V: AsRef<str>>(
    templates: &[&str],
    values: &[(&str, V)],
    random: &mut ChaCha8Rng,
) -> String {
    fill(templates.choose(random).copied().unwrap_or(""), values)
}

/// One item, drawn in proportion to its weight; `None` if all weights are zero.
pub fn weighted<T: Copy>(items: &[(T, u32)], random: &mut ChaCha8Rng) -> Option<T> {
    let total: u32 = items.iter().map(|(_, weight)| weight).sum();
    if total == 0 {
        return None;
    }
    let mut at = random.random_range(0..total);
    for (item, weight) in items {
        if at < *weight {
            return Some(*item);
        }
        at -= weight;
    }
    None
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn lists_and_articles_read_well() {
        let items = |n: usize| {
            ["a cube", "a ball", "a cone"][..n]
                .iter()
                .map(|item| (*item).to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(list(&items(1)), "a cube");
        assert_eq!(list(&items(2)), "a cube and a ball");
        assert_eq!(list(&items(3)), "a cube, a ball and a cone");
        assert_eq!(with_article("orange ring"), "an orange ring");
        assert_eq!(with_article("purple cone"), "a purple cone");
    }

    #[test]
    fn templates_are_filled_in_both_cases() {
        let text = fill("{A} is left of {b}.", &[("a", "the ball"), ("b", "it")]);
        assert_eq!(text, "The ball is left of it.");
    }

    #[test]
    fn weights_decide_how_often() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let draws: Vec<&str> = (0..4000)
            .filter_map(|_| weighted(&[("often", 3), ("seldom", 1), ("never", 0)], &mut random))
            .collect();
        let often = draws.iter().filter(|&&draw| draw == "often").count();
        assert!((2850..3150).contains(&often), "{often} of 4000");
        assert!(!draws.contains(&"never"));
        assert_eq!(weighted(&[("never", 0)], &mut random), None);
    }
}
