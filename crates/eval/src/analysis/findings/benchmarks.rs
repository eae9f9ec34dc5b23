//! Sentences about benchmarks: what they measure, what they can tell apart, what belongs together.

use super::{Sentences, list, percent};
use crate::analysis::Analysis;
use crate::analysis::agreement::Agreement;
use crate::analysis::compare::p_value;
use crate::analysis::correlation::fisher_interval;
use crate::analysis::gaps::{GUESSABLE, Gap, HARDLY_VISUAL, Reading};
use crate::analysis::resolution::Resolution;
use crate::analysis::structure::{Comparison, Structure};

/// From this share of the variance on, one component is said to dominate.
const DOMINANT: f64 = 0.6;
/// Below this reliability a benchmark is said not to order the models.
const UNRELIABLE: f64 = 0.5;
/// From this adjusted Rand index on, clusters are said to be the groups.
const SAME_GROUPS: f64 = 0.8;
/// Fewer models than this make no correlation worth a sentence: it has no interval.
const FEWEST_MODELS: usize = 4;
/// Printed averages may differ by rounding.
const ROUNDING: f64 = 0.1;
/// A wrong picture that costs fewer points than this is as good as the right one.
const SAME_PICTURE: f64 = 2.0;

pub(super) fn vision(gaps: &[Gap], say: &mut Sentences) {
    const ABOUT: &str = "Vision";
    let Some(first) = gaps.first() else {
        say.no(
            ABOUT,
            "Nothing here says what the pictures are worth: no model was asked without them."
                .into(),
        );
        return;
    };
    let of = |reading| gaps.iter().filter(move |gap| gap.reading == reading);
    if first.gain > HARDLY_VISUAL {
        let best = gaps.iter().take(3).filter(|gap| gap.gain > HARDLY_VISUAL);
        let best = list(best.map(|g| format!("{} ({:+.1} points)", g.benchmark, g.gain)));
        say.yes(
            ABOUT,
            format!("Pictures are worth most on {best}, over what can be had without them."),
        );
    }
    let blind = list(of(Reading::AnsweredBlind).map(|g| {
        format!(
            "{} ({:.1} with, {:.1} without)",
            g.benchmark, g.with, g.without
        )
    }));
    if !blind.is_empty() {
        say.no(
            ABOUT,
            format!(
                "These can be answered blind, with a gap below {HARDLY_VISUAL:.0} points, so their \
                 scores say little about vision: {blind}."
            ),
        );
    }
    let guessed = list(of(Reading::PartlyGuessable).filter_map(|g| {
        let above = g.without - g.chance?;
        Some(format!("{} ({above:+.1})", g.benchmark))
    }));
    if !guessed.is_empty() {
        say.yes(
            ABOUT,
            format!(
                "Much can be guessed from the question alone, more than {GUESSABLE:.0} points above \
                 chance, on {guessed}."
            ),
        );
    }
    let misled = list(of(Reading::MisleadsTheBlind).map(|g| g.benchmark.clone()));
    if !misled.is_empty() {
        say.yes(
            ABOUT,
            format!("Without pictures models do worse than guessing on {misled}."),
        );
    }
    let indifferent = gaps.iter().filter(|gap| {
        let cost = gap.wrong.map(|wrong| gap.with - wrong);
        gap.reading != Reading::AnsweredBlind && cost.is_some_and(|cost| cost < SAME_PICTURE)
    });
    let indifferent = list(indifferent.map(|g| g.benchmark.clone()));
    if !indifferent.is_empty() {
        say.no(
            ABOUT,
            format!(
                "On {indifferent} a wrong picture does as well as the right one (within \
                 {SAME_PICTURE:.0} points): that a picture is there helps, not what it shows."
            ),
        );
    }
}

pub(super) fn resolution(resolutions: &[Resolution], say: &mut Sentences) {
    const ABOUT: &str = "Resolution";
    let known: Vec<(&Resolution, f64, f64)> = resolutions
        .iter()
        .filter_map(|r| Some((r, r.noise?, r.reliability?)))
        .collect();
    if known.is_empty() {
        return;
    }
    let blunt = known
        .iter()
        .filter(|(_, _, reliability)| *reliability < UNRELIABLE);
    let blunt = list(blunt.map(|(r, noise, _)| {
        format!(
            "{} (spread {:.1}, noise {noise:.1} points)",
            r.benchmark, r.spread
        )
    }));
    if !blunt.is_empty() {
        say.no(
            ABOUT,
            format!(
                "These cannot order these models: most of the differences are noise of a finite \
                 number of questions: {blunt}."
            ),
        );
    }
    let sharp = known
        .iter()
        .filter(|(_, _, reliability)| *reliability >= 0.9)
        .count();
    say.yes(
        ABOUT,
        format!(
            "On {sharp} of {} benchmarks at least 90 % of the variance over models is more than noise.",
            known.len()
        ),
    );
}

pub(super) fn components(structure: &Structure, say: &mut Sentences) {
    const ABOUT: &str = "Components";
    let Some(first) = structure.model_shares.first() else {
        return;
    };
    let mut sum = 0.0;
    let needed = structure.model_shares.iter().take_while(|share| {
        let before = sum;
        sum += **share;
        before < 0.9
    });
    let (needed, all) = (needed.count(), structure.benchmarks.len());
    if *first >= DOMINANT {
        say.yes(
            ABOUT,
            format!(
                "One component holds {} of the variance of {} models over {all} benchmarks: mostly \
                 they agree about who is better.",
                percent(*first),
                structure.models
            ),
        );
        say.no(
            ABOUT,
            format!(
                "These scores do not show many independent abilities: {needed} component{} hold 90 % \
                 of the variance.",
                if needed == 1 { "" } else { "s" }
            ),
        );
    } else {
        say.yes(
            ABOUT,
            format!(
                "The first component holds {} of the variance, and {needed} of {all} are needed for \
                 90 %: the benchmarks measure several things.",
                percent(*first)
            ),
        );
    }
}

