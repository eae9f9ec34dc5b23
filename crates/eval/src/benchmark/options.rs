//! Options of a question where a data set does not have them as a list: inside the question, or as a
//! list that Python printed.

/// The letter of an option, from 0.
pub(super) fn letter(index: usize) -> Option<char> {
    let index = u8::try_from(index).ok().filter(|index| *index < 26)?;
    Some(char::from(b'A' + index))
}

/// The option that a letter stands for: `B`, `b`, `(B)`, `B.`.
pub(super) fn index_of_letter(text: &str) -> Option<usize> {
    let text = text.trim();
    let text = text.strip_prefix('(').unwrap_or(text);
    let text = text.strip_suffix([')', '.']).unwrap_or(text);
    let mut letters = text.chars();
    let letter = letters.next().filter(char::is_ascii_alphabetic)?;
    if letters.next().is_some() {
        return None;
    }
    Some(usize::from(letter.to_ascii_uppercase() as u8 - b'A'))
}

/// The options in a text, each between its mark and the next one; the last goes to the end of its
/// line. `mark` shows how the first is marked, such as `(A)`, `A.` or `(a)`. Fewer than two options
/// are none. `None` if the mark has no letter A.
pub(super) fn marked(text: &str, mark: &str) -> Option<Vec<String>> {
    let (before, small, after) = match (mark.split_once('A'), mark.split_once('a')) {
        (Some((before, after)), _) => (before, false, after),
        (None, Some((before, after))) => (before, true, after),
        (None, None) => return None,
    };
    let mut marks = Vec::new();
    let mut from = 0;
    for index in 0..26 {
        let letter = letter(index)?;
        let letter = if small {
            letter.to_ascii_lowercase()
        } else {
            letter
        };
        let Some(span) = find_mark(text, from, &format!("{before}{letter}{after}")) else {
            break;
        };
        from = span.1;
        marks.push(span);
    }
    if marks.len() < 2 {
        return Some(Vec::new());
    }
    let ends = marks.iter().skip(1).map(|(start, _)| *start);
    let ends = ends.map(Some).chain([None]);
    let options = marks.iter().zip(ends).map(|((_, start), end)| {
        let option = match end {
            Some(end) => text.get(*start..end),
            None => text
                .get(*start..)
                .and_then(|rest| rest.trim_start().lines().next()),
        };
        let option = option.unwrap_or_default().trim();
        option.trim_end_matches([',', ';']).trim_end().to_owned()
    });
    Some(options.collect())
}

/// Where a mark stands at or after `from`: at the beginning, or after white space.
fn find_mark(text: &str, from: usize, mark: &str) -> Option<(usize, usize)> {
    let rest = text.get(from..)?;
    let mut places = rest.match_indices(mark).map(|(place, _)| from + place);
    let start = places.find(|&place| {
        let before = text.get(..place).unwrap_or_default();
        before.is_empty() || before.ends_with(char::is_whitespace)
    })?;
    Some((start, start + mark.len()))
}

/// The items of a list of strings and numbers as Python prints it, `['a', "b's", 3]`; any other text
/// is a list of one.
pub(super) fn python_list(text: &str) -> Vec<String> {
    parse_python_list(text.trim()).unwrap_or_else(|| vec![text.to_owned()])
}

fn parse_python_list(text: &str) -> Option<Vec<String>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let mut rest = inner.trim_start();
    let mut items = Vec::new();
    while !rest.is_empty() {
        let (item, behind) = match rest.chars().next()? {
            quote @ ('\'' | '"') => quoted(rest.get(1..)?, quote)?,
            _ => {
                let end = rest.find(',').unwrap_or(rest.len());
                let (item, behind) = rest.split_at_checked(end)?;
                let item = item.trim_end();
                let plain = |c: char| !c.is_whitespace() && !"'\"[](){}".contains(c);
                (item.chars().all(plain) && !item.is_empty()).then(|| (item.to_owned(), behind))?
            }
        };
        items.push(item);
        let behind = behind.trim_start();
        rest = match behind.strip_prefix(',') {
            Some(next) => next.trim_start(),
            None if behind.is_empty() => behind,
            None => return None,
        };
    }
    Some(items)
}

/// A string up to its closing quote, and what follows.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut item = String::new();
    let mut chars = text.char_indices();
    while let Some((place, c)) = chars.next() {
        match c {
            '\\' => match chars.next()?.1 {
                'n' => item.push('\n'),
                't' => item.push('\t'),
                'r' => item.push('\r'),
                escaped @ ('\\' | '\'' | '"') => item.push(escaped),
                // Any other backslash is one, as in LaTeX.
                other => item.extend(['\\', other]),
            },
            _ if c == quote => return Some((item, text.get(place + 1..)?)),
            _ => item.push(c),
        }
    }
    None
}

