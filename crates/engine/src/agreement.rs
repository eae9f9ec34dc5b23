//! Whether picture, caption and question belong together.
//!
//! The check is a trait, so that any pair of encoders with a text side can stand behind it. The one that is
//! built asks an endpoint for embeddings of texts and pictures (`modality`, as servers of CLIP and SigLIP
//! pairs have it) and compares by cosine. Without `[agreement]` in the plan the check is skipped, and the
//! manifest says so.

use opabinia_endpoint::{data_url, key_of, service_url};
use serde_json::{Value, json};

use crate::error::{EngineError, Failure, Fault};
use crate::outside::{Asker, Outside};
use crate::plan::AgreementTable;
use crate::web::{Purpose, Request, Secret};

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
    url: String,
    secret: Option<Secret>,
}

impl<'a> EncoderPair<'a> {
    pub(crate) fn new(table: &'a AgreementTable, replay: bool) -> Result<Self, EngineError> {
        let url = service_url(&table.url, "/embeddings").ok_or_else(|| {
            opabinia_endpoint::EndpointError::Address {
                url: table.url.clone(),
            }
        })?;
        let key = table
            .key_variable
            .as_deref()
            .filter(|_| !replay)
            .map(key_of)
            .transpose()?;
        Ok(Self {
            table,
            url,
            secret: key.map(Secret::Bearer),
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
        let answer = outside.fetch(&request, asker)?;
        let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let rows = value["data"].as_array().cloned().unwrap_or_default();
        let rows: Option<Vec<Vec<f64>>> = rows
            .iter()
            .map(|row| {
                row["embedding"]
                    .as_array()?
                    .iter()
                    .map(Value::as_f64)
                    .collect()
            })
            .collect();
        let wanted = input.as_array().map_or(0, Vec::len);
        rows.filter(|rows| rows.len() == wanted).ok_or_else(|| {
            Failure::lasting(
                "answer",
                format!("`{}` gave no {wanted} embeddings", self.url),
            )
            .into()
        })
    }
}

impl Agreement for EncoderPair<'_> {
    fn scores(
        &self,
        picture: &[u8],
        texts: &[&str],
        outside: &Outside<'_>,
        asker: Asker<'_>,
    ) -> Result<Vec<f64>, Fault> {
        let seen = self.embed(&json!([data_url(picture)?]), "image", outside, asker)?;
        let read = self.embed(&json!(texts), "text", outside, asker)?;
        Ok(read.iter().map(|text| cosine(&seen[0], text)).collect())
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
    use super::*;

    #[test]
    fn cosines_by_hand() {
        assert_eq!(cosine(&[3.0, 4.0], &[3.0, 4.0]), 1.0);
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 2.0]), 0.0);
        assert_eq!(cosine(&[1.0], &[]), 0.0);
    }
}
