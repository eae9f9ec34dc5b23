//! The tables in `recipes/curate` say what is published.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use opabinia_curate::Recipe;
use opabinia_curate::counts::limits;
use opabinia_curate::places::Places;
use opabinia_curate::recipe::{Ratios, SourcesFile};
use opabinia_curate::sources::Origin;

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../recipes/curate")
        .join(name)
}

/// A published source.
struct Published {
    name: String,
    category: String,
    has: u64,
    kept: u64,
    prompts: Vec<&'static str>,
}

/// The published sources that a field of a sample tells apart.
fn published() -> Vec<Published> {
    let root = std::env::var_os("OPABINIA_GOLDEN").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden"),
        Into::into,
    );
    let text = std::fs::read_to_string(root.join("paper/cambrian10m_sources.csv")).unwrap();
    // By the published numbers of format prompts; 1 and 5 are the same.
    let named = |number: &str| match number {
        "1" | "5" => "word",
        "2" => "number",
        "3" => "option",
        "4" => "short",
        "6" => "no-answer",
        "7" => "html",
        "8" => "reason",
        "9" => "unanswerable",
        "10" => "letter",
        other => panic!("no prompt {other}"),
    };
    let source = |line: &str| {
        let fields: Vec<&str> = line.splitn(9, ',').collect();
        Published {
            name: fields[0].to_owned(),
            category: fields[1].to_owned(),
            has: fields[2].parse().unwrap(),
            kept: fields[3].parse().unwrap(),
            prompts: fields[7]
                .split(';')
                .filter(|number| !number.is_empty())
                .map(named)
                .collect(),
        }
    };
    text.lines().skip(1).map(source).collect()
}

#[test]
fn sources_have_the_published_categories_caps_and_prompts() {
    let rules = SourcesFile::read(&shipped("cambrian-10m-sources.toml")).unwrap();
    let mut told = 0;
    let mut together = Vec::new();
    for source in published() {
        let rule = rules.source.iter().find(|rule| rule.name == source.name);
        let Some(rule) = rule else {
            together.push(source.name);
            continue;
        };
        told += 1;
        assert_eq!(rule.category.as_ref(), Some(&source.category));
        let cap = (source.kept < source.has).then_some(source.kept);
        assert_eq!(rule.cap, cap, "{}", source.name);
        assert_eq!(rule.prompts, source.prompts, "{}", source.name);
    }
    // As the file says: pictures of COCO, and two without any published mark.
    assert_eq!(
        together,
        [
            "WikiSQL",
            "Low-Level Vision",
            "VQAv2",
            "A-OKVQA",
            "RefCOCO",
            "OKVQA"
        ]
    );
    assert_eq!(told, 59);
}

/// What the published sources have.
fn available(published: &[Published]) -> BTreeMap<Origin, Places> {
    let has = |source: &Published| {
        let origin = Origin {
            source: source.name.clone(),
            category: source.category.clone(),
        };
        (origin, Places::Whole(source.has))
    };
    published.iter().map(has).collect()
}

/// All published counts through the recipe of the released mixture: 7,055,500 samples of 9,745,500.
#[test]
fn the_released_mixture_has_the_published_counts() {
    let recipe = Recipe::read(&shipped("cambrian-7m.toml")).unwrap();
    let published = published();
    let available = available(&published);
    assert_eq!(
        available.values().map(Places::count).sum::<u64>(),
        9_745_500
    );
    let limits = limits(&recipe, &available).unwrap();
    let kept: u64 = limits.values().map(|limits| limits.quota).sum();
    assert_eq!(kept, 7_055_500);
    for source in &published {
        let kept: Vec<u64> = limits
            .iter()
            .filter(|(origin, _)| origin.source == source.name)
            .map(|(_, limits)| limits.quota)
            .collect();
        assert_eq!(kept, [source.kept], "{}", source.name);
    }
    // The ratios of the released mixture are these counts.
    let mut by_category: BTreeMap<&str, f64> = BTreeMap::new();
    for source in &published {
        *by_category.entry(&source.category).or_default() += source.kept as f64 / 1000.0;
    }
    let ratios = ratios("ratios-cambrian-7m.toml");
    assert_eq!(ratios.len(), by_category.len());
    for (category, share) in by_category {
        assert_eq!(ratios[category], share, "{category}");
    }
}

/// The ratios of a shipped file, through a recipe that names it.
fn ratios(name: &str) -> BTreeMap<String, f64> {
    let text = format!(
        "sources = 'cambrian-10m-sources.toml'\n[input]\nfiles = ['a']\n[mix]\ntotal = 1\nratios = '{name}'\n"
    );
    let recipe: Recipe = toml::from_str(&text).unwrap();
    let recipe = recipe.resolved("test", &shipped("")).unwrap();
    match recipe.mix.unwrap().ratios {
        Ratios::Table(table) => table,
        Ratios::File(path) => panic!("{} is not read", path.display()),
    }
}

#[test]
fn the_experiments_have_the_published_ratios() {
    // Language, General, OCR, Counting, Math, Code, Science (arXiv 2406.16860, section 4.2).
    let published = [
        [20.0, 20.0, 39.1, 2.0, 10.0, 4.4, 4.5],
        [20.0, 25.0, 25.0, 5.0, 5.0, 5.0, 15.0],
        [10.0, 30.0, 30.0, 5.0, 5.0, 5.0, 15.0],
        [5.0, 35.0, 39.1, 2.0, 10.0, 4.4, 4.5],
        [21.0, 34.52, 27.22, 8.71, 7.2, 0.87, 0.88],
    ];
    let names = [
        "Language", "General", "OCR", "Counting", "Math", "Code", "Science",
    ];
    for (i, weights) in published.iter().enumerate() {
        let ratios = ratios(&format!("ratios-experiment-{}.toml", i + 1));
        assert_eq!(ratios.len(), names.len());
        for (name, weight) in names.iter().zip(weights) {
            assert_eq!(ratios[*name], *weight, "experiment {}: {name}", i + 1);
        }
    }
}

/// The threshold alone decides: the caps of the released mixture, which the table of sources has, do not.
#[test]
fn the_threshold_holds_for_every_source_and_nothing_else_does() {
    let recipe = Recipe::read(&shipped("threshold-350k.toml")).unwrap();
    assert_eq!(recipe.cap.all, Some(350_000));
    let published = published();
    let limits = limits(&recipe, &available(&published)).unwrap();
    for source in &published {
        let of = limits
            .iter()
            .find(|(origin, _)| origin.source == source.name);
        let (_, left) = of.unwrap();
        let expected = [source.has, source.has.min(350_000)];
        assert_eq!([left.own, left.all], expected, "{}", source.name);
    }
    // Of 9,745,500, seven sources lose what they have above the threshold.
    let left: u64 = limits.values().map(|limits| limits.all).sum();
    assert_eq!(left, 5_776_500);
    assert_eq!(recipe.prompts.unwrap().prompt.len(), 9);
}
