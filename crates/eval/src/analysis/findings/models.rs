//! Sentences about models: who is best, and how sure that is.

use super::{Sentences, list, percent};
use crate::Interval;
use crate::analysis::averages::FamilyAverage;
use crate::analysis::ranking::{QuestionNoise, RankedModel, Ranking};
use crate::analysis::statistics::welch_interval;

/// A model that is first in this share of draws is said to be the best.
const SURE: f64 = 0.95;

/// Draws of fewer benchmarks than this say nothing about other benchmarks.
pub(super) const FEWEST_BENCHMARKS: usize = 4;

/// `few` names benchmarks with too few questions.
pub(super) fn best_model(ranking: &Ranking, benchmarks: usize, few: &str, say: &mut Sentences) {
    const ABOUT: &str = "Best model";
    let Some(first) = ranking.models.first() else {
        return;
    };
    let text = format!(
        "{} has the highest average ({:.1}) and stays first in {} of draws of other benchmarks",
        first.name,
        first.average,
        percent(first.share_first),
    );
    let equal = ranking.models[1..]
        .iter()
        .filter(|model| model.average >= first.average);
    let equal = list(equal.map(|model| model.name.clone()));
    if !equal.is_empty() {
        let text = format!(
            "{} has the highest average ({:.1}) together with {equal}.",
            first.name, first.average
        );
        say.no(ABOUT, text);
        return;
    }
    if benchmarks < FEWEST_BENCHMARKS {
        say.no(
            ABOUT,
            format!(
                "{} has the highest average ({:.1}); from {benchmarks} benchmark{} nobody can tell whether it \
                 would stay first on others.",
                first.name,
                first.average,
                if benchmarks == 1 { "" } else { "s" }
            ),
        );
        return;
    }
    if !few.is_empty() {
        say.no(
            ABOUT,
            format!("{text}, but a few questions decide that: there are too few of {few}."),
        );
        return;
    }
    // Other questions may change the first place, too.
    let open = first
        .question_rank_interval
        .filter(|(_, worst)| *worst > 1 && first.share_first >= SURE);
    if let Some((_, worst)) = open {
        say.no(
            ABOUT,
            format!(
                "{text}, but other questions leave it open: its places reach from 1 to {worst} (95 %)."
            ),
        );
        return;
    }
    if first.share_first >= SURE {
        say.yes(ABOUT, format!("{text}."));
        return;
    }
    let rivals = ranking.models[1..]
        .iter()
        .filter(|model| model.rank_interval.0 == 1);
    let rivals: Vec<&str> = rivals.map(|model| model.name.as_str()).collect();
    let others = match rivals.len() {
        0 => "the others together".into(),
        n if n > 3 => format!("{} and {} others", rivals[..2].join(", "), n - 2),
        _ => list(rivals.iter().map(|name| (*name).to_owned())),
    };
    say.no(
        ABOUT,
        format!("{text}, so a first place is not certain: it is also open to {others}."),
    );
}

pub(super) fn stability(ranking: &Ranking, say: &mut Sentences) {
    const ABOUT: &str = "Rank stability";
    let (Some(tau), Some(least)) = (ranking.stability, ranking.stability_at_least) else {
        return;
    };
    let text = format!(
        "On other draws of the benchmarks the ranking keeps Kendall's τ = {tau:.2} on average, at \
         least {least:.2} in 95 % of them."
    );
    let most = ranking.without_one.first().map_or_else(String::new, |one| {
        format!(
            " Of single benchmarks, leaving out {} changes it most (τ = {:.2}).",
            one.benchmark, one.tau
        )
    });
    let text = format!("{text}{most}");
    if least >= 0.7 {
        say.yes(ABOUT, text);
    } else {
        say.no(ABOUT, text);
    }
}

pub(super) fn question_noise(ranking: &Ranking, say: &mut Sentences) {
    const ABOUT: &str = "Noise of questions";
    let Some(kind) = ranking.question_noise else {
        say.no(
            ABOUT,
            "How far other questions would move the averages is not known: numbers of questions are \
             missing."
                .into(),
        );
        return;
    };
    let halves = ranking.models.iter().filter_map(|model| {
        let interval = model.average_interval?;
        Some((interval.high - interval.low) / 2.0)
    });
    let half = halves.fold(0.0, f64::max);
    let source = match kind {
        QuestionNoise::Resampled => "resampled questions",
        QuestionNoise::FromCounts => "the numbers of questions alone",
        QuestionNoise::Mixed => "resampled questions and, where there are none, their numbers",
    };
    let neighbours = ranking.models.windows(2);
    // Two independent errors of this size.
    let closer =
        |pair: &&[RankedModel]| pair[0].average - pair[1].average < half * std::f64::consts::SQRT_2;
    let (close, all) = (neighbours.clone().filter(closer).count(), neighbours.len());
    let text = format!(
        "An average is uncertain by up to ±{half:.2} points (95 %, from {source}); {close} of {all} \
         neighbours in the ranking differ by less than such noise allows for"
    );
    if close == 0 {
        say.yes(ABOUT, format!("{text}."));
    } else {
        say.no(ABOUT, format!("{text}, so their order is not settled."));
    }
}

pub(super) fn families(families: &[FamilyAverage], say: &mut Sentences) {
    const ABOUT: &str = "Families";
    let mut large: Vec<&FamilyAverage> = families.iter().filter(|f| f.models >= 3).collect();
    large.truncate(2);
    let overall = |family: &FamilyAverage| family.groups.iter().map(|(_, mean)| mean).sum::<f64>();
    large.sort_by(|a, b| overall(b).total_cmp(&overall(a)));
    let [first, second] = large[..] else {
        return;
    };
    let leads = first
        .groups
        .iter()
        .zip(&first.each)
        .filter_map(|((group, mean), each)| {
            let mut others = second.groups.iter().zip(&second.each);
            let ((_, other), theirs) = others.find(|((name, _), _)| name == group)?;
            Some((group, mean - other, each, theirs))
        });
    let mut leads: Vec<(&String, f64, &Vec<f64>, &Vec<f64>)> = leads.collect();
    leads.sort_by(|a, b| b.1.total_cmp(&a.1));
    let (Some(most), Some(least)) = (leads.first(), leads.last()) else {
        return;
    };
    if leads.len() < 2 {
        return;
    }
    let told = |(group, lead, mine, theirs): &(&String, f64, &Vec<f64>, &Vec<f64>)| {
        let range = welch_interval(mine, theirs).map_or_else(String::new, |interval| {
            format!(", 95 % {:+.1} to {:+.1}", interval.low, interval.high)
        });
        format!("{group} ({lead:+.1} points{range})")
    };
    // The lead on one group minus that on the other, model by model.
    let apart = |one: &[f64], other: &[f64]| -> Vec<f64> {
        one.iter().zip(other).map(|(a, b)| a - b).collect()
    };
    let mine = apart(most.2, least.2);
    let theirs = apart(most.3, least.3);
    let is_sure = |interval: Option<Interval>| interval.is_some_and(|interval| interval.low > 0.0);
    let text = format!(
        "Averaged over models, {} ({} models) is ahead of {} ({}) most on {} and least on {}",
        first.family,
        first.models,
        second.family,
        second.models,
        told(most),
        told(least)
    );
    if is_sure(welch_interval(most.2, most.3)) && is_sure(welch_interval(&mine, &theirs)) {
        say.yes(ABOUT, format!("{text}."));
    } else {
        say.no(
            ABOUT,
            format!("{text}; so few models do not decide whether others would show the same."),
        );
    }
}
