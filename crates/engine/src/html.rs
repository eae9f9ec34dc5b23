//! From a page's HTML to sections with text, pictures and captions.
//!
//! html5ever mends what is malformed, as browsers do. The tree is walked without recursion, so that its
//! depth costs nothing; pages that nest absurdly deep are refused before they are parsed, because parsing
//! those takes quadratic time. Lead and last sections count like all others; tables, navigation, footnotes
//! and scripts do not.

use scraper::node::Element;
use scraper::{ElementRef, Html, Node};
use serde::{Deserialize, Serialize};
use url::Url;

/// Far beyond any page that people read.
const MAX_OPEN_TAGS: usize = 2000;

/// A section.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Section {
    /// Its heading; empty for the lead.
    pub heading: String,
    /// 2 to 6; 1 for the lead.
    pub level: u8,
    /// Paragraphs, one per line.
    pub text: String,
    /// Its pictures.
    pub pictures: Vec<Figure>,
}

/// A picture with its caption.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Address of the original, as well as the page tells.
    pub url: String,
    /// Name of the file in the encyclopedia, such as `Yeast.jpg`.
    pub file: Option<String>,
    /// What the page says below it.
    pub caption: String,
}

impl Section {
    /// Words of the text.
    #[must_use]
    pub fn words(&self) -> usize {
        self.text.split_whitespace().count()
    }
}

/// Elements whose content is no text of a section.
fn is_skipped(element: &Element) -> bool {
    const NAMES: [&str; 15] = [
        "script", "style", "noscript", "template", "nav", "footer", "header", "aside", "form",
        "svg", "math", "head", "iframe", "button", "select",
    ];
    const CLASSES: [&str; 14] = [
        "reference",
        "references",
        "reflist",
        "navbox",
        "toc",
        "mw-editsection",
        "metadata",
        "noprint",
        "hatnote",
        "sistersitebox",
        "mw-empty-elt",
        "mw-jump-link",
        "ambox",
        "error",
    ];
    NAMES.contains(&element.name()) || element.classes().any(|class| CLASSES.contains(&class))
}

fn heading_level(element: &Element) -> Option<u8> {
    match element.name() {
        "h2" => Some(2),
        "h3" => Some(3),
        "h4" => Some(4),
        "h5" => Some(5),
        "h6" => Some(6),
        _ => None,
    }
}

/// Whether an element is a box of one picture and its caption.
fn is_figure(element: &Element) -> bool {
    element.name() == "figure"
        || element
            .classes()
            .any(|class| ["thumb", "gallerybox", "infobox-image"].contains(&class))
}

/// Finds the sections of a page at an address.
///
/// # Errors
/// If the page nests too deep.
pub fn sections(html: &str, base: &Url) -> Result<Vec<Section>, String> {
    Ok(sections_of(&parsed(html)?, base))
}

/// What a page calls itself, and its sections.
///
/// # Errors
/// As [`sections`].
pub(crate) fn page(html: &str, base: &Url) -> Result<(Option<String>, Vec<Section>), String> {
    let page = parsed(html)?;
    Ok((title_of(&page), sections_of(&page, base)))
}

fn parsed(html: &str) -> Result<Html, String> {
    match opens_more_than(html, MAX_OPEN_TAGS) {
        true => Err(format!(
            "more than {MAX_OPEN_TAGS} elements are open at once"
        )),
        false => Ok(Html::parse_document(html)),
    }
}

fn sections_of(page: &Html, base: &Url) -> Vec<Section> {
    let mut done = Vec::new();
    let mut section = Section {
        level: 1,
        ..Section::default()
    };
    let mut next = Some(page.tree.root());
    while let Some(node) = next {
        let mut inside = true;
        if let (Node::Element(element), Some(found)) = (node.value(), ElementRef::wrap(node)) {
            if is_skipped(element) {
                inside = false;
            } else if let Some(level) = heading_level(element) {
                done.push(std::mem::take(&mut section));
                section.level = level;
                section.heading = text_of(found);
                inside = false;
            } else if is_figure(element) {
                section.pictures.extend(figure(found, base));
                inside = false;
            } else if element.name() == "table" {
                // Layout and data are no prose, but the box beside the lead has a picture.
                inside = element.classes().any(|class| class == "infobox");
            } else if matches!(element.name(), "p" | "li" | "dd") {
                // Boxes and lists may lie inside of an item; they come after its own words.
                inside = element.name() != "p" && has_block(found);
                let text = match inside {
                    true => words_of(found, &|below| is_skipped(below) || is_block(below)),
                    false => text_of(found),
                };
                if !text.is_empty() {
                    section.text += &text;
                    section.text.push('\n');
                }
            }
        }
        next = node.first_child().filter(|_| inside).or_else(|| {
            let up = std::iter::once(node).chain(node.ancestors());
            up.into_iter().find_map(|node| node.next_sibling())
        });
    }
    done.push(section);
    done.retain(|section| !section.heading.is_empty() || section.level == 1);
    for section in &mut done {
        section.text.truncate(section.text.trim_end().len());
    }
    done
}

