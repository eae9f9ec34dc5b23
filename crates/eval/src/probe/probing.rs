//! One encoder: settings are chosen, classifiers are fitted and measured.

use super::data::{self, ProbeData, Targets, Task};
use super::logistic::Logistic;
use super::matrix::{Matrix, Scaling};
use super::metrics::{Ranking, among_best, best, bootstrap, mean_average_precision};
use super::minimise::Limits;
use super::neighbours::{Nearest, Neighbours, vote};
use super::options::{Method, ProbeOptions, Setting};
use super::{Measure, ProbeScore};
use crate::interval::{Interval, wilson};

/// Rows of features and what they are of.
pub(super) struct Part {
    pub features: Matrix,
    pub targets: Targets,
}

/// Everything about one encoder.
pub(super) struct Probing<'a> {
    pub data: &'a ProbeData,
    pub options: &'a ProbeOptions,
    /// Labels that can be scored; of classes all.
    pub scored: Vec<usize>,
    pub train: Part,
    pub test: Part,
}

/// Scores of some pictures for each class or label.
type Outputs = Vec<Vec<f64>>;

impl Probing<'_> {
    pub fn score(&self, method: Method) -> ProbeScore {
        let (fit, chooser) = self.halves();
        let tried = match method {
            Method::Linear => self.try_linear(&fit, &chooser),
            Method::Knn => self.try_neighbours(&fit, &chooser),
        };
        // Of equally good ones the first: the strongest penalty, the fewest neighbours.
        let mut chosen = tried.first().copied();
        for candidate in &tried {
            if chosen.is_none_or(|(_, score)| candidate.1 > score) {
                chosen = Some(*candidate);
            }
        }
        let setting = chosen.map_or(Setting::Linear { l2: 1.0 }, |(setting, _)| setting);
        let (outputs, converged) = self.run(setting, &self.train, &self.test);
        self.measured(method, setting, tried, converged, &outputs)
    }

    /// The training pictures in two: what is fitted to, and what chooses.
    fn halves(&self) -> (Part, Part) {
        let targets = &self.train.targets;
        let rows = targets.rows();
        let (share, seed) = (self.options.held_out, self.options.seed);
        let held = match targets {
            Targets::Classes { of, .. } => data::drawn(of, share, seed, "probe.held-out"),
            Targets::Labels { .. } => data::drawn(&vec![(); rows], share, seed, "probe.held-out"),
        };
        let rest: Vec<usize> = (0..rows)
            .filter(|row| held.binary_search(row).is_err())
            .collect();
        let part = |rows: &[usize]| Part {
            features: self.train.features.select(rows),
            targets: targets.select(rows),
        };
        // Where no class has two pictures, nothing can be held out.
        if held.is_empty() {
            return (part(&rest), part(&rest));
        }
        (part(&rest), part(&held))
    }

    fn limits(&self) -> Limits {
        Limits {
            tolerance: self.options.tolerance,
            iterations: self.options.iterations,
        }
    }

    /// The strongest penalty first, and each fit begins where the last ended.
    fn try_linear(&self, fit: &Part, chooser: &Part) -> Vec<(Setting, f64)> {
        let mut strengths = self.options.l2.clone();
        strengths.sort_by(|a, b| b.total_cmp(a));
        let scaling = Scaling::of(&fit.features);
        let (known, asked) = (
            scaling.apply(&fit.features),
            scaling.apply(&chooser.features),
        );
        let mut last: Option<Logistic> = None;
        let mut tried = Vec::new();
        for l2 in strengths {
            let fitted = Logistic::fit(&known, &fit.targets, l2, last.as_ref(), self.limits());
            let outputs = fitted.scores(&asked);
            tried.push((
                Setting::Linear { l2 },
                self.quality(&outputs, &chooser.targets),
            ));
            last = Some(fitted);
        }
        tried
    }

    fn try_neighbours(&self, fit: &Part, chooser: &Part) -> Vec<(Setting, f64)> {
        let mut counts = self.options.neighbours.clone();
        counts.sort_unstable();
        let most = counts.last().copied().unwrap_or(1);
        let nearest = Neighbours::of(&fit.features).nearest(&chooser.features, most);
        let mut tried = Vec::new();
        for neighbours in counts {
            for temperature in self.options.temperatures.iter().copied() {
                let outputs = votes(&nearest, neighbours, temperature, &fit.targets);
                let setting = Setting::Knn {
                    neighbours,
                    temperature,
                };
                tried.push((setting, self.quality(&outputs, &chooser.targets)));
            }
        }
        tried
    }

    /// What a setting says about `asked`, and whether its optimum was reached.
    fn run(&self, setting: Setting, known: &Part, asked: &Part) -> (Outputs, bool) {
        match setting {
            Setting::Linear { l2 } => {
                let scaling = Scaling::of(&known.features);
                let features = scaling.apply(&known.features);
                let fitted = Logistic::fit(&features, &known.targets, l2, None, self.limits());
                (
                    fitted.scores(&scaling.apply(&asked.features)),
                    fitted.converged,
                )
            }
            Setting::Knn {
                neighbours,
                temperature,
            } => {
                let nearest = Neighbours::of(&known.features).nearest(&asked.features, neighbours);
                (
                    votes(&nearest, neighbours, temperature, &known.targets),
                    true,
                )
            }
        }
    }

    /// The score in percent that settings are chosen by.
    fn quality(&self, outputs: &Outputs, targets: &Targets) -> f64 {
        match targets {
            Targets::Classes { of, .. } => percent(hits(outputs, of, 1), of.len()),
            Targets::Labels { of, .. } => {
                let rankings: Vec<Ranking> = self
                    .scored
                    .iter()
                    .map(|label| ranking(outputs, of, *label))
                    .collect();
                let all: Vec<&Ranking> = rankings.iter().collect();
                100.0 * mean_average_precision(&all, |_| 1.0).unwrap_or_default()
            }
        }
    }

    fn measured(
        &self,
        method: Method,
        setting: Setting,
        tried: Vec<(Setting, f64)>,
        converged: bool,
        outputs: &Outputs,
    ) -> ProbeScore {
        let score = ProbeScore {
            method,
            metric: "accuracy",
            percent: self.quality(outputs, &self.test.targets),
            interval: Interval {
                low: 0.0,
                high: 100.0,
            },
            setting,
            tried,
            converged,
            more: Vec::new(),
            by_label: Vec::new(),
        };
        match &self.test.targets {
            Targets::Classes { of, .. } => self.classes(score, outputs, of),
            Targets::Labels { of, .. } => self.labels(score, outputs, of),
        }
    }

    fn classes(&self, score: ProbeScore, outputs: &Outputs, of: &[usize]) -> ProbeScore {
        let n = of.len();
        let share = wilson(hits(outputs, of, 1) as f64 / n.max(1) as f64, n);
        let by_label: Vec<Measure> = (0..self.data.labels.len())
            .filter_map(|class| {
                let mine: Vec<usize> = (0..n).filter(|row| of[*row] == class).collect();
                let right = mine
                    .iter()
                    .filter(|row| best(&outputs[**row]) == class)
                    .count();
                (!mine.is_empty()).then(|| Measure {
                    name: self.data.labels[class].name.clone(),
                    percent: percent(right, mine.len()),
                    of: mine.len(),
                })
            })
            .collect();
        let mean = by_label.iter().map(|class| class.percent).sum::<f64>();
        let mut more = vec![Measure {
            name: "mean of classes".into(),
            percent: mean / by_label.len().max(1) as f64,
            of: by_label.len(),
        }];
        if self.data.labels.len() > 5 {
            more.push(Measure {
                name: "top-5".into(),
                percent: percent(hits(outputs, of, 5), n),
                of: n,
            });
        }
        ProbeScore {
            interval: in_percent(share),
            more,
            by_label,
            ..score
        }
    }

    fn labels(&self, score: ProbeScore, outputs: &Outputs, of: &[Vec<usize>]) -> ProbeScore {
        let rankings: Vec<(usize, Ranking)> = self
            .scored
            .iter()
            .map(|label| (*label, ranking(outputs, of, *label)))
            .collect();
        let all: Vec<&Ranking> = rankings.iter().map(|(_, ranking)| ranking).collect();
        let interval = bootstrap(
            of.len(),
            self.options.resamples,
            self.options.seed,
            |times| mean_average_precision(&all, |row| times.get(row).copied().unwrap_or_default()),
        );
        let by_label = rankings.iter().map(|(label, ranking)| Measure {
            name: self.name_of(*label),
            percent: 100.0 * ranking.average_precision(|_| 1.0).unwrap_or_default(),
            of: of
                .iter()
                .filter(|labels| labels.binary_search(label).is_ok())
                .count(),
        });
        let mut groups: Vec<&str> = Vec::new();
        for label in &self.scored {
            let group = self.data.labels[*label].group.as_str();
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
        let more = groups.iter().map(|group| {
            let mine: Vec<&Ranking> = rankings
                .iter()
                .filter(|(label, _)| self.data.labels[*label].group == *group)
                .map(|(_, ranking)| ranking)
                .collect();
            Measure {
                name: (*group).to_owned(),
                percent: 100.0 * mean_average_precision(&mine, |_| 1.0).unwrap_or_default(),
                of: mine.len(),
            }
        });
        ProbeScore {
            metric: "mAP",
            interval: interval.map_or(score.interval, in_percent),
            more: if groups.len() > 1 {
                more.collect()
            } else {
                Vec::new()
            },
            by_label: by_label.collect(),
            ..score
        }
    }

    fn name_of(&self, label: usize) -> String {
        let label = &self.data.labels[label];
        match label.group.as_str() {
            "category" => label.name.clone(),
            group => format!("{group} {}", label.name),
        }
    }

    pub fn left_out(&self) -> Vec<String> {
        let all = 0..self.data.labels.len();
        let left = all.filter(|label| self.scored.binary_search(label).is_err());
        left.map(|label| self.name_of(label)).collect()
    }

    pub fn without_looking(&self) -> f64 {
        let shares = |targets: &Targets| -> Vec<f64> {
            let mut counts = vec![0.0; targets.outputs()];
            for row in 0..targets.rows() {
                for label in targets.of(row) {
                    counts[*label] += 1.0;
                }
            }
            let n = targets.rows().max(1) as f64;
            counts.iter().map(|count| count / n).collect()
        };
        let (train, test) = (shares(&self.train.targets), shares(&self.test.targets));
        match self.data.task {
            Task::Classes => 100.0 * test.get(best(&train)).copied().unwrap_or_default(),
            Task::Labels => {
                let sum: f64 = self.scored.iter().map(|label| test[*label]).sum();
                100.0 * sum / self.scored.len().max(1) as f64
            }
        }
    }
}

fn votes(nearest: &[Nearest], k: usize, temperature: f64, targets: &Targets) -> Outputs {
    let votes = nearest
        .iter()
        .map(|nearest| vote(nearest, k, temperature, targets));
    votes.collect()
}

/// Pictures whose class is among the `n` best.
fn hits(outputs: &Outputs, of: &[usize], n: usize) -> usize {
    let hit = |(outputs, class): &(&Vec<f64>, &usize)| among_best(outputs, **class, n);
    outputs.iter().zip(of).filter(hit).count()
}

fn ranking(outputs: &Outputs, of: &[Vec<usize>], label: usize) -> Ranking {
    let scores: Vec<f64> = outputs
        .iter()
        .map(|outputs| outputs.get(label).copied().unwrap_or_default())
        .collect();
    let has: Vec<bool> = of
        .iter()
        .map(|labels| labels.binary_search(&label).is_ok())
        .collect();
    Ranking::of(&scores, &has)
}

fn percent(part: usize, all: usize) -> f64 {
    100.0 * part as f64 / all.max(1) as f64
}

fn in_percent(share: Interval) -> Interval {
    Interval {
        low: 100.0 * share.low,
        high: 100.0 * share.high,
    }
}
