//! SPDX licence expressions, as the manifests of packages state them.
//!
//! `AND` binds tighter than `OR`, `WITH` than both; `/` is what `OR` was before manifests used SPDX.

/// A licence expression.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Expression {
    /// A licence, with its exception if it has one: `Apache-2.0 WITH LLVM-exception`.
    Licence(String),
    /// All of them apply.
    All(Vec<Self>),
    /// One may be chosen.
    Any(Vec<Self>),
}

impl Expression {
    /// Reads an expression; `None` if it is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let spaced = text
            .replace('(', " ( ")
            .replace(')', " ) ")
            .replace('/', " OR ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let mut reader = Reader { words: &words };
        let expression = reader.any(0)?;
        reader.words.is_empty().then_some(expression)
    }

    /// Whether a choice can be made that only needs allowed licences.
    pub(super) fn is_satisfied(&self, allowed: &impl Fn(&str) -> bool) -> bool {
        match self {
            Self::Licence(licence) => allowed(licence),
            Self::All(parts) => parts.iter().all(|part| part.is_satisfied(allowed)),
            Self::Any(parts) => parts.iter().any(|part| part.is_satisfied(allowed)),
        }
    }
}

/// Parentheses deeper than this are no licence.
const MAX_DEPTH: usize = 32;

/// The words that are left.
struct Reader<'a> {
    words: &'a [&'a str],
}

impl Reader<'_> {
    fn any(&mut self, depth: usize) -> Option<Expression> {
        let mut parts = vec![self.all(depth)?];
        while self.take("OR") {
            parts.push(self.all(depth)?);
        }
        Some(one_or(parts, Expression::Any))
    }

    fn all(&mut self, depth: usize) -> Option<Expression> {
        let mut parts = vec![self.single(depth)?];
        while self.take("AND") {
            parts.push(self.single(depth)?);
        }
        Some(one_or(parts, Expression::All))
    }

    fn single(&mut self, depth: usize) -> Option<Expression> {
        if depth > MAX_DEPTH {
            return None;
        }
        if self.take("(") {
            let inside = self.any(depth + 1)?;
            return self.take(")").then_some(inside);
        }
        let licence = self.name()?;
        if self.take("WITH") {
            let exception = self.name()?;
            return Some(Expression::Licence(format!("{licence} WITH {exception}")));
        }
        Some(Expression::Licence(licence.to_owned()))
    }

    fn take(&mut self, word: &str) -> bool {
        match self.words {
            [first, rest @ ..] if *first == word => {
                self.words = rest;
                true
            }
            _ => false,
        }
    }

    fn name(&mut self) -> Option<String> {
        let [first, rest @ ..] = self.words else {
            return None;
        };
        if matches!(*first, "(" | ")" | "AND" | "OR" | "WITH") {
            return None;
        }
        self.words = rest;
        Some((*first).to_owned())
    }
}

fn one_or(mut parts: Vec<Expression>, many: fn(Vec<Expression>) -> Expression) -> Expression {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            many(parts)
        }
        None => many(parts),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn allowed(text: &str, licences: &[&str]) -> Option<bool> {
        let expression = Expression::parse(text)?;
        Some(expression.is_satisfied(&|licence| licences.contains(&licence)))
    }

    #[test]
    fn and_binds_tighter_than_or() {
        let text = "A AND B OR C";
        assert_eq!(allowed(text, &["C"]), Some(true));
        assert_eq!(allowed(text, &["A", "B"]), Some(true));
        assert_eq!(allowed(text, &["A"]), Some(false));
        assert_eq!(allowed("A AND (B OR C)", &["C"]), Some(false));
        assert_eq!(allowed("(A OR B) AND C", &["B", "C"]), Some(true));
    }

    #[test]
    fn an_exception_belongs_to_its_licence() {
        let text = "Apache-2.0 WITH LLVM-exception OR MIT";
        assert_eq!(allowed(text, &["Apache-2.0"]), Some(false));
        assert_eq!(
            allowed(text, &["Apache-2.0 WITH LLVM-exception"]),
            Some(true)
        );
        assert_eq!(allowed(text, &["MIT"]), Some(true));
    }

    #[test]
    fn a_slash_is_a_choice() {
        for text in ["MIT/Apache-2.0", "MIT / Apache-2.0"] {
            assert_eq!(allowed(text, &["Apache-2.0"]), Some(true));
        }
    }

    #[test]
    fn what_is_no_expression_is_none() {
        for text in [
            "",
            "OR",
            "MIT OR",
            "MIT Apache-2.0",
            "(MIT",
            "MIT)",
            "MIT WITH",
            "()",
        ] {
            assert_eq!(Expression::parse(text), None, "{text}");
        }
        assert_eq!(Expression::parse(&"(".repeat(100_000)), None);
    }

    proptest! {
        /// Any text is an expression or none.
        #[test]
        fn any_text_is_answered(text in "[A-D()/ ]{0,40}|( ?(OR|AND|WITH|A|\\(|\\)) ?){0,20}") {
            let _ = Expression::parse(&text);
        }
    }
}
