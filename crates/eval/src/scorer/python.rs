//! Python's rules for text and numbers, where scores hang on them.
//!
//! The reference implementation and the field's harnesses are Python. What counts as white space,
//! what parses as a number and how numbers are rounded decides over points, so it is the same here.
//! Lower and upper case need no imitation: `str::to_lowercase` follows Unicode as Python does, with
//! the final sigma and the dotted capital I.

/// White space as `str.strip`, `str.split` and `\s` see it: Unicode's, and the four separators
/// U+001C to U+001F.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `str.strip()`.
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `str.split()`.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// A character of a word, as `\w` and `\b` see it.
pub(super) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether a character is a decimal digit of any script, `\d`.
pub(super) fn is_digit(c: char) -> bool {
    digit(c).is_some()
}

/// Number of code points, `len`.
pub(super) fn len(text: &str) -> usize {
    text.chars().count()
}

/// `float(text)`: white space around it, underscores between digits and digits of any script are
/// fine, as are `nan`, `inf` and `infinity`. `None` where Python raises.
pub(super) fn float(text: &str) -> Option<f64> {
    let text = text.trim_matches(is_space_around_numbers);
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let mut after_digit = false;
    while let Some(c) = chars.next() {
        if c == '_' {
            let before_digit = chars.peek().is_some_and(|next| is_digit(*next));
            if !after_digit || !before_digit {
                return None;
            }
        }
        let value = digit(c);
        after_digit = value.is_some();
        match value {
            Some(value) => plain.push(char::from(b'0' + value)),
            None if c == '_' => {}
            None => plain.push(c),
        }
    }
    plain.parse().ok()
}

/// Numbers are stripped by the rules of C, which leave U+001C to U+001F, and of Unicode beyond
/// ASCII.
fn is_space_around_numbers(c: char) -> bool {
    if c.is_ascii() {
        matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}')
    } else {
        c.is_whitespace()
    }
}

/// `round(value, decimals)`: the nearest decimal of the exact binary value, ties to even.
pub(super) fn round(value: f64, decimals: usize) -> f64 {
    format!("{value:.decimals$}").parse().unwrap_or(value)
}

/// Value of a decimal digit (Unicode category Nd).
fn digit(c: char) -> Option<u8> {
    if c.is_ascii() {
        return c.is_ascii_digit().then(|| c as u8 - b'0');
    }
    let code = u32::from(c);
    let above = ZEROS.partition_point(|zero| *zero <= code);
    let zero = ZEROS[..above].last()?;
    u8::try_from(code - zero).ok().filter(|value| *value < 10)
}

/// The digit zero of every script; one to nine follow each (Unicode 14, `DerivedNumericType.txt`).
const ZEROS: [u32; 66] = [
    0x30, 0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66,
    0xde6, 0xe50, 0xed0, 0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90,
    0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10,
    0x104a0, 0x10d30, 0x11066, 0x110f0, 0x11136, 0x111d0, 0x112f0, 0x11450, 0x114d0, 0x11650,
    0x116c0, 0x11730, 0x118e0, 0x11950, 0x11c50, 0x11d50, 0x11da0, 0x16a60, 0x16ac0, 0x16b50,
    0x1d7ce, 0x1d7d8, 0x1d7e2, 0x1d7ec, 0x1d7f6, 0x1e140, 0x1e2f0, 0x1e950, 0x1fbf0,
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn white_space() {
        assert_eq!(strip("\u{a0}\u{3000}\u{1c} a b \u{1f}\n"), "a b");
        assert_eq!(
            words(" a\u{1d}b\u{2003}c ").collect::<Vec<_>>(),
            ["a", "b", "c"]
        );
        assert_eq!(strip("\u{200b}a"), "\u{200b}a", "no space to Python");
    }

    #[test]
    fn case() {
        assert_eq!("\u{130}".to_lowercase(), "i\u{307}");
        assert_eq!("ΟΔΟΣ ΣΑΣ".to_lowercase(), "οδος σας");
        assert_eq!("ß".to_uppercase(), "SS");
    }

    #[test]
    fn numbers() {
        let good = [
            ("5", 5.0),
            (" \t5\n", 5.0),
            ("\u{85}5\u{a0}", 5.0),
            ("+.5", 0.5),
            ("-1.", -1.0),
            ("1E5", 1e5),
            ("1_000", 1000.0),
            ("1e1_0", 1e10),
            ("１_４", 14.0),
            ("٣٫".trim_end_matches('٫'), 3.0),
            ("-Infinity", f64::NEG_INFINITY),
            ("1e400", f64::INFINITY),
        ];
        for (text, value) in good {
            assert_eq!(float(text), Some(value), "`{text}`");
        }
        assert!(float("NaN").is_some_and(f64::is_nan));
        let bad = [
            "", " ", ".", "1__0", "_1", "1_", "1_.5", "1._5", "1e", "1e_5", "0x10", "1,000", "5%",
            "\u{1c}5", "−5", "²", "½", "i_nf", "1 0", "ınf",
        ];
        for text in bad {
            assert_eq!(float(text), None, "`{text}`");
        }
    }

    #[test]
    fn rounding() {
        assert_eq!(round(2.675, 2), 2.67, "in binary it is below 2.675");
        assert_eq!(round(0.125, 2), 0.12, "ties go to the even digit");
        assert_eq!(round(1e300, 2), 1e300);
        assert_eq!(round(f64::INFINITY, 2), f64::INFINITY);
    }

    proptest! {
        #[test]
        fn printed_numbers_are_read(value: f64) {
            let read = float(&value.to_string());
            prop_assert!(read == Some(value) || value.is_nan());
        }

        #[test]
        fn any_text_may_be_a_number(text in ".{0,12}") {
            let _ = float(&text);
        }
    }
}
