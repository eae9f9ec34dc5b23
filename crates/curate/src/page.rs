//! Statistics as a page: tables, and plots drawn as SVG. The page is one file and needs nothing else.

use std::fmt::Write;

use crate::look::{Histogram, Stats};

/// How pages look, in light and in dark.
pub const STYLE: &str = "
:root { --paper: #fff; --ink: #1c2024; --faint: #60646c; --rule: #e0e1e6; --bar: #2b6cb0; --soft: #bcd4ec; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181c; --ink: #e8e9ec; --faint: #9ba1a6; --rule: #33363c; --bar: #6aa9e9; --soft: #2c4a6b; } }
body { background: var(--paper); color: var(--ink); font: 15px/1.5 Roboto, Arial, sans-serif; max-width: 960px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
p { color: var(--faint); margin: .2rem 0 .8rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
svg { width: 100%; height: auto; } svg text { fill: var(--ink); font-size: 12px; } svg .faint { fill: var(--faint); font-size: 11px; }
.bar { fill: var(--bar); } .soft { fill: var(--soft); } .line { stroke: var(--bar); fill: none; stroke-width: 2; } .rule { stroke: var(--rule); }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(400px, 1fr)); gap: 1.5rem; }
";

/// The page.
pub fn html(title: &str, stats: &Stats) -> String {
    let mut page = String::new();
    let title = escape(title);
    let total = &stats.total;
    // Writing to a String cannot fail.
    let _ = write!(
        page,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style>\
         <h1>{title}</h1><p>{} samples of {} sources, {} with a picture; {} lines that are no sample. \
         {:.1} % of {} answers have at most three words.</p>",
        thousands(total.samples),
        stats.sources.len(),
        thousands(total.with_picture),
        thousands(stats.bad),
        100.0 * total.short_share(),
        thousands(total.answer_words.total),
    );
    if stats.bad_pictures > 0 {
        let _ = write!(
            page,
            "<p>{} pictures cannot be decoded; <code>data check --decode</code> says which.</p>",
            thousands(stats.bad_pictures)
        );
    }
    section(
        &mut page,
        "Categories",
        "Samples by category.",
        &bars(&categories(stats)),
    );
    let sources = by_size(stats);
    section(
        &mut page,
        "Sources",
        "Samples by source, the largest first; at most 40 are drawn.",
        &bars(&sources.iter().rev().take(40).cloned().collect::<Vec<_>>()),
    );
    section(
        &mut page,
        "Cumulative view",
        "Sources from the smallest to the largest, and the running total. Where the line turns up, few \
         sources make most of the pool: a cap belongs there.",
        &cumulative(&sources),
    );
    let _ = write!(page, "<div class=\"two\">");
    for (name, what, histogram) in [
        ("Words of a sample", "All turns together.", &total.words),
        ("Turns of a sample", "Questions and answers.", &total.turns),
        (
            "Words of an answer",
            "Short answers make an answer machine.",
            &total.answer_words,
        ),
        (
            "Sides of pictures",
            "The longer side in pixels; each file once.",
            &stats.picture_sides,
        ),
    ] {
        if histogram.total > 0 {
            let what = format!(
                "{what} Mean {:.1}, largest {}.",
                histogram.mean(),
                thousands(histogram.max)
            );
            let _ = write!(page, "<div>");
            section(&mut page, name, &what, &columns(histogram));
            let _ = write!(page, "</div>");
        }
    }
    let _ = write!(page, "</div>");
    section(
        &mut page,
        "Table",
        "All sources, in the order of names.",
        &table(stats),
    );
    page.push_str("</html>\n");
    page
}

fn section(page: &mut String, name: &str, what: &str, body: &str) {
    let _ = writeln!(
        page,
        "<h2>{name}</h2><p>{}</p><div class=\"scroll\">{body}</div>",
        escape(what)
    );
}

/// Samples by category, the largest first.
pub fn categories(stats: &Stats) -> Vec<(String, u64)> {
    let mut sums: std::collections::BTreeMap<&str, u64> = std::collections::BTreeMap::new();
    for (_, category, own) in &stats.sources {
        *sums.entry(category).or_default() += own.samples;
    }
    let mut sums: Vec<(String, u64)> = sums
        .into_iter()
        .map(|(name, sum)| (name.to_owned(), sum))
        .collect();
    sums.sort_by_key(|(_, sum)| std::cmp::Reverse(*sum));
    sums
}

/// Samples by source, the smallest first.
pub fn by_size(stats: &Stats) -> Vec<(String, u64)> {
    let mut sizes: Vec<(String, u64)> = stats
        .sources
        .iter()
        .map(|(name, _, own)| (name.clone(), own.samples))
        .collect();
    sizes.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
    sizes
}

const WIDTH: f64 = 900.0;

fn bars(rows: &[(String, u64)]) -> String {
    let most = rows.iter().map(|row| row.1).max().unwrap_or(0).max(1) as f64;
    let all = rows.iter().map(|row| row.1).sum::<u64>().max(1) as f64;
    let height = 22.0 * rows.len() as f64;
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">");
    for (i, (name, count)) in rows.iter().enumerate() {
        let (y, length) = (22.0 * i as f64, 470.0 * *count as f64 / most);
        let short: String = name.chars().take(36).collect();
        let _ = write!(
            svg,
            "<text x=\"250\" y=\"{}\" text-anchor=\"end\">{}</text><rect class=\"bar\" x=\"260\" \
             y=\"{}\" width=\"{length:.1}\" height=\"14\"/><text class=\"faint\" x=\"{:.1}\" \
             y=\"{}\">{} ({:.1} %)</text>",
            y + 15.0,
            escape(&short),
            y + 4.0,
            268.0 + length,
            y + 15.0,
            thousands(*count),
            100.0 * *count as f64 / all,
        );
    }
    svg + "</svg>"
}