fn title_of(page: &Html) -> Option<String> {
    let elements = page.tree.nodes().filter_map(ElementRef::wrap);
    let mut titles = elements.filter(|element| element.value().name() == "title");
    titles.next().map(text_of).filter(|title| !title.is_empty())
}

/// Whether an item of a list holds boxes or paragraphs of its own.
fn has_block(element: ElementRef<'_>) -> bool {
    let mut below = element.descendants().skip(1).filter_map(ElementRef::wrap);
    below.any(|e| is_figure(e.value()) || is_paragraph(e.value()))
}

/// What has words of its own, wherever it lies.
fn is_paragraph(element: &Element) -> bool {
    matches!(element.name(), "p" | "li" | "dd")
}

/// What is read by itself and not as words of what is around it.
fn is_block(element: &Element) -> bool {
    is_paragraph(element)
        || is_figure(element)
        || heading_level(element).is_some()
        || element.name() == "table"
}

/// Words of an element and what is below it, without what is skipped; white space is one space.
fn text_of(element: ElementRef<'_>) -> String {
    words_of(element, &is_skipped)
}

/// Words of an element and what is below it, without what is left out.
fn words_of(element: ElementRef<'_>, left_out: &dyn Fn(&Element) -> bool) -> String {
    let mut words = String::new();
    let root = element.id();
    let mut next = element.first_child();
    while let Some(node) = next {
        let skipped = match node.value() {
            Node::Text(text) => {
                words += text;
                false
            }
            Node::Element(inner) => {
                if matches!(inner.name(), "br" | "div" | "p" | "li" | "ul" | "ol" | "dl") {
                    words.push(' ');
                }
                left_out(inner)
            }
            _ => false,
        };
        next = node.first_child().filter(|_| !skipped).or_else(|| {
            let up = std::iter::once(node).chain(node.ancestors());
            up.into_iter()
                .take_while(|node| node.id() != root)
                .find_map(|node| node.next_sibling())
        });
    }
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A fragment's words, such as those of an author's name in HTML.
#[must_use]
pub fn plain(fragment: &str) -> String {
    match opens_more_than(fragment, MAX_OPEN_TAGS) {
        true => String::new(),
        false => text_of(Html::parse_fragment(fragment).root_element()),
    }
}

/// Picture and caption of a box; none without both.
fn figure(element: ElementRef<'_>, base: &Url) -> Option<Figure> {
    let below = || element.descendants().filter_map(ElementRef::wrap);
    let picture = below().find(|e| e.value().name() == "img")?;
    let source = ["src", "data-src"]
        .iter()
        .find_map(|name| picture.value().attr(name))?;
    let address = base
        .join(source.trim())
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"))?;
    let is_caption = |e: &ElementRef<'_>| {
        const CLASSES: [&str; 3] = ["thumbcaption", "gallerytext", "infobox-caption"];
        e.value().name() == "figcaption"
            || e.value().classes().any(|class| CLASSES.contains(&class))
    };
    let caption = below().find(is_caption).map(text_of).unwrap_or_default();
    if caption.is_empty() {
        return None;
    }
    let link = below()
        .find(|e| e.value().name() == "a")
        .and_then(|e| e.value().attr("href"));
    let original = original(&address);
    let file = picture
        .value()
        .attr("resource")
        .or(link)
        .and_then(file_name)
        .or_else(|| match original != address {
            true => last_segment(&original),
            false => None,
        });
    Some(Figure {
        url: original.into(),
        file,
        caption,
    })
}

/// The name behind `/wiki/File:Name.jpg` and the like.
fn file_name(link: &str) -> Option<String> {
    let (before, name) = link.rsplit_once(':')?;
    let space = before.rsplit(['/', '=']).next()?;
    // Other languages have other words; those with a file's ending are meant.
    let name = name.split(['?', '#', '&']).next()?;
    let ending = name.rsplit_once('.')?.1;
    if space.is_empty() || !(2..=5).contains(&ending.len()) {
        return None;
    }
    Some(decoded(name).replace('_', " "))
}

fn last_segment(url: &Url) -> Option<String> {
    Some(decoded(url.path_segments()?.next_back()?).replace('_', " "))
}

/// A percent-encoded text as it is meant.
fn decoded(text: &str) -> String {
    let pair = format!("x={}", text.replace('+', "%2B").replace('&', "%26"));
    url::form_urlencoded::parse(pair.as_bytes())
        .next()
        .map_or_else(|| text.to_owned(), |(_, value)| value.into_owned())
}

