//! Guessing tokens by looking them up in what was said before: prompt-lookup decoding.
//!
//! Answers repeat what stands in the prompt or earlier in themselves: names, numbers, whole phrases. The
//! tokens that followed the last occurrence of the newest ones are read together with the newest token,
//! which costs hardly more than reading that alone, because weights are read once either way. Each
//! guess is then compared with the token that is really chosen from the scores before it; from the
//! first that differs on they are forgotten. Scores of a token do not depend, to the last bit, on what
//! is read together with it ([`opabinia_nn::cpu`] holds few rows to that), so the answer is the very
//! one that a token at a time gives.

/// Most tokens that are guessed: with the newest they are as many rows as every product on a CPU
/// computes independently of each other, whatever the format of its weight.
pub const MAX_GUESSES: usize = 7;

// Beyond that a row's result may depend on the others.
const _: () = assert!(MAX_GUESSES < opabinia_nn::cpu::FEW_ROWS);

/// Stands in what was said for a visual token, which is like nothing that is said.
pub(crate) const NO_TOKEN: u32 = u32::MAX;

/// Lengths of the endings that are looked for, the longest first: a longer one is a better sign.
const ENDINGS: [usize; 3] = [4, 3, 2];

/// What probably follows `said`, at most `count` tokens; nothing if its ending is new. A guess ends before
/// a picture ([`NO_TOKEN`]): its tokens are never said, and no table has them.
pub(crate) fn guess(said: &[u32], count: usize) -> &[u32] {
    for length in ENDINGS {
        let Some(before) = said.len().checked_sub(length) else {
            continue;
        };
        let ending = &said[before..];
        // The newest occurrence with something behind it.
        let found = (0..before).rev().find(|&at| said[at..].starts_with(ending));
        if let Some(at) = found {
            let follows = &said[at + length..];
            let tokens = follows.iter().take_while(|&&token| token != NO_TOKEN);
            return &follows[..count.min(tokens.count())];
        }
    }
    &[]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_occurrence_of_the_longest_ending_counts() {
        assert_eq!(guess(&[1, 2, 3, 9, 1, 2, 4, 8, 1, 2], 2), [4, 8]);
        assert_eq!(guess(&[7, 1, 2, 3, 9, 1, 2, 4, 7, 1, 2], 1), [3]);
        assert_eq!(guess(&[1, 2, 3], 7), [0u32; 0]);
        assert_eq!(guess(&[], 7), [0u32; 0]);
    }

    /// `Picture:` before each of two pictures: said again, nothing can be guessed from it.
    #[test]
    fn a_guess_ends_before_a_picture() {
        let said = [1, 2, NO_TOKEN, NO_TOKEN, 3, 1, 2];
        assert_eq!(guess(&said, 7), [0u32; 0]);
        let said = [1, 2, 4, NO_TOKEN, 3, 1, 2];
        assert_eq!(guess(&said, 7), [4]);
        assert_eq!(guess(&[NO_TOKEN; 6], 7), [0u32; 0]);
    }

    /// A word said over and over: the guess reaches to the end of what is there.
    #[test]
    fn repetition_guesses_itself() {
        assert_eq!(guess(&[5, 5, 5], 7), [5]);
        assert_eq!(guess(&[1, 5, 6, 5, 6], 7), [5, 6]);
        assert_eq!(guess(&[5, 6, 5, 6, 5, 6], 1), [5]);
    }
}
