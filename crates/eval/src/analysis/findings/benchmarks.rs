//! Sentences about benchmarks: what they measure, what they can tell apart, what belongs together.

use super::{Sentences, list, percent, some};
use crate::Interval;
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
/// Fewer models than this have no spread worth a sentence.
const FEWEST_SPREAD: usize = 3;
/// Printed averages may differ by rounding.
const ROUNDING: f64 = 0.1;
/// A wrong picture that costs fewer points than this is as good as the right one.
const SAME_PICTURE: f64 = 2.0;

pub(super) fn vision(gaps: &[Gap], say: &mut Sentences) {
    const ABOUT: &str = "Vision";
    if gaps.is_empty() {
        say.no(
            ABOUT,
            "Nothing here says what the pictures are worth: no model was asked without them."
                .into(),
        );
        return;
    }
    worth(gaps, say);
    let of = |reading| gaps.iter().filter(move |gap| gap.reading == reading);
    let blind = some(of(Reading::AnsweredBlind).map(|g| {
        format!(
            "{} ({:.1} with, {:.1} without{})",
            g.benchmark,
            g.with,
            g.without,
            between(g.interval, ", a gap of")
        )
    }));
    if !blind.is_empty() {
        say.no(
            ABOUT,
            format!(
                "These can be answered blind, with a gap that is surely below {HARDLY_VISUAL:.0} points, \
                 so their scores say little about vision: {blind}."
            ),
        );
    }
    let guessed = some(of(Reading::PartlyGuessable).filter_map(|g| {
        let above = g.without - g.chance?;
        let range = between(g.above_chance_interval, ", 95 %");
        Some(format!("{} ({above:+.1}{range})", g.benchmark))
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
    let misled = some(of(Reading::MisleadsTheBlind).filter_map(|g| {
        let below = g.without - g.chance?;
        let range = between(g.above_chance_interval, ", 95 %");
        Some(format!("{} ({below:+.1} points{range})", g.benchmark))
    }));
    if !misled.is_empty() {
        say.yes(
            ABOUT,
            format!("Without pictures models do worse than guessing on {misled}."),
        );
    }
    let undecided = some(of(Reading::Undecided).map(|g| {
        let range = match g.interval {
            Some(_) => between(g.interval, ", 95 %"),
            None => ", no interval".to_owned(),
        };
        format!("{} ({:+.1} points{range})", g.benchmark, g.gap)
    }));
    if !undecided.is_empty() {
        say.no(
            ABOUT,
            format!(
                "The data does not decide whether pictures matter on {undecided}: more questions or \
                 more models are needed."
            ),
        );
    }
    indifferent(gaps, say);
}

/// On which benchmarks pictures are worth something, and on which most.
fn worth(gaps: &[Gap], say: &mut Sentences) {
    const ABOUT: &str = "Vision";
    let low = |gap: &Gap| gap.gain_interval.map_or(f64::NEG_INFINITY, |i| i.low);
    let high = |gap: &Gap| gap.gain_interval.map_or(f64::INFINITY, |i| i.high);
    let told = |gap: &Gap| {
        let range = between(gap.gain_interval, ", 95 %");
        format!("{} ({:+.1} points{range})", gap.benchmark, gap.gain)
    };
    let sure: Vec<&Gap> = gaps
        .iter()
        .filter(|gap| low(gap) > 0.0 && gap.gain > HARDLY_VISUAL)
        .collect();
    if sure.is_empty() {
        say.no(
            ABOUT,
            "The data does not decide on which benchmarks pictures are worth something, over what can \
             be had without them."
                .into(),
        );
        return;
    }
    // The first few, if all of them are surely worth more than all others.
    let most = (1..=sure.len().min(3)).rev().find(|&count| {
        let (first, rest) = gaps.split_at(count.min(gaps.len()));
        let least = first.iter().map(low).fold(f64::INFINITY, f64::min);
        let others = rest.iter().map(high).fold(f64::NEG_INFINITY, f64::max);
        !rest.is_empty() && least > others.max(0.0)
    });
    if let Some(count) = most {
        let best = list(gaps.iter().take(count).map(told));
        say.yes(
            ABOUT,
            format!("Pictures are worth most on {best}, over what can be had without them."),
        );
        return;
    }
    let all = some(sure.iter().map(|gap| told(gap)));
    say.yes(
        ABOUT,
        format!("Pictures are worth something on {all}, over what can be had without them."),
    );
    if gaps.len() > 1 {
        say.no(
            ABOUT,
            "On which benchmark they are worth most the data does not decide: the intervals overlap."
                .into(),
        );
    }
}

/// Where a wrong picture does as well as the right one, and where that is not known.
fn indifferent(gaps: &[Gap], say: &mut Sentences) {
    const ABOUT: &str = "Vision";
    let costs = gaps.iter().filter_map(|gap| {
        let cost = gap.with - gap.wrong?;
        (gap.reading != Reading::AnsweredBlind && cost < SAME_PICTURE).then_some((gap, cost))
    });
    let (sure, unsure): (Vec<_>, Vec<_>) = costs.partition(|(gap, _)| {
        let interval = gap.wrong_cost_interval;
        interval.is_some_and(|interval| interval.high < SAME_PICTURE)
    });
    let told = |(gap, cost): &(&Gap, f64)| {
        let range = between(gap.wrong_cost_interval, ", 95 %");
        format!("{} (it costs {cost:+.1}{range})", gap.benchmark)
    };
    if !sure.is_empty() {
        say.no(
            ABOUT,
            format!(
                "On {} a wrong picture does as well as the right one (within {SAME_PICTURE:.0} points): \
                 that a picture is there helps, not what it shows.",
                some(sure.iter().map(told))
            ),
        );
    }
    if !unsure.is_empty() {
        say.no(
            ABOUT,
            format!(
                "Whether a wrong picture does as well as the right one is not decided on {}.",
                some(unsure.iter().map(told))
            ),
        );
    }
}

/// `, 95 % 1.0 to 2.0`; empty if there is no interval.
fn between(interval: Option<Interval>, before: &str) -> String {
    interval.map_or_else(String::new, |Interval { low, high }| {
        format!("{before} {low:+.1} to {high:+.1}")
    })
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
    // The spread of two models is one difference.
    let (known, few): (Vec<_>, Vec<_>) = known
        .into_iter()
        .partition(|(r, _, _)| r.models >= FEWEST_SPREAD);
    if let Some((r, _, _)) = few.first()
        && known.is_empty()
    {
        say.no(
            ABOUT,
            format!(
                "What the benchmarks can tell apart is not known from {} models.",
                r.models
            ),
        );
        return;
    }
    let blunt = known
        .iter()
        .filter(|(_, _, reliability)| *reliability < UNRELIABLE);
    let blunt = some(blunt.map(|(r, noise, _)| {
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