/// What stands between single quotes, shortest first, within a line: how the reference reads printed
/// lists. An option that contains an apostrophe is printed in double quotes, and is lost.
pub(super) fn single_quoted(text: &str) -> Vec<String> {
    let mut items = Vec::new();
    let mut rest = text;
    while let Some((_, behind)) = rest.split_once('\'') {
        let line_ends = behind.find('\n').unwrap_or(usize::MAX);
        match behind.split_once('\'') {
            Some((item, next)) if item.len() <= line_ends => {
                items.push(item.to_owned());
                rest = next;
            }
            _ => rest = behind,
        }
    }
    items
}

/// A text without `<image 1>`, `<image 2>`, ….
pub(super) fn without_image_tags(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("<image ") {
        kept.push_str(before);
        let digits = behind.trim_start_matches(|c: char| c.is_ascii_digit());
        match digits.strip_prefix('>') {
            Some(after) if digits.len() < behind.len() => rest = after,
            _ => {
                kept.push_str("<image ");
                rest = behind;
            }
        }
    }
    kept.push_str(rest);
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn letters() {
        assert_eq!(
            (letter(0), letter(25), letter(26)),
            (Some('A'), Some('Z'), None)
        );
        for text in ["B", "b", "(B)", "(b)", " B. ", "B)"] {
            assert_eq!(index_of_letter(text), Some(1), "{text}");
        }
        for text in ["", "BB", "1", "()", "é", "yes"] {
            assert_eq!(index_of_letter(text), None, "{text}");
        }
    }

    #[test]
    fn options_inside_texts() {
        let find = |text, mark| marked(text, mark).unwrap();
        let vstar = "What is it?\n(A) rubber\n(B) cotton\nAnswer with the letter.";
        assert_eq!(find(vstar, "(A)"), ["rubber", "cotton"]);
        let mmstar = "Which?\nOptions: A: red, B: one, two, C: blue";
        assert_eq!(find(mmstar, "A:"), ["red", "one, two", "blue"]);
        assert_eq!(find("(a) Open (b) Closed", "(a)"), ["Open", "Closed"]);
        assert_eq!(find("Is there an A. or not?", "A."), [""; 0]);
        assert_eq!(find("U.S.A. or U.B. then", "A."), [""; 0]);
        assert_eq!(marked("x", "(1)"), None);
    }

    #[test]
    fn lists_that_python_printed() {
        assert_eq!(
            python_list("['a', \"b's\", 'c\\'d', 3, '']"),
            ["a", "b's", "c'd", "3", ""]
        );
        assert_eq!(python_list("[]"), [""; 0]);
        assert_eq!(
            python_list("['\\\\frac{1}{2}', '\\alpha']"),
            ["\\frac{1}{2}", "\\alpha"]
        );
        for text in ["plain", "[a b]", "['open", "['a' 'b']", "[1, [2]]"] {
            assert_eq!(python_list(text), [text], "{text}");
        }
    }

    /// The second option is printed in double quotes; its apostrophe then pairs with the next quote.
    #[test]
    fn the_reference_loses_options_with_apostrophes() {
        assert_eq!(single_quoted("['a', 'b', 'c']"), ["a", "b", "c"]);
        assert_eq!(single_quoted("['a', \"b's\", 'c']"), ["a", "s\", "]);
        assert_eq!(single_quoted("['a\nb', 'c']"), [", "]);
    }

    #[test]
    fn image_tags() {
        assert_eq!(without_image_tags("<image 1> a <image 12>b"), " a b");
        assert_eq!(
            without_image_tags("<image> <image x> <image "),
            "<image> <image x> <image "
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn any_text_is_read(text in ".{0,40}", listed in "[\\['\",ab \\\\\\]]{0,24}") {
            for text in [&text, &listed] {
                let _ = python_list(text);
                let _ = single_quoted(text);
                let _ = marked(text, "(A)");
                let _ = index_of_letter(text);
                prop_assert!(without_image_tags(text).len() <= text.len());
            }
        }

        #[test]
        fn what_python_prints_comes_back(items in proptest::collection::vec("[a-z ,\\[\\]\"]{0,6}", 1..5)) {
            let printed: Vec<String> = items.iter().map(|item| format!("'{item}'")).collect();
            prop_assert_eq!(python_list(&format!("[{}]", printed.join(", "))), items);
        }
    }
}
