//! Where the elements of an array of JSON begin and end, found without understanding them.
//!
//! Brackets, commas and quotation marks are enough for that. So a file is cut into elements as a stream,
//! and one that is no JSON spoils nothing but itself, unless it leaves a bracket or a text open.

/// What a byte of an array is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Part of an element, or white space between two.
    Nothing,
    /// The first byte of an element.
    Begins,
    /// The comma behind an element.
    Ends,
    /// The bracket that closes the array, and ends an element that has begun.
    ArrayEnds,
}

/// Where in an array a scan is; it starts behind the opening bracket.
#[derive(Clone, Debug, Default)]
pub struct Nesting {
    /// Whether the element that a comma would end has begun.
    begun: bool,
    /// Open brackets inside the element.
    depth: usize,
    in_text: bool,
    escaped: bool,
}

impl Nesting {
    /// Takes the next byte, up to the one that ends the array.
    pub fn step(&mut self, byte: u8) -> Event {
        if self.in_text {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_text = false,
                _ => {}
            }
            return Event::Nothing;
        }
        match byte {
            b',' if self.depth == 0 => {
                return match std::mem::take(&mut self.begun) {
                    true => Event::Ends,
                    false => Event::Nothing,
                };
            }
            b']' if self.depth == 0 => return Event::ArrayEnds,
            b'"' => self.in_text = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        if self.begun || byte.is_ascii_whitespace() {
            return Event::Nothing;
        }
        self.begun = true;
        Event::Begins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_told_by_brackets_commas_and_texts() {
        let mut nesting = Nesting::default();
        let events = br#" {"a": "],\"["}, ,NaN ]"#.iter().enumerate();
        let events = events.map(|(at, &byte)| (at, nesting.step(byte)));
        let events: Vec<(usize, Event)> = events
            .filter(|(_, event)| *event != Event::Nothing)
            .collect();
        // The second comma ends nothing.
        assert_eq!(
            events,
            [
                (1, Event::Begins),
                (15, Event::Ends),
                (18, Event::Begins),
                (22, Event::ArrayEnds)
            ]
        );
    }
}
