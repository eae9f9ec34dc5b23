//! robots.txt (RFC 9309): the groups that name us, or else those for everybody; the longest rule wins.

/// The rules of a host.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Robots {
    /// (path pattern, allowed)
    rules: Vec<(String, bool)>,
    /// `Crawl-delay` in seconds, which is in no standard and in many files.
    delay: Option<f64>,
}

/// As much of a file as is read, in bytes (RFC 9309, section 2.5).
pub(super) const MAX_BYTES: usize = 500 << 10;

impl Robots {
    /// Everything is forbidden: what is unreachable is taken for a no.
    pub(super) fn closed() -> Self {
        Self {
            rules: vec![("/".to_owned(), false)],
            delay: None,
        }
    }

    /// Reads a file; `agent` is our product's name in lower case.
    pub(super) fn parse(text: &str, agent: &str) -> Self {
        let (mut ours, mut all) = (Self::default(), Self::default());
        let (mut for_us, mut for_all, mut in_names, mut named) = (false, false, false, false);
        for line in text.trim_start_matches('\u{feff}').lines() {
            let line = line.split('#').next().unwrap_or_default();
            let Some((key, value)) = line.split_once(':') else {
                continue;
            };
            let value = value.trim();
            match key.trim().to_ascii_lowercase().as_str() {
                "user-agent" => {
                    if !in_names {
                        (for_us, for_all) = (false, false);
                    }
                    in_names = true;
                    let name = value.to_ascii_lowercase();
                    for_all |= name == "*";
                    for_us |= name == agent;
                    named |= name == agent;
                }
                rule @ ("allow" | "disallow") => {
                    in_names = false;
                    if value.is_empty() {
                        continue;
                    }
                    let rule = (normal(value), rule == "allow");
                    if for_us {
                        ours.rules.push(rule.clone());
                    }
                    if for_all {
                        all.rules.push(rule);
                    }
                }
                "crawl-delay" => {
                    in_names = false;
                    let seconds = value
                        .parse()
                        .ok()
                        .filter(|s: &f64| s.is_finite() && *s > 0.0);
                    if for_us {
                        ours.delay = seconds;
                    }
                    if for_all {
                        all.delay = seconds;
                    }
                }
                _ => {}
            }
        }
        if named { ours } else { all }
    }

    /// Seconds that the host wants between two requests.
    pub(super) fn delay(&self) -> Option<f64> {
        self.delay
    }

    /// Whether a path with its query may be asked for.
    pub(super) fn allows(&self, path: &str) -> bool {
        let path = normal(path);
        let fitting = self
            .rules
            .iter()
            .filter(|(pattern, _)| matches(pattern, &path));
        // Of rules of the same length, allowing wins.
        fitting
            .max_by_key(|(pattern, allowed)| (pattern.len(), *allowed))
            .is_none_or(|(_, allowed)| *allowed)
    }
}

/// Paths are compared as they are meant (RFC 9309, section 2.2.2): what need not be encoded is not, what must be is,
/// and digits are large.
fn normal(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    let mut bytes = path.bytes().peekable();
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
        let encoded = match byte {
            b'%' => digit(ahead.next()).zip(digit(ahead.next())),
            _ => None,
        };
        let byte = match encoded {
            Some((high, low)) => {
                bytes = ahead;
                (high * 16 + low) as u8
            }
            None => byte,
        };
        let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if plain || (encoded.is_none() && byte.is_ascii()) {
            text.push(char::from(byte));
        } else {
            text += &format!("%{byte:02X}");
        }
    }
    text
}

/// `*` stands for anything, a `$` at the end for the end. Linear: each piece is looked for once.
fn matches(pattern: &str, path: &str) -> bool {
    let (pattern, to_end) = match pattern.strip_suffix('$') {
        Some(pattern) => (pattern, true),
        None => (pattern, false),
    };
    let mut pieces = pattern.split('*');
    let Some(mut rest) = pieces.next().and_then(|first| path.strip_prefix(first)) else {
        return false;
    };
    let pieces: Vec<&str> = pieces.collect();
    let Some((last, middle)) = pieces.split_last() else {
        return !to_end || rest.is_empty();
    };
    for piece in middle {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    match to_end {
        true => rest.ends_with(last),
        false => rest.contains(last),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_longest_rule_of_our_group_wins() {
        let text = "User-agent: *\nDisallow: /\n\nUser-agent: opabinia # us\nUser-agent: other\n\
                    Disallow: /private\nAllow: /private/open\nDisallow: /*.gif$\nDisallow:\n";
        let robots = Robots::parse(text, "opabinia");
        for (path, allowed) in [
            ("/a.png", true),
            ("/private/a", false),
            ("/private/open/a", true),
            ("/x/a.gif", false),
            ("/x/a.gif?1", true),
        ] {
            assert_eq!(robots.allows(path), allowed, "{path}");
        }
        assert!(!Robots::parse(text, "somebody").allows("/a.png"));
        assert!(Robots::parse("", "opabinia").allows("/"));
        assert!(!Robots::closed().allows("/x"));
    }

    #[test]
    fn a_byte_order_mark_hides_no_group() {
        let robots = Robots::parse("\u{feff}User-agent: *\nDisallow: /\n", "opabinia");
        assert!(!robots.allows("/a"));
    }

    #[test]
    fn paths_are_compared_as_they_are_meant() {
        let text =
            "User-agent: *\nDisallow: /a%7eb/\nDisallow: /é\nDisallow: /x%2fy\nCrawl-delay: 2.5\n";
        let robots = Robots::parse(text, "opabinia");
        for (path, allowed) in [
            ("/a~b/c", false),
            ("/%c3%A9t%C3%A9", false),
            ("/x%2Fy", false),
            ("/x/y", true),
            ("/a%7", true),
        ] {
            assert_eq!(robots.allows(path), allowed, "{path}");
        }
        assert_eq!(robots.delay(), Some(2.5));
    }

    proptest! {
        #[test]
        fn no_file_makes_it_panic(text in "[a-z:*$/# \nUAD%é0-9-]{0,80}", path in "/.{0,20}") {
            let _ = Robots::parse(&text, "opabinia").allows(&path);
            let _ = matches(&text, &path);
        }

        #[test]
        fn what_is_forbidden_is_forbidden_with_all_below(path in "/[a-zé%0-9/~]{1,12}", more in "[a-z/]{0,5}") {
            let robots = Robots::parse(&format!("User-Agent: *\nDisallow: {path}\n"), "opabinia");
            let below = format!("{path}{more}");
            // A percent sign at the end may become half of a character.
            prop_assert!(path.contains('%') || !robots.allows(&below));
        }
    }
}
