//! Which questions are answered together.
//!
//! A batch is as long as its longest prompt and as its longest answer, so questions of one limit are put
//! together by the length of their prompts, and a batch ends where too much of it would be padding.

/// Share of a batch's slots that may be padding.
const MOST_PADDING: f64 = 0.2;

/// Groups questions, given as (limit of the answer, length of the prompt) in tokens, into batches of at
/// most `size`; each is a list of places, and every place is in one.
pub fn batches(questions: &[(usize, usize)], size: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..questions.len()).collect();
    order.sort_by_key(|place| (questions[*place], *place));
    let mut all: Vec<Vec<usize>> = Vec::new();
    let mut used = 0;
    for place in order {
        let (limit, length) = questions[place];
        let fits = all
            .last()
            .and_then(|batch| batch.first())
            .is_some_and(|first| {
                let count = all.last().map_or(0, Vec::len);
                // The lengths grow, so the new one is the longest.
                let slots = (count + 1) * length;
                let padding = slots - (used + length);
                questions[*first].0 == limit
                    && count < size
                    && padding as f64 <= MOST_PADDING * slots as f64
            });
        match all.last_mut().filter(|_| fits) {
            Some(batch) => {
                batch.push(place);
                used += length;
            }
            None => {
                all.push(vec![place]);
                used = length;
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_batch_has_one_limit_and_little_padding() {
        let questions = [(8, 10), (8, 40), (8, 11), (16, 10), (8, 12), (8, 13)];
        // 10, 11, 12: 3 of 36 slots; 13 would be the fourth. 40 beside 13 would waste a third.
        assert_eq!(
            batches(&questions, 3),
            [vec![0, 2, 4], vec![5], vec![1], vec![3]]
        );
        assert_eq!(batches(&questions, 8), [vec![0, 2, 4, 5], vec![1], vec![3]]);
        assert_eq!(batches(&questions, 1).len(), 6);
        assert!(batches(&[], 4).is_empty());
    }

    proptest! {
        #[test]
        fn every_question_is_in_one_batch(lengths in proptest::collection::vec((1usize..3, 1usize..99), 0..40), size in 1usize..9) {
            let found = batches(&lengths, size);
            let mut places: Vec<usize> = found.concat();
            places.sort_unstable();
            prop_assert_eq!(places, (0..lengths.len()).collect::<Vec<_>>());
            for batch in found {
                prop_assert!(batch.len() <= size);
                let longest = batch.iter().map(|place| lengths[*place].1).max().unwrap_or(0);
                let used: usize = batch.iter().map(|place| lengths[*place].1).sum();
                prop_assert!(used as f64 >= 0.8 * (longest * batch.len()) as f64 - 1e-9);
            }
        }
    }
}
