//! The encoding of a page of any site: what its first bytes say, else its header, else its own `<meta>`, else UTF-8
//! if it is that, and what the web takes for granted (windows-1252) if not.

use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};

/// Where a `<meta>` with the encoding must be (HTML, section 4.2.5.4).
const META_BYTES: usize = 1024;

/// The text of a page; what is no text in its encoding becomes U+FFFD.
pub(crate) fn decode(body: &[u8], content_type: &str) -> String {
    let named = || named(content_type.as_bytes()).or_else(|| in_meta(body));
    let guessed = || match std::str::from_utf8(body) {
        Ok(_) => UTF_8,
        Err(_) => WINDOWS_1252,
    };
    // `decode` looks at the first bytes itself.
    named().unwrap_or_else(guessed).decode(body).0.into_owned()
}

fn in_meta(body: &[u8]) -> Option<&'static Encoding> {
    let encoding = named(&body[..body.len().min(META_BYTES)])?;
    // A page that says so in ASCII is not in UTF-16.
    Some(match encoding.is_ascii_compatible() {
        true => encoding,
        false => UTF_8,
    })
}

/// The encoding behind the first `charset=`.
fn named(text: &[u8]) -> Option<&'static Encoding> {
    let text = String::from_utf8_lossy(text).to_ascii_lowercase();
    let (_, rest) = text.split_once("charset=")?;
    let rest = rest.trim_start_matches(['"', '\'', ' ']);
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"-_:.".contains(c));
    Encoding::for_label(rest.get(..end.unwrap_or(rest.len()))?.as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_said_is_believed_and_the_rest_is_guessed() {
        assert_eq!(decode(b"caf\xe9", "text/html; charset=ISO-8859-1"), "café");
        assert_eq!(decode("café".as_bytes(), "text/html"), "café");
        assert_eq!(decode(b"caf\xe9", "text/html"), "café");
        let meta = b"<meta charset='windows-1251'>\xc4\xe0";
        assert!(decode(meta, "text/html").ends_with("Да"));
        assert_eq!(decode(b"\xff\xfea\0", "text/html; charset=utf-8"), "a");
        assert_eq!(decode(b"a", "text/html; charset=no-such"), "a");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..80), said in "(text/html; charset=)?.{0,12}") {
            let _ = decode(&body, &said);
            let _ = decode(&[b"<meta charset=", &body[..]].concat(), "");
        }
    }
}
