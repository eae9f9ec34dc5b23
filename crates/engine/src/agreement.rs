//! Whether picture, caption and question belong together.
//!
//! The check is a trait, so that any pair of encoders with a text side can stand behind it. The one that is
//! built asks an endpoint for embeddings of texts and pictures (`modality`, as servers of CLIP and SigLIP
//! pairs have it) and compares by cosine. Encoders of this program have no text side, so there is no local one.
//! Without `[agreement]` in the plan the check is skipped, and the manifest says so.

use opabinia_endpoint::{data_url, service_url};
use opabinia_image::{Filter, ImageSource, load, resize};
use serde_json::{Value, json};

use crate::ask::bearer;
use crate::error::{EngineError, Failure, Fault};
use crate::outside::{Asker, Outside};
use crate::picture::limits;
use crate::plan::{AgreementTable, PicturesTable};
use crate::web::{Purpose, Request, Secret};

/// Longest side in pixels of what is sent: encoders of pairs see less.
const SENT_SIDE: u32 = 512;

/// Somebody who can tell how well texts fit a picture.
pub(crate) trait Agreement: Sync {
    /// A number per text, −1 to 1.
    fn scores(
        &self,
        picture: &[u8],
        texts: &[&str],
        outside: &Outside<'_>,
        asker: Asker<'_>,
    ) -> Result<Vec<f64>, Fault>;
}

/// An encoder pair behind an endpoint.
pub(crate) struct EncoderPair<'a> {
    table: &'a AgreementTable,
    pictures: &'a PicturesTable,
    url: String,
    secret: Option<Secret>,
}

impl<'a> EncoderPair<'a> {
    pub(crate) fn new(
        table: &'a AgreementTable,
        pictures: &'a PicturesTable,
        replay: bool,
    ) -> Result<Self, EngineError> {
        let url = service_url(&table.url, "/embeddings").ok_or_else(|| {
            opabinia_endpoint::EndpointError::Address {
                url: table.url.clone(),
            }
        })?;
        Ok(Self {
            table,
            pictures,
            url,
            secret: bearer(table.key_variable.as_deref(), replay)?,
        })
    }

    fn embed(
        &self,
        input: &Value,
        modality: &str,
        outside: &Outside<'_>,
        asker: Asker<'_>,
    ) -> Result<Vec<Vec<f64>>, Fault> {
        let mut request = Request::get(Purpose::Service, &self.url);
        request.body = Some(json!({"model": self.table.model, "input": input, "modality": modality, "encoding_format": "float"}).to_string());
        request.secret = self.secret.clone();
        request.unusable = |body| vectors(body).err();
        let answer = outside.fetch(&request, asker)?;
        let rows = vectors(&answer.body).unwrap_or_default();
        let wanted = input.as_array().map_or(0, Vec::len);
        match rows.len() == wanted {
            true => Ok(rows),
            false => {
                let message = format!("`{}` gave {} embeddings of {wanted}", self.url, rows.len());
                Err(Failure::lasting("answer", message).into())
            }
        }
    }

    /// A picture as it is sent: small, and in a format that every server reads.
    fn shown(&self, picture: &[u8]) -> Result<String, Fault> {
        let source = ImageSource::Bytes {
            bytes: picture.to_vec(),
            name: "a picture of the archive".to_owned(),
        };
        let picture = load(&source, &limits(self.pictures))?;
        let (width, height) = picture.size();
        let scale = f64::from(SENT_SIDE) / f64::from(width.max(height));
        let side = |length: u32| ((f64::from(length) * scale) as u32).max(1);
        let picture = match scale < 1.0 {
            true => resize(&picture, side(width), side(height), Filter::Bicubic),
            false => picture,
        };
        Ok(data_url(&picture.encode_png()?)?)
    }
}

/// The vectors of an answer, in the order of what was asked.
fn vectors(body: &[u8]) -> Result<Vec<Vec<f64>>, String> {
    let value: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let rows = value["data"].as_array().ok_or("it has no `data`")?;
    let mut numbered = Vec::with_capacity(rows.len());
    for (i, row) in rows.iter().enumerate() {
        let vector = row["embedding"].as_array().ok_or("it has no `embedding`")?;
        let vector: Option<Vec<f64>> = vector.iter().map(Value::as_f64).collect();
        let vector = vector.ok_or("an `embedding` is no list of numbers")?;
        numbered.push((row["index"].as_u64().unwrap_or(i as u64), vector));
    }
    numbered.sort_by_key(|(index, _)| *index);
    Ok(numbered.into_iter().map(|(_, vector)| vector).collect())
}

impl Agreement for EncoderPair<'_> {
    fn scores(
        &self,
        picture: &[u8],
        texts: &[&str],
        outside: &Outside<'_>,
        asker: Asker<'_>,
    ) -> Result<Vec<f64>, Fault> {
        let seen = self.embed(&json!([self.shown(picture)?]), "image", outside, asker)?;
        let read = self.embed(&json!(texts), "text", outside, asker)?;
        let seen = seen.first().map_or(&[][..], Vec::as_slice);
        Ok(read.iter().map(|text| cosine(seen, text)).collect())
    }
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let length = (dot(a, a) * dot(b, b)).sqrt();
    if a.len() == b.len() && length > 0.0 {
        dot(a, b) / length
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cosines_by_hand() {
        assert_eq!(cosine(&[3.0, 4.0], &[3.0, 4.0]), 1.0);
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 2.0]), 0.0);
        assert_eq!(cosine(&[1.0], &[]), 0.0);
    }

    #[test]
    fn vectors_come_in_the_order_of_the_question() {
        let body =
            br#"{"data": [{"index": 1, "embedding": [2]}, {"index": 0, "embedding": [1.5]}]}"#;
        assert_eq!(vectors(body), Ok(vec![vec![1.5], vec![2.0]]));
        assert!(vectors(br#"{"data": [{"embedding": ["x"]}]}"#).is_err());
        assert!(vectors(b"<html>").is_err());
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(text in "[{}\\[\\]\",:0-9a-e]{0,60}") {
            let _ = vectors(text.as_bytes());
            let _ = vectors(format!("{{\"data\": [{{\"embedding\": [{text}]}}]}}").as_bytes());
        }
    }
}
