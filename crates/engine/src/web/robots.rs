//! robots.txt (RFC 9309): the groups that name us, or else those for everybody; the longest rule wins.

/// The rules of a host.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Robots {
    /// (path pattern, allowed)
    rules: Vec<(String, bool)>,
}

/// As much of a file as is read, in bytes (RFC 9309, section 2.5).
pub(super) const MAX_BYTES: usize = 500 << 10;

impl Robots {
    /// Everything is forbidden: what is unreachable is taken for a no.
    pub(super) fn closed() -> Self {
        Self {
            rules: vec![("/".to_owned(), false)],
        }
    }

    /// Reads a file; `agent` is our product's name in lower case.
    pub(super) fn parse(text: &str, agent: &str) -> Self {
        let (mut ours, mut all) = (Vec::new(), Vec::new());
        let (mut for_us, mut for_all, mut in_names, mut named) = (false, false, false, false);
        for line in text.lines() {
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
                    let rule = (value.to_owned(), rule == "allow");
                    if for_us {
                        ours.push(rule.clone());
                    }
                    if for_all {
                        all.push(rule);
                    }
                }
                _ => {}
            }
        }
        Self {
            rules: if named { ours } else { all },
        }
    }

    /// Whether a path with its query may be asked for.
    pub(super) fn allows(&self, path: &str) -> bool {
        let fitting = self
            .rules
            .iter()
            .filter(|(pattern, _)| matches(pattern, path));
        // Of rules of the same length, allowing wins.
        fitting
            .max_by_key(|(pattern, allowed)| (pattern.len(), *allowed))
            .is_none_or(|(_, allowed)| *allowed)
    }
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

    proptest! {
        #[test]
        fn no_file_makes_it_panic(text in "[a-z:*$/# \nUAD-]{0,80}", path in "/.{0,20}") {
            let _ = Robots::parse(&text, "opabinia").allows(&path);
            let _ = matches(&text, &path);
        }
    }
}
