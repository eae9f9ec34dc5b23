//! The expressions of a definition, compiled, and what they make of a row.

use std::collections::BTreeSet;

use minijinja::{Environment, Expression, Template, Value};

use super::answer::{Problem, Right, chance_of, options_of, right_of};
use super::definition::{AnswerKind, BenchmarkDefinition, Chance, Effective};
use super::error::BenchmarkError;
use super::expression::{columns, context, explain, is_empty, json_of, text_of};
use super::fault::FaultKind;
use super::row::Row;
use crate::scorer::Gold;

/// A definition, ready for rows.
pub(super) struct Rules<'e> {
    keep: Option<Expression<'e, 'e>>,
    id: Option<Expression<'e, 'e>>,
    picture: Option<Expression<'e, 'e>>,
    options: Option<Expression<'e, 'e>>,
    answer: Option<Expression<'e, 'e>>,
    category: Option<Expression<'e, 'e>>,
    kind: Option<Expression<'e, 'e>>,
    unit: Option<Expression<'e, 'e>>,
    source: Option<Expression<'e, 'e>>,
    body: Template<'e, 'e>,
    suffix: Template<'e, 'e>,
    fields: Vec<(&'e str, Expression<'e, 'e>)>,
    answer_is: AnswerKind,
    chance: Chance,
    unanswered_allowed: bool,
}

/// Which key of a definition uses a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Use {
    pub key: String,
    pub column: String,
}

/// What `this` is while the first expressions of a row are evaluated.
#[derive(Clone, Copy, Debug)]
pub(super) struct This<'a> {
    pub number: usize,
    pub file_row: u64,
    pub split: Option<&'a str>,
    pub config: Option<&'a str>,
}

impl This<'_> {
    fn value(&self, rest: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
        let pairs = [
            ("number", Value::from(self.number)),
            ("file_row", Value::from(self.file_row)),
            ("split", Value::from(self.split)),
            ("config", Value::from(self.config)),
        ];
        Value::from_pairs(pairs.into_iter().chain(rest))
    }
}

/// A row as far as it does not depend on its picture.
pub(super) struct Draft {
    /// `None` if the definition has no pictures.
    pub picture: Option<Value>,
    options: Vec<String>,
    right: Option<Right>,
}

/// What is said about a question.
pub(super) struct Said {
    pub unit: Option<String>,
    pub category: Option<String>,
    pub source: Option<String>,
    pub prompt: String,
    pub gold: Option<Gold>,
    pub chance: f64,
    pub fields: Vec<(String, serde_json::Value)>,
}

