//! Pies with a legend.

use std::f64::consts::PI;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{FEWEST, LEAST_EM, draw_colours, has_single_extremes, write_title};
use crate::document::Page;
use crate::font::{self, Face};
use crate::palette::ink_on;
use crate::render::canvas::{Align, Canvas, Pen};
use crate::truth::{Box2d, Chart, ChartKind, Colour, Mark, MarkKind};
use crate::words::Theme;

/// A pie with a legend beside it.
pub(super) fn draw(
    rng: &mut ChaCha8Rng,
    mut page: Page,
    face: Face,
    theme: &Theme,
    written: bool,
) -> (Canvas, Chart) {
    const RADIUS: f64 = 76.0;
    const LEGEND_WIDTH: f64 = 78.0;
    let unit = page.unit;
    let count = rng.random_range(FEWEST..=5);
    let em = 20.0;
    let text_room = LEGEND_WIDTH - 20.0;
    let names = theme.draw_names(rng, count, |name| font::width(face, em, name) <= text_room);
    let shares = draw_shares(rng, names.len());
    let colours = draw_colours(rng, ChartKind::Pie, names.len(), page.paper);
    let title = theme.draw_title(rng);
    write_title(&mut page, face, &title);

    let legend_right = rng.random_bool(0.6);
    let centre = [if legend_right { 84.0 } else { 172.0 } * unit, 144.0 * unit];
    let legend_left = if legend_right { 172.0 } else { 6.0 };
    let mut from = 0.0;
    for (share, colour) in shares.iter().zip(&colours) {
        let to = from + 2.0 * PI * f64::from(*share) / 100.0;
        let mark = Mark {
            kind: MarkKind::Slice,
            colour: *colour,
            share: Some(f64::from(*share) / 100.0),
            name: None,
        };
        page.canvas.mark(mark, |canvas| {
            canvas.slice(centre, RADIUS * unit, [from, to], colour.rgb());
        });
        from = to;
    }
    if written {
        write_shares(&mut page, face, centre, RADIUS, &shares, &colours);
    }
    let spacing = 30.0;
    let first = 144.0 - spacing * (names.len() - 1) as f64 / 2.0;
    let pen = Pen {
        face,
        em: em * unit,
        colour: page.ink,
    };
    for (index, (name, colour)) in names.iter().zip(&colours).enumerate() {
        let y = first + spacing * index as f64;
        let swatch = Box2d {
            left: legend_left * unit,
            top: (y - 7.0) * unit,
            right: (legend_left + 14.0) * unit,
            bottom: (y + 7.0) * unit,
        };
        let mark = Mark {
            kind: MarkKind::Swatch,
            colour: *colour,
            share: None,
            name: None,
        };
        page.canvas.mark(mark, |canvas| {
            canvas.rectangle(swatch, 0.0, colour.rgb());
        });
        let at = [
            (legend_left + 20.0) * unit,
            y * unit + pen.capital_height() / 2.0,
        ];
        page.canvas.write(&pen, name, at, Align::Left);
    }
    let entries = names.into_iter().zip(colours).zip(shares);
    let chart = Chart {
        kind: ChartKind::Pie,
        title,
        entries: entries
            .map(|((name, colour), share)| (name, colour, share))
            .collect(),
        top: 100,
        written,
    };
    (page.canvas, chart)
}

/// Writes each share into its slice.
fn write_shares(
    page: &mut Page,
    face: Face,
    centre: [f64; 2],
    radius: f64,
    shares: &[u32],
    colours: &[Colour],
) {
    let unit = page.unit;
    let mut from = 0.0;
    for (share, colour) in shares.iter().zip(colours) {
        let pen = Pen {
            face,
            em: LEAST_EM * unit,
            colour: ink_on(colour.rgb()),
        };
        let middle: f64 = from + PI * f64::from(*share) / 100.0;
        let out = 0.69 * radius * unit;
        let at = [
            centre[0] + out * middle.sin(),
            centre[1] - out * middle.cos(),
        ];
        page.canvas.write_centred(&pen, &format!("{share}%"), at);
        from += 2.0 * PI * f64::from(*share) / 100.0;
    }
}

/// Shares in multiples of five per cent, none below ten, with one largest and one smallest.
fn draw_shares(rng: &mut ChaCha8Rng, count: usize) -> Vec<u32> {
    loop {
        let mut left = 20 - 2 * count;
        let mut shares: Vec<u32> = vec![2; count];
        while left > 0 {
            let index = rng.random_range(0..count);
            let more = rng.random_range(1..=left);
            shares[index] += more as u32;
            left -= more;
        }
        if has_single_extremes(&shares) {
            return shares.into_iter().map(|share| 5 * share).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::stream;

    #[test]
    fn shares_add_up() {
        for seed in 0..100 {
            let mut rng = stream(seed, "test", 0);
            for count in 3..=5 {
                let shares = draw_shares(&mut rng, count);
                assert_eq!(shares.iter().sum::<u32>(), 100);
                assert!(shares.iter().all(|share| *share >= 10 && share % 5 == 0));
            }
        }
    }
}
