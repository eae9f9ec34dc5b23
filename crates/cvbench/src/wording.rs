//! The sentences of CV-Bench.

use crate::question::lettered;
use crate::rules::Plural;

/// Counts a class.
pub(crate) fn count(class: &str, plural: Plural) -> String {
    let several = match plural {
        Plural::English => english_plural(class),
        Plural::Naive => format!("{class}s"),
    };
    format!("How many {several} are in the image?")
}

/// Where one thing is with respect to another; `boxed` if the first has a red box.
pub(crate) fn relation(first: &str, second: &str, boxed: bool) -> String {
    let mark = if boxed {
        " (annotated by the red box)"
    } else {
        ""
    };
    format!(
        "Considering the relative positions of the {first}{mark} and the {second} in the image \
         provided, where is the {first}{mark} located with respect to the {second}?"
    )
}

/// Which of two is closer to the camera.
pub(crate) fn depth(red: &str, blue: &str) -> String {
    format!(
        "Which object is closer to the camera taking this photo, the {red} (highlighted by a red \
         box) or the {blue} (highlighted by a blue box)?"
    )
}

/// Which of two is closer to a third.
pub(crate) fn distance(red: &str, blue: &str, green: &str) -> String {
    format!(
        "Estimate the real-world distances between objects in this image. Which object is closer to \
         the {red} (highlighted by a red box), the {blue} (highlighted by a blue box) or the {green} \
         (highlighted by a green box)?"
    )
}

/// A question with its options.
pub(crate) fn prompt(question: &str, choices: &[String]) -> String {
    let mut prompt = format!("{question} Select from the following choices.");
    for (index, choice) in choices.iter().enumerate() {
        prompt.push_str(&format!("\n{} {choice}", lettered(index)));
    }
    prompt
}

/// What common classes are called when there are several, where no rule gives it.
const IRREGULAR: [(&str, &str); 22] = [
    ("person", "people"),
    ("man", "men"),
    ("woman", "women"),
    ("child", "children"),
    ("mouse", "mice"),
    ("foot", "feet"),
    ("tooth", "teeth"),
    ("goose", "geese"),
    ("ox", "oxen"),
    ("knife", "knives"),
    ("leaf", "leaves"),
    ("shelf", "shelves"),
    ("loaf", "loaves"),
    ("wolf", "wolves"),
    ("sheep", "sheep"),
    ("fish", "fish"),
    ("deer", "deer"),
    ("aircraft", "aircraft"),
    ("scissors", "scissors"),
    ("skis", "skis"),
    ("broccoli", "broccoli"),
    ("tomato", "tomatoes"),
];

/// The plural of a class by its last word.
fn english_plural(class: &str) -> String {
    let (before, last) = match class.rsplit_once(' ') {
        Some((before, last)) => (format!("{before} "), last),
        None => (String::new(), class),
    };
    let lower = last.to_lowercase();
    let irregular = IRREGULAR.iter().find(|(one, _)| *one == lower);
    let several = match irregular {
        Some((_, several)) => (*several).to_owned(),
        None => regular(last),
    };
    before + &several
}

fn regular(word: &str) -> String {
    let ends = |endings: &[&str]| endings.iter().any(|ending| word.ends_with(ending));
    if ends(&["glasses", "pants", "trousers", "shorts", "jeans"]) {
        return word.to_owned();
    }
    if ends(&["s", "x", "z", "ch", "sh"]) {
        return format!("{word}es");
    }
    match word.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'i', 'o', 'u']) => format!("{stem}ies"),
        _ => format!("{word}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plurals() {
        for (one, several) in [
            ("dog", "dogs"),
            ("bus", "buses"),
            ("bench", "benches"),
            ("person", "people"),
            ("teddy bear", "teddy bears"),
            ("wine glass", "wine glasses"),
            ("knife", "knives"),
            ("berry", "berries"),
            ("key", "keys"),
            ("computer mouse", "computer mice"),
            ("sheep", "sheep"),
        ] {
            assert_eq!(english_plural(one), several);
        }
        assert_eq!(
            count("organ", Plural::Naive),
            "How many organs are in the image?"
        );
    }

    #[test]
    fn a_prompt_has_its_options_on_lines() {
        let prompt = prompt("Where?", &["left".into(), "right".into()]);
        assert_eq!(
            prompt,
            "Where? Select from the following choices.\n(A) left\n(B) right"
        );
        assert!(relation("cup", "cat", true).matches("the red box").count() == 2);
        assert!(!relation("cup", "cat", false).contains("box"));
    }
}
