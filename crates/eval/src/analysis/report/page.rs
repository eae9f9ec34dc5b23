//! The page around the plots.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::PLOTS;
use super::figures::Figure;
use super::palette::{DARK, LIGHT};
use super::svg::{Place, escape, svg};
use super::tables;
use super::text::{BOLD, REGULAR};
use crate::analysis::Analysis;
use crate::analysis::findings::{Finding, Support};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// A part of the page.
struct Section {
    id: &'static str,
    title: &'static str,
    /// The title in a word or two.
    short: &'static str,
    body: String,
}

/// The whole page.
pub(super) fn html(analysis: &Analysis, figures: &[Figure]) -> String {
    let title = escape(&analysis.options.title);
    let sections = sections(analysis, figures);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src 'unsafe-inline'; script-src 'unsafe-inline'; font-src data:\">\n\
         <title>{title}</title>\n<style>\n{}{STYLE}</style>\n</head>\n<body>\n",
        variables()
    );
    out += &header(analysis, &title);
    out += "<nav>";
    for section in &sections {
        // Writing to a String cannot fail.
        let _ = write!(out, "<a href=\"#{}\">{}</a> ", section.id, section.short);
    }
    out += "</nav>\n<main>\n";
    for Section {
        id, title, body, ..
    } in &sections
    {
        let _ = writeln!(
            out,
            "<section id=\"{id}\">\n<h2>{}</h2>\n{body}</section>",
            escape(title)
        );
    }
    let _ = write!(
        out,
        "</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n"
    );
    out
}

/// Colours and the font of plots.
fn variables() -> String {
    let face = |weight: &str, bytes: &[u8]| {
        format!(
            "@font-face{{font-family:Plot;font-weight:{weight};\
             src:url(data:font/ttf;base64,{})}}\n",
            STANDARD.encode(bytes)
        )
    };
    format!(
        "{}{}:root{{{}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{}}}}}\n",
        face("normal", REGULAR),
        face("bold", BOLD),
        LIGHT.variables(),
        DARK.variables()
    )
}

fn header(analysis: &Analysis, title: &str) -> String {
    let table = &analysis.table;
    let questions: u64 = table.benchmarks.iter().filter_map(|b| b.questions).sum();
    let mut facts = vec![
        counted(table.models.len(), "model"),
        counted(table.benchmarks.len(), "benchmark"),
    ];
    if questions > 0 {
        facts.push(format!("<b>{}</b> scored questions", thousands(questions)));
    }
    match table.missing().len() {
        0 => facts.push("no score missing".into()),
        n => facts.push(format!("<b>{}</b> scores missing", thousands(n as u64))),
    }
    facts.push(escape(&analysis.protocols()));
    format!(
        "<header>\n<h1>{title}</h1>\n<p class=\"facts\">{}</p>\n</header>\n",
        facts.join(" · ")
    )
}

fn counted(number: usize, what: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("<b>{number}</b> {what}{ending}")
}

fn sections(analysis: &Analysis, figures: &[Figure]) -> Vec<Section> {
    let mut sections = vec![Section {
        id: "findings",
        title: "What the numbers support and what they do not",
        short: "Findings",
        body: findings(&analysis.findings),
    }];
    for figure in figures {
        let mut body = plot(figure);
        match (figure.name, &analysis.ranking, &analysis.structure) {
            ("ranking", Some(ranking), _) => body += &tables::ranking(ranking),
            ("tree", _, Some(structure)) => body += &tables::groups_and_clusters(structure),
            _ => {}
        }
        sections.push(Section {
            id: figure.name,
            title: figure.title,
            short: figure.short,
            body,
        });
    }
    sections.push(Section {
        id: "scores",
        title: "All scores",
        short: "Scores",
        body: tables::scores(analysis),
    });
    sections.push(Section {
        id: "rules",
        title: "Where the scores are from, and by whose rules",
        short: "Rules",
        body: tables::runs(analysis),
    });
    sections.push(Section {
        id: "method",
        title: "How it was made",
        short: "Method",
        body: method(analysis),
    });
    sections
}

fn findings(findings: &[Finding]) -> String {
    let side = |support: Support, class: &str, title: &str| {
        let mut out = format!("<div class=\"{class}\"><h3>{title}</h3>\n<ul>\n");
        for finding in findings.iter().filter(|finding| finding.support == support) {
            let (about, text) = (escape(finding.about), escape(&finding.text));
            let _ = writeln!(out, "<li><b>{about}.</b> {text}</li>");
        }
        out + "</ul></div>\n"
    };
    format!(
        "<div class=\"findings\">\n{}{}</div>\n",
        side(Support::Supported, "supported", "Supported"),
        side(Support::Unsupported, "unsupported", "Not supported")
    )
}

fn plot(figure: &Figure) -> String {
    let links = ["svg", "png", "csv", "json"].map(|kind| {
        let upper = kind.to_uppercase();
        format!("<a href=\"{PLOTS}/{}.{kind}\">{upper}</a>", figure.name)
    });
    format!(
        "<figure>\n{}<figcaption>{} <span class=\"files\">{}</span></figcaption>\n</figure>\n",
        svg(&figure.drawing, Place::Page),
        escape(&figure.caption),
        links.join(" ")
    )
}

fn method(analysis: &Analysis) -> String {
    let options = &analysis.options;
    let mut out = format!(
        "<p>Scores are per cent of full marks (MME&#39;s perception score divided by 20). A group&#39;s \
         score is the plain mean of its benchmarks, the average the plain mean of all benchmarks. \
         Ranks, averages, components and clusters are of the part of the table that has no holes; \
         nothing is filled in. Correlations use all models that have both scores.</p>\n\
         <p>Benchmarks are standardised over models before components and clusters. Resampling drew \
         {} times; seed {}; {} clusters. Groups of the benchmarks of Cambrian-1 (arXiv 2406.16860) \
         are those that the paper made by hand.</p>\n",
        thousands(options.resamples as u64),
        options.seed,
        options.clusters
    );
    let left_out = analysis.left_out();
    if left_out.is_empty() {
        out += "<p>Nothing was left out.</p>\n";
    } else {
        let _ = writeln!(
            out,
            "<details{}><summary>Left out ({})</summary>\n<ul>",
            if left_out.len() <= 12 { " open" } else { "" },
            left_out.len()
        );
        for note in left_out {
            let _ = writeln!(out, "<li>{}</li>", escape(&note));
        }
        out += "</ul></details>\n";
    }
    out
}

/// A number with thin spaces between thousands.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{2009}');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(thousands(7), "7");
        assert_eq!(thousands(2_638), "2\u{2009}638");
        assert_eq!(thousands(1_234_567), "1\u{2009}234\u{2009}567");
    }
}