impl<'e> Rules<'e> {
    /// Compiles a definition.
    pub(super) fn new(
        environment: &'e Environment<'e>,
        definition: &'e BenchmarkDefinition,
        effective: &'e Effective,
    ) -> Result<Self, BenchmarkError> {
        // Definitions were checked when they were read; a caller may have built one by hand.
        let refused = |key: &str, error: &minijinja::Error| BenchmarkError::Value {
            place: super::error::Place {
                path: format!("benchmark {}", definition.name).into(),
                line: None,
            },
            key: key.to_owned(),
            problem: explain(error),
        };
        let expression = |key: &str, text: &'e str| {
            let compiled = environment.compile_expression(text);
            compiled.map_err(|error| refused(key, &error))
        };
        let optional = |key: &str, text: &'e Option<String>| {
            let text = text.as_deref();
            text.map(|text| expression(key, text)).transpose()
        };
        let template = |key: &str, text: &'e Option<String>| {
            let text = text.as_deref().unwrap_or_default();
            environment
                .template_from_str(text)
                .map_err(|error| refused(key, &error))
        };
        let submission = definition.submission.as_ref();
        let fields = submission.iter().flat_map(|table| &table.fields);
        let fields = fields.map(|field| {
            let value = expression("submission.fields", &field.value)?;
            Ok((field.name.as_str(), value))
        });
        let row = &effective.row;
        Ok(Self {
            keep: optional("row.keep", &row.keep)?,
            id: optional("row.id", &row.id)?,
            picture: optional("row.picture", &row.picture)?,
            options: optional("row.options", &row.options)?,
            answer: optional("row.answer", &row.answer)?,
            category: optional("row.category", &row.category)?,
            kind: optional("row.kind", &row.kind)?,
            unit: optional("row.unit", &row.unit)?,
            source: optional("row.source", &row.source)?,
            body: template("prompt.body", &effective.prompt.body)?,
            suffix: template("prompt.suffix", &effective.prompt.suffix)?,
            fields: fields.collect::<Result<_, BenchmarkError>>()?,
            answer_is: row.answer_is.unwrap_or_default(),
            chance: effective.scoring.chance.unwrap_or(Chance::Fixed(0.0)),
            unanswered_allowed: submission.is_some(),
        })
    }

    /// Every use of a column.
    pub(super) fn uses(&self) -> Vec<Use> {
        let expressions = [
            ("row.keep", &self.keep),
            ("row.id", &self.id),
            ("row.picture", &self.picture),
            ("row.options", &self.options),
            ("row.answer", &self.answer),
            ("row.category", &self.category),
            ("row.kind", &self.kind),
            ("row.unit", &self.unit),
            ("row.source", &self.source),
        ];
        let mut names: Vec<(&str, BTreeSet<String>)> = Vec::new();
        for (key, expression) in expressions {
            if let Some(expression) = expression {
                names.push((key, columns(expression.undeclared_variables(false))));
            }
        }
        for (key, template) in [("prompt.body", &self.body), ("prompt.suffix", &self.suffix)] {
            names.push((key, columns(template.undeclared_variables(false))));
        }
        for (_, field) in &self.fields {
            let found = columns(field.undeclared_variables(false));
            names.push(("submission.fields", found));
        }
        let names = names.into_iter();
        let uses = names.flat_map(|(key, columns)| {
            columns.into_iter().map(move |column| Use {
                key: key.to_owned(),
                column,
            })
        });
        uses.collect()
    }

    /// Whether a row is a question.
    pub(super) fn keeps(&self, row: &Row, this: This<'_>) -> Result<bool, Problem> {
        let context = context(row, this.value([]));
        let kept = evaluate("keep", self.keep.as_ref(), &context)?;
        Ok(kept.is_none_or(|value| value.is_true()))
    }

    /// The name of a row.
    pub(super) fn id(&self, row: &Row, this: This<'_>) -> Result<String, Problem> {
        let context = context(row, this.value([]));
        let id = label("id", self.id.as_ref(), &context)?;
        Ok(id.unwrap_or_else(|| this.number.to_string()))
    }

    /// Picture, options and answer of a row.
    pub(super) fn draft(&self, row: &Row, this: This<'_>) -> Result<Draft, Problem> {
        let context = context(row, this.value([]));
        let options = match evaluate("options", self.options.as_ref(), &context)? {
            Some(value) => options_of(&value)?,
            None => Vec::new(),
        };
        let right = match evaluate("answer", self.answer.as_ref(), &context)? {
            Some(value) => right_of(&value, self.answer_is, &options)?,
            None => None,
        };
        if right.is_none() && !self.unanswered_allowed {
            return Err((FaultKind::MissingAnswer, "`answer` is empty".to_owned()));
        }
        Ok(Draft {
            picture: evaluate("picture", self.picture.as_ref(), &context)?,
            options,
            right,
        })
    }

    /// Everything else, once the picture is known.
    pub(super) fn say(
        &self,
        row: &Row,
        this: This<'_>,
        draft: Draft,
        picture_sha256: Option<&str>,
    ) -> Result<Said, Problem> {
        let this = this.value([
            ("options", Value::from(draft.options.clone())),
            ("picture_sha256", Value::from(picture_sha256)),
        ]);
        let context = context(row, this);
        let category = label("category", self.category.as_ref(), &context)?;
        let kind = label("kind", self.kind.as_ref(), &context)?;
        let gold = |right: Right| Gold {
            answers: right.answers,
            options: draft.options.clone(),
            right: right.option,
            category: category.clone(),
            kind,
        };
        let gold = draft.right.map(gold);
        let fields = self.fields.iter().map(|(name, expression)| {
            let value = evaluate(name, Some(expression), &context)?.unwrap_or_default();
            let value = json_of(&value).ok_or_else(|| {
                let problem = format!("submission field `{name}` is a {}", value.kind());
                (FaultKind::WrongType, problem)
            })?;
            Ok(((*name).to_owned(), value))
        });
        Ok(Said {
            unit: label("unit", self.unit.as_ref(), &context)?,
            source: label("source", self.source.as_ref(), &context)?,
            prompt: self.prompt(&context)?,
            chance: gold
                .as_ref()
                .map_or(0.0, |gold| chance_of(self.chance, gold)),
            gold,
            category,
            fields: fields.collect::<Result<_, Problem>>()?,
        })
    }

    /// `body`, a line break, `suffix`; without the line break if there is no suffix.
    fn prompt(&self, context: &Value) -> Result<String, Problem> {
        let render = |key: &str, template: &Template<'_, '_>| {
            let text = template.render(context.clone());
            text.map_err(|error| {
                (
                    FaultKind::WrongType,
                    format!("`{key}`: {}", explain(&error)),
                )
            })
        };
        let mut prompt = render("body", &self.body)?;
        let suffix = render("suffix", &self.suffix)?;
        if !suffix.is_empty() {
            prompt.push('\n');
            prompt.push_str(&suffix);
        }
        if prompt.trim().is_empty() {
            let problem = "there is nothing to ask".to_owned();
            return Err((FaultKind::EmptyPrompt, problem));
        }
        Ok(prompt)
    }
}

/// The value of an expression, if there is one.
fn evaluate(
    key: &str,
    expression: Option<&Expression<'_, '_>>,
    context: &Value,
) -> Result<Option<Value>, Problem> {
    let value = expression.map(|expression| expression.eval(context.clone()));
    value.transpose().map_err(|error| {
        (
            FaultKind::WrongType,
            format!("`{key}`: {}", explain(&error)),
        )
    })
}

/// A value that is a name: text or a number.
fn label(
    key: &str,
    expression: Option<&Expression<'_, '_>>,
    context: &Value,
) -> Result<Option<String>, Problem> {
    let Some(value) = evaluate(key, expression, context)? else {
        return Ok(None);
    };
    let text = text_of(&value).filter(|_| !is_empty(&value));
    text.map(Some).ok_or_else(|| {
        let problem = match is_empty(&value) {
            true => format!("`{key}` is empty"),
            false => format!("`{key}` is a {}, wanted text or a number", value.kind()),
        };
        (FaultKind::WrongType, problem)
    })
}