fn columns(histogram: &Histogram) -> String {
    let most = histogram.counts.iter().copied().max().unwrap_or(0).max(1) as f64;
    let slots = histogram.counts.len().max(1) as f64;
    let (width, height) = (450.0, 200.0);
    let step = (width / slots).min(60.0);
    let mut svg = format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\">");
    for (slot, &count) in histogram.counts.iter().enumerate() {
        let tall = 150.0 * count as f64 / most;
        let x = step * slot as f64;
        let _ = write!(
            svg,
            "<rect class=\"bar\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{tall:.1}\">\
             <title>{}: {}</title></rect><text class=\"faint\" x=\"{:.1}\" y=\"190\">{}</text>",
            x + 2.0,
            172.0 - tall,
            (step - 4.0).max(1.0),
            range(slot),
            thousands(count),
            x + 2.0,
            from(slot),
        );
    }
    let _ = write!(
        svg,
        "<line class=\"rule\" x1=\"0\" x2=\"{width}\" y1=\"172.5\" y2=\"172.5\"/></svg>"
    );
    svg
}

/// What stands below a column: the least that it counts, and *+* where it counts more than that.
fn from(slot: usize) -> String {
    let (low, high) = Histogram::range(slot);
    let more = if low == high { "" } else { "+" };
    format!("{}{more}", short(low))
}

fn range(slot: usize) -> String {
    let (low, high) = Histogram::range(slot);
    match low == high {
        true => low.to_string(),
        false => format!("{} to {}", thousands(low), thousands(high)),
    }
}

fn cumulative(sources: &[(String, u64)]) -> String {
    let all: u64 = sources.iter().map(|source| source.1).sum();
    let (left, bottom, width, height) = (90.0, 230.0, 780.0, 200.0);
    let n = sources.len().max(1) as f64;
    let mut points = format!("{left},{bottom}");
    let mut marks = String::new();
    let mut running = 0;
    for (i, (name, count)) in sources.iter().enumerate() {
        running += count;
        let x = left + width * (i + 1) as f64 / n;
        let y = bottom - height * running as f64 / all.max(1) as f64;
        let _ = write!(points, " {x:.1},{y:.1}");
        let _ = write!(
            marks,
            "<circle class=\"bar\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"><title>{}: {}, {} in all\
             </title></circle>",
            escape(name),
            thousands(*count),
            thousands(running)
        );
    }
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} 270\" role=\"img\">");
    for quarter in 0..=4 {
        let y = bottom - height * f64::from(quarter) / 4.0;
        let _ = write!(
            svg,
            "<line class=\"rule\" x1=\"{left}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/><text class=\"faint\" \
             x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            left + width,
            left - 8.0,
            y + 4.0,
            thousands(all * quarter as u64 / 4)
        );
    }
    let _ = write!(
        svg,
        "<polyline class=\"line\" points=\"{points}\"/>{marks}<text class=\"faint\" x=\"{}\" \
         y=\"260\" text-anchor=\"middle\">{} sources, from the smallest to the largest</text></svg>",
        left + width / 2.0,
        sources.len()
    );
    svg
}

fn table(stats: &Stats) -> String {
    let mut table = String::from(
        "<table><tr><th>source<th>category<th>samples<th>with picture<th>words<th>turns\
         <th>words of an answer<th>short answers",
    );
    for (name, category, own) in &stats.sources {
        let _ = write!(
            table,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{:.1}<td>{:.1}<td>{:.1}<td>{:.1} %",
            escape(name),
            escape(category),
            thousands(own.samples),
            thousands(own.with_picture),
            own.words.mean(),
            own.turns.mean(),
            own.answer_words.mean(),
            100.0 * own.short_share(),
        );
    }
    table + "</table>"
}

/// A text as pages show it.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// A number with its thousands set apart.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

fn short(number: u64) -> String {
    match number {
        0..1024 => number.to_string(),
        1024..1_048_576 => format!("{}k", number / 1024),
        _ => format!("{}M", number / 1_048_576),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_place() {
        let mut stats = Stats::default();
        stats
            .sources
            .push(("<script>".to_owned(), "\"&".to_owned(), Default::default()));
        stats.bad_pictures = 1234;
        let page = html("a < b", &stats);
        assert!(
            page.contains("1\u{202f}234 pictures cannot be decoded"),
            "{page}"
        );
        assert!(
            !page.contains("<script>") && page.contains("&lt;script&gt;"),
            "{page}"
        );
        assert_eq!(thousands(1_234_567), "1\u{202f}234\u{202f}567");
    }
}
