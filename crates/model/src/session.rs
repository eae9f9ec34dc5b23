//! One user's conversation with a model.
//!
//! A picture is not encoded twice, and of a conversation that goes on only the new part is read: keys
//! and values of the longest common beginning stay in the cache.

use std::collections::VecDeque;
use std::sync::Arc;

use opabinia_image::RgbImage;
use opabinia_llm::{Conversation, KvCache};
use opabinia_nn::{RotaryScaling, Trace};

use crate::ModelError;
use crate::generate::{Answer, Generation, OnText};
use crate::in_llm::ImagePosition;
use crate::load::Model;
use crate::pack::Unit;
use crate::see::Seen;

/// Pictures that a session keeps.
const PICTURES_KEPT: usize = 16;

/// One user's conversation with a model: remembers pictures and what was read.
pub struct Session<'a> {
    model: &'a Model,
    /// Content hash and what was seen; newest last.
    seen: VecDeque<(String, Arc<Seen>)>,
    read: Option<Read>,
}

/// What is in the cache.
struct Read {
    cache: KvCache,
    units: Vec<Unit>,
    /// Kept alive, so that no other picture can come to have the same address.
    pictures: Vec<Arc<Seen>>,
    rule: ImagePosition,
}

impl<'a> Session<'a> {
    /// A session that remembers nothing yet.
    #[must_use]
    pub fn new(model: &'a Model) -> Self {
        Self {
            model,
            seen: VecDeque::new(),
            read: None,
        }
    }

    /// Looks at a picture, or remembers having looked at the same pixels.
    ///
    /// Returns whether it was remembered.
    ///
    /// # Errors
    /// As [`Model::see`].
    pub fn see(&mut self, picture: &RgbImage) -> Result<(Arc<Seen>, bool), ModelError> {
        let hash = picture.content_hash();
        if let Some(at) = self.seen.iter().position(|(known, _)| *known == hash)
            && let Some(entry) = self.seen.remove(at)
        {
            let seen = entry.1.clone();
            self.seen.push_back(entry);
            return Ok((seen, true));
        }
        let seen = self.model.see(picture, &mut Trace::off())?;
        if self.seen.len() == PICTURES_KEPT {
            self.seen.pop_front();
        }
        self.seen.push_back((hash, seen.clone()));
        Ok((seen, false))
    }

    /// Answers a conversation, reading only what was not read before.
    ///
    /// # Errors
    /// If the prompt cannot be made or does not fit, or generation fails.
    pub fn answer(
        &mut self,
        conversation: &Conversation,
        pictures: &[Arc<Seen>],
        generation: &Generation,
        on_text: &mut OnText<'_>,
    ) -> Result<Answer, ModelError> {
        let prompt = self.model.prompt(conversation)?;
        let packed = self.model.pack(&[(&prompt, pictures)])?;
        let units = packed.rows[0].units.clone();
        let cache = self.reusable(&units, pictures, generation.image_position);
        let (mut answers, cache) = self
            .model
            .generate_from(&packed, cache, generation, on_text)?;
        let answer = answers.pop().ok_or(ModelError::EmptyPrompt)?;
        let mut units = units;
        units.extend(answer.ids.iter().map(|&id| Unit::Token(id)));
        units.truncate(cache.len());
        self.read = Some(Read {
            cache,
            units,
            pictures: pictures.to_vec(),
            rule: generation.image_position,
        });
        Ok(answer)
    }

    /// The cache of the longest common beginning of the last prompt and this one, at least one
    /// token short of it, because the last token's scores are needed.
    fn reusable(&mut self, units: &[Unit], pictures: &[Arc<Seen>], rule: ImagePosition) -> KvCache {
        let Some(read) = self.read.take() else {
            return KvCache::new();
        };
        // Another number of pictures may move the place where in-LLM layers act.
        if (read.pictures.len(), read.rule) != (pictures.len(), rule) {
            return KvCache::new();
        }
        // Keys rotated for another length do not fit a longer sequence.
        let decoder = &self.model.config.decoder;
        let dynamic = matches!(decoder.rope_scaling, Some(RotaryScaling::Dynamic { .. }));
        if dynamic && read.units.len().max(units.len()) > decoder.max_position {
            return KvCache::new();
        }
        let equal = read.units.iter().zip(units).take_while(|(a, b)| a == b);
        let mut common = equal.count().min(units.len().saturating_sub(1));
        let same_pictures = read
            .pictures
            .iter()
            .zip(pictures)
            .all(|(a, b)| Arc::ptr_eq(a, b));
        if let (false, Some(constant)) = (same_pictures, self.image_position(rule)) {
            // In-LLM layers may have written of the old picture before its own place.
            common = common.min(constant);
        }
        let mut cache = read.cache;
        cache.truncate(common);
        cache
    }

    /// The constant place of in-LLM layers, where it counts.
    fn image_position(&self, rule: ImagePosition) -> Option<usize> {
        let vision = self.model.config.vision.as_ref()?;
        vision
            .image_position
            .filter(|_| rule == ImagePosition::Config)
    }
}