pub(super) fn groups(structure: &Structure, comparison: &Comparison, say: &mut Sentences) {
    const ABOUT: &str = "Groups";
    let whose = if comparison.published {
        "published groups"
    } else {
        "groups of the table"
    };
    let agreement = |name: &str, found: &Agreement| {
        format!(
            "{name} has {} of the benchmarks in matching groups ({} by chance), adjusted Rand index \
             {:.2}, {}",
            percent(found.matched),
            percent(found.matched_by_chance),
            found.adjusted_rand,
            p_value(found.p)
        )
    };
    let text = format!(
        "{}; {}.",
        agreement("k-means", &comparison.k_means),
        agreement("average linkage", &comparison.linkage)
    );
    let best = comparison
        .k_means
        .adjusted_rand
        .max(comparison.linkage.adjusted_rand);
    if best >= SAME_GROUPS {
        say.yes(ABOUT, text);
    } else {
        let better = comparison.k_means.p.min(comparison.linkage.p) < 0.05;
        let verdict = if better {
            format!("The {whose} are more than chance, but the data does not return them")
        } else {
            format!(
                "The data does not return the {whose}, and agrees with them no better than chance"
            )
        };
        say.no(ABOUT, format!("{verdict}: {text}"));
    }
    if let (Some(within), Some(between)) = (comparison.within, comparison.between) {
        let text = format!(
            "Two benchmarks of one group correlate with r = {within:.2} on average, two of different \
             groups with {between:.2}"
        );
        if within > between {
            say.yes(ABOUT, format!("{text}."));
        } else {
            say.no(ABOUT, format!("{text}: the groups do not hold together."));
        }
    }
    if let (Some(groups), Some(clusters)) =
        (comparison.groups_silhouette, comparison.k_means_silhouette)
        && groups < clusters
    {
        say.no(
            ABOUT,
            format!(
                "The {whose} separate the benchmarks less well (silhouette {groups:.2}) than {} \
                 computed clusters do ({clusters:.2}; 1 would be perfect, 0 none).",
                structure.clusters
            ),
        );
    }
}

pub(super) fn correlations(analysis: &Analysis, say: &mut Sentences) {
    const ABOUT: &str = "Correlations";
    let matrix = &analysis.correlations;
    let n = matrix.names.len();
    let mut pairs: Vec<(usize, usize, f64)> = Vec::new();
    for i in 0..n {
        for j in 0..i {
            pairs.extend(matrix.values[i][j].map(|r| (j, i, r)));
        }
    }
    pairs.sort_by(|a, b| b.2.total_cmp(&a.2));
    let (Some(&(a, b, highest)), Some(&(i, j, middle))) =
        (pairs.first(), pairs.get(pairs.len() / 2))
    else {
        return;
    };
    if matrix.pairs[a][b] < FEWEST_MODELS {
        say.no(
            ABOUT,
            format!(
                "Which benchmarks order the models alike is not known from {} models.",
                matrix.pairs[a][b]
            ),
        );
        return;
    }
    let odd = (0..n)
        .filter_map(|i| Some((i, matrix.mean_with_others(i)?)))
        .min_by(|a, b| a.1.total_cmp(&b.1));
    let odd = odd.filter(|_| n > 2).map_or_else(String::new, |(i, r)| {
        format!(
            " {} goes its own way most (r = {r:.2} with the others on average).",
            matrix.names[i]
        )
    });
    say.yes(
        ABOUT,
        format!(
            "{} and {} order the models most alike (r = {highest:.2}).{odd}",
            matrix.names[a], matrix.names[b]
        ),
    );
    let models = matrix.pairs[i][j];
    if let Some(interval) = fisher_interval(middle, models) {
        say.no(
            ABOUT,
            format!(
                "Correlations over {models} models are coarse: one of {middle:.2}, the median here, has \
                 a 95 % interval of {:.2} to {:.2} even if the models were independent of each other, \
                 which relatives of one family are not.",
                interval.low, interval.high
            ),
        );
    }
}

pub(super) fn printed(analysis: &Analysis, say: &mut Sentences) {
    const ABOUT: &str = "Printed averages";
    let checks = analysis.printed.iter();
    let known: Vec<_> = checks.filter_map(|c| Some((c, c.computed?))).collect();
    if known.is_empty() {
        return;
    }
    let (all, of) = (known.len(), analysis.printed.len());
    let missing = match of - all {
        0 => String::new(),
        n => format!(" {n} more cannot be computed, because scores are missing."),
    };
    let wrong: Vec<_> = known
        .iter()
        // Half a unit of the last digit on either side, and both are rounded.
        .filter(|(check, computed)| (check.printed - computed).abs() > ROUNDING + 0.011)
        .collect();
    if wrong.is_empty() {
        say.yes(
            ABOUT,
            format!("All {all} averages that the files state follow from their scores within {ROUNDING}.{missing}"),
        );
        return;
    }
    let examples = list(wrong.iter().take(3).map(|(check, computed)| {
        let group = check.group.as_deref().unwrap_or("average");
        format!(
            "{} {group} {:.1}, computed {computed:.1}",
            check.model, check.printed
        )
    }));
    say.no(
        ABOUT,
        format!(
            "{} of {all} averages that the files state do not follow from their scores: {examples}.\
             {missing}",
            wrong.len()
        ),
    );
}