/// A thumbnail's address without `thumb` and its last segment: the original.
fn original(thumbnail: &Url) -> Url {
    let segments: Vec<&str> = thumbnail
        .path_segments()
        .map(Iterator::collect)
        .unwrap_or_default();
    let at = segments.iter().position(|segment| *segment == "thumb");
    let (Some(at), Some((last, rest))) = (at, segments.split_last()) else {
        return thumbnail.clone();
    };
    if !last.contains("px-") || rest.len() < at + 2 {
        return thumbnail.clone();
    }
    let kept: Vec<&str> = rest
        .iter()
        .enumerate()
        .filter(|(i, _)| *i != at)
        .map(|(_, s)| *s)
        .collect();
    let mut original = thumbnail.clone();
    original.set_path(&kept.join("/"));
    original.set_query(None);
    original
}

/// A rough count of elements that are opened and not closed.
fn opens_more_than(html: &str, limit: usize) -> bool {
    const ALONE: [&str; 17] = [
        "img", "br", "hr", "p", "li", "td", "tr", "th", "meta", "link", "input", "wbr", "dd", "dt",
        "option", "source", "col",
    ];
    let mut open: usize = 0;
    for piece in html.split('<').skip(1) {
        let closes = piece.starts_with('/');
        let name = piece
            .trim_start_matches('/')
            .split(|c: char| !c.is_ascii_alphanumeric())
            .next()
            .unwrap_or_default();
        let known = !name.is_empty() && !ALONE.iter().any(|alone| name.eq_ignore_ascii_case(alone));
        match closes {
            true if known => open = open.saturating_sub(1),
            false if known => open += 1,
            _ => {}
        }
        if open > limit {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(html: &str) -> Vec<Section> {
        sections(
            html,
            &Url::parse("https://en.wiki.test/wiki/Yeast").unwrap(),
        )
        .unwrap()
    }

    #[test]
    fn sections_have_text_pictures_and_captions() {
        let found = read(
            "<div class=mw-parser-output><p>Lead<sup class=reference>[1]</sup> text.</p>\
             <div class=mw-heading><h2>Form</h2><span class=mw-editsection>edit</span></div><p>One  two</p>\
             <figure><a href='/wiki/File:A_b%C3%A9.jpg'><img src='//up.test/c/thumb/a/ab/A_b%C3%A9.jpg/220px-A_b%C3%A9.jpg'></a>\
             <figcaption>A <b>cell</b></figcaption></figure><table><tr><td><p>no</p></table><p>three</p>\
             <h3>End</h3><ul><li>four</li></ul><figure><img src='/x.png'></figure>",
        );
        let heads: Vec<&str> = found.iter().map(|s| s.heading.as_str()).collect();
        assert_eq!(heads, ["", "Form", "End"]);
        assert_eq!(found[0].text, "Lead text.");
        assert_eq!(found[1].text, "One two\nthree");
        assert_eq!(found[2].text, "four");
        let figure = &found[1].pictures[0];
        assert_eq!(figure.url, "https://up.test/c/a/ab/A_b%C3%A9.jpg");
        assert_eq!(
            (figure.file.as_deref(), figure.caption.as_str()),
            (Some("A bé.jpg"), "A cell")
        );
        assert!(found[2].pictures.is_empty(), "no caption");
    }

    /// An item's own words, those of items and paragraphs inside of it, and the picture.
    #[test]
    fn lists_inside_of_lists_keep_all_words() {
        let found = read(
            "<ul><li>One <b>bold</b><ul><li>two</li><li>three<ol><li>four</li></ol></li></ul> five</li>\
             <li>six<p>seven</p><figure><img src='/x.png'><figcaption>A cell</figcaption></figure></li>\
             <li><ul><li>eight</li></ul></li></ul><dl><dd>nine</dd></dl>",
        );
        assert_eq!(
            found[0].text,
            "One bold five\ntwo\nthree\nfour\nsix\nseven\neight\nnine"
        );
        assert_eq!(found[0].pictures[0].caption, "A cell");
    }

    #[test]
    fn malformed_pages_are_mended() {
        let found = read(
            "<h2>A<p>one<p>two <figure><img src=a.png><figcaption>c</h2><h2>B</h2><p>three</div></p></table>",
        );
        assert_eq!(found.last().unwrap().heading, "B");
        assert!(found.last().unwrap().text.contains("three"));
        let title = |html: &str| title_of(&Html::parse_document(html));
        assert_eq!(
            title("<HTML><Title lang=en> A  page &amp; more</TITLE><p>x").as_deref(),
            Some("A page & more")
        );
        assert_eq!(title("<p>x"), None);
        let deep = "<div>".repeat(5000);
        assert!(sections(&deep, &Url::parse("http://h/").unwrap()).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn no_page_makes_it_panic(text in "(<(h2|p|/p|figure|img src=x|li|ul|table|/table|figcaption|svg|template)>|[a-z é]){0,40}") {
            let _ = read(&text);
            let _ = plain(&text);
            let _ = page(&text, &Url::parse("http://h/").unwrap());
        }
    }
}
