//! The words of documents and charts.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

/// Common English nouns of three to eight letters, in `words.txt`.
pub static WORDS: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| include_str!("words.txt").split_whitespace().collect());

/// Numbers up to this are words, too: values of charts and tables.
const LARGEST_NUMBER: u32 = 100;

/// All that is ever written in a picture, word by word, whatever the case of its letters; in an order that
/// stays the same.
pub static VOCABULARY: LazyLock<Vec<String>> = LazyLock::new(|| {
    let names = THEMES.iter().flat_map(|theme| theme.names);
    let headers = THEMES.iter().map(|theme| &theme.header).chain(&COLUMNS);
    let titles = THEMES.iter().flat_map(|theme| theme.titles);
    let written = names.chain(headers).chain(titles).chain(WORDS.iter());
    let words = written.flat_map(|text| text.split_whitespace());
    let numbers = (0..=LARGEST_NUMBER).map(|number| number.to_string());
    let mut seen = HashSet::new();
    let mut all: Vec<String> = words.map(str::to_owned).chain(numbers).collect();
    all.retain(|word| seen.insert(word.to_lowercase()));
    all
});

static PLACES: LazyLock<HashMap<String, usize>> = LazyLock::new(|| {
    let places = VOCABULARY.iter().enumerate();
    places.map(|(at, word)| (word.to_lowercase(), at)).collect()
});

/// The place of a written word in [`VOCABULARY`], whatever the case of its letters and the marks around it.
pub fn place_in_vocabulary(written: &str) -> Option<usize> {
    let bare = written.trim_matches(|c: char| !c.is_alphanumeric());
    PLACES.get(&bare.to_lowercase()).copied()
}

/// Column headers of tables.
pub(crate) const COLUMNS: [&str; 16] = [
    "age", "tax", "sum", "wins", "days", "cups", "eggs", "cars", "keys", "runs", "hits", "pens",
    "cost", "size", "jobs", "bags",
];

/// What the rows of a table or the bars of a chart may stand for.
#[derive(Debug)]
pub(crate) struct Theme {
    /// Header of the column of names.
    pub header: &'static str,
    /// Names; in the order of a calendar where `ordered`.
    pub names: &'static [&'static str],
    /// Whether the names are taken in a row, as months are.
    pub ordered: bool,
    /// Titles that fit a chart of them.
    pub titles: &'static [&'static str],
}

/// All themes.
pub(crate) const THEMES: [Theme; 6] = [
    Theme {
        header: "fruit",
        names: &[
            "fig", "kiwi", "lime", "pear", "plum", "apple", "grape", "lemon", "mango", "melon",
            "peach", "banana", "cherry", "orange",
        ],
        ordered: false,
        titles: &["Fruit sold", "Fruit in stock", "Boxes of fruit"],
    },
    Theme {
        header: "city",
        names: &[
            "Bern", "Lima", "Oslo", "Riga", "Rome", "Cairo", "Delhi", "Milan", "Paris", "Quito",
            "Tokyo", "Berlin", "Dublin", "Lisbon", "London", "Madrid", "Vienna",
        ],
        ordered: false,
        titles: &["Visitors", "Rainy days", "Flights", "Museums"],
    },
    Theme {
        header: "animal",
        names: &[
            "ant", "bat", "bee", "cat", "cow", "dog", "fox", "hen", "pig", "bear", "duck", "frog",
            "goat", "lion", "wolf", "horse", "mouse", "sheep", "tiger", "zebra", "rabbit",
        ],
        ordered: false,
        titles: &["Animals seen", "Farm animals", "Favorite animal"],
    },
    Theme {
        header: "name",
        names: &[
            "Ada", "Amy", "Ben", "Bob", "Eva", "Ida", "Kim", "Leo", "Max", "Mia", "Sam", "Tom",
            "Zoe", "Anna", "Emma", "John", "Lucy", "Mark", "Nora", "Paul", "Alice", "Clara",
            "David", "James", "Sarah",
        ],
        ordered: false,
        titles: &["Points", "Books read", "Games won", "Goals"],
    },
    Theme {
        header: "month",
        names: &[
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        ],
        ordered: true,
        titles: &["Sales", "Rainfall", "Cars sold", "New members"],
    },
    Theme {
        header: "day",
        names: &["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"],
        ordered: true,
        titles: &["Guests", "Cakes baked", "Letters", "Tickets"],
    },
];

impl Theme {
    /// A random theme.
    pub fn draw(rng: &mut ChaCha8Rng) -> &'static Self {
        THEMES.choose(rng).expect("there are themes")
    }

    /// `count` different names of which each satisfies `fits`; fewer if there are not so many.
    pub fn draw_names(
        &self,
        rng: &mut ChaCha8Rng,
        count: usize,
        fits: impl Fn(&str) -> bool,
    ) -> Vec<String> {
        let mut names: Vec<&str> = self
            .names
            .iter()
            .copied()
            .filter(|name| fits(name))
            .collect();
        if self.ordered {
            let last = names.len().saturating_sub(count);
            names.drain(..rng.random_range(0..=last));
        } else {
            names.shuffle(rng);
        }
        names.truncate(count);
        names.into_iter().map(str::to_owned).collect()
    }

    /// A random title.
    pub fn draw_title(&self, rng: &mut ChaCha8Rng) -> String {
        (*self.titles.choose(rng).expect("a theme has titles")).to_owned()
    }
}

/// `count` different words of at most `longest` letters.
pub(crate) fn draw_words(rng: &mut ChaCha8Rng, count: usize, longest: usize) -> Vec<String> {
    let fitting: Vec<&str> = WORDS
        .iter()
        .copied()
        .filter(|word| word.len() <= longest)
        .collect();
    fitting
        .choose_multiple(rng, count)
        .map(|word| (*word).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::stream;

    #[test]
    fn words_are_different_lower_case_and_three_to_eight_letters_long() {
        let mut sorted = WORDS.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), WORDS.len());
        assert!(WORDS.len() >= 400);
        for word in WORDS.iter() {
            assert!((3..=8).contains(&word.len()), "{word}");
            assert!(word.bytes().all(|byte| byte.is_ascii_lowercase()), "{word}");
        }
    }

    #[test]
    fn months_stay_in_order() {
        let months = THEMES.iter().find(|theme| theme.header == "month").unwrap();
        let mut rng = stream(3, "test", 0);
        for _ in 0..50 {
            let drawn = months.draw_names(&mut rng, 4, |_| true);
            let first = months
                .names
                .iter()
                .position(|name| *name == drawn[0])
                .unwrap();
            assert_eq!(drawn, months.names[first..first + 4]);
        }
    }

    #[test]
    fn names_within_a_theme_are_different() {
        for theme in &THEMES {
            let drawn = theme.draw_names(&mut stream(1, "test", 0), 6, |_| true);
            let mut sorted = drawn.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), 6, "{drawn:?}");
        }
    }
}
