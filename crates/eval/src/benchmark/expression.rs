//! The language of definitions: Jinja expressions and templates over the columns of a row.
//!
//! On top of what every Jinja has (`trim`, `split`, `replace`, `int`, `length`, …) definitions may use:
//!
//! | | |
//! |---|---|
//! | `letter(i)` | the letter of option `i`, from 0 |
//! | `list \| lettered` | the options, each on a line of its own after its letter: line break, `A. `, option |
//! | `list \| known` | without what stands for "no option": nothing, empty text, `nan` |
//! | `text \| marked("(A)")` | the options that a text contains, by the look of the first mark |
//! | `text \| python_list` | the strings of a list that Python printed; other text as a list of one |
//! | `text \| single_quoted` | what is between single quotes, as the reference reads such lists |
//! | `text \| from_json` | the value of a JSON text |
//! | `text \| without_image_tags` | without `<image 1>`, `<image 2>`, … |
//!
//! and `this.number` (the row's number over all sources, from 0), `this.file_row` (its number in its
//! file, from 1), `this.split`, `this.config`, and in prompts, `unit` and submissions also
//! `this.options` and `this.picture_sha256`. A column that is called `this` is reached by renaming it.

use std::collections::BTreeSet;
use std::sync::Arc;

use minijinja::value::{Object, ObjectRepr, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};

use super::options;
use super::picture::PictureData;
use super::row::{Cell, PackedPicture, Row};

/// Names that are no columns.
const NOT_COLUMNS: [&str; 6] = ["this", "letter", "range", "dict", "namespace", "debug"];

/// The environment that expressions are compiled in.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.add_function("letter", |index: usize| letter_of(index));
    environment.add_filter("lettered", |list: Value| -> Result<String, Error> {
        let mut text = String::new();
        for (index, option) in list.try_iter()?.enumerate() {
            text += &format!("\n{}. {option}", letter_of(index)?);
        }
        Ok(text)
    });
    environment.add_filter("known", |list: Value| -> Result<Vec<Value>, Error> {
        Ok(list.try_iter()?.filter(is_known).collect())
    });
    environment.add_filter("marked", |text: String, mark: String| {
        options::marked(&text, &mark).ok_or_else(|| {
            let problem = format!("`{mark}` is no mark; wanted the first one, such as `(A)`, `A.`");
            Error::new(ErrorKind::InvalidOperation, problem)
        })
    });
    environment.add_filter("python_list", |text: String| options::python_list(&text));
    environment.add_filter("single_quoted", |text: String| {
        options::single_quoted(&text)
    });
    environment.add_filter("from_json", |text: String| -> Result<Value, Error> {
        let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| {
            Error::new(ErrorKind::InvalidOperation, format!("not JSON: {error}"))
        })?;
        Ok(to_value(&value.into()))
    });
    environment.add_filter("without_image_tags", |text: String| {
        options::without_image_tags(&text)
    });
    environment
}

/// `A`, `B`, …
fn letter_of(index: usize) -> Result<char, Error> {
    options::letter(index).ok_or_else(|| {
        let problem = format!("there is no letter for option {index}; there are 26");
        Error::new(ErrorKind::InvalidOperation, problem)
    })
}

/// Whether an option is one: data sets write `nan` where there is none.
fn is_known(value: &Value) -> bool {
    let nothing = value.is_none() || value.is_undefined();
    !nothing
        && !value
            .as_str()
            .is_some_and(|text| matches!(text, "" | "nan"))
}

/// What is wrong with an expression, if anything is.
pub(super) fn check(environment: &Environment<'_>, text: &str) -> Result<(), String> {
    let compiled = environment.compile_expression_owned(text.to_owned());
    compiled.map(|_| ()).map_err(|error| explain(&error))
}

/// What is wrong with a template, if anything is.
pub(super) fn check_template(environment: &Environment<'_>, text: &str) -> Result<(), String> {
    let compiled = environment.template_from_str(text);
    compiled.map(|_| ()).map_err(|error| explain(&error))
}

/// The columns among the names that an expression or a template looks up.
pub(super) fn columns(names: impl IntoIterator<Item = String>) -> BTreeSet<String> {
    let names = names.into_iter();
    names
        .filter(|name| !NOT_COLUMNS.contains(&name.as_str()))
        .collect()
}

/// What went wrong, in one line.
pub(super) fn explain(error: &Error) -> String {
    let mut text = error.kind().to_string();
    if let Some(detail) = error.detail() {
        text = format!("{text}: {detail}");
    }
    text
}

/// The names that expressions over a row see.
pub(super) fn context(row: &Row, this: Value) -> Value {
    let cells = row.cells();
    let cells = cells.map(|(name, cell)| (Value::from(Arc::clone(name)), to_value(cell)));
    Value::from_pairs(cells.chain([(Value::from("this"), this)]))
}

fn to_value(cell: &Cell) -> Value {
    match cell.packed_picture() {
        Some(PackedPicture::Bytes(bytes)) => {
            return Value::from_object(PictureValue::Bytes(Arc::clone(bytes)));
        }
        Some(PackedPicture::Path(path)) => {
            return Value::from_object(PictureValue::Path(path.to_owned()));
        }
        None => {}
    }
    match cell {
        Cell::Null | Cell::Bytes(_) => Value::from(()),
        Cell::Bool(value) => Value::from(*value),
        Cell::Int(value) => Value::from(*value),
        Cell::Float(value) => Value::from(*value),
        Cell::Text(text) => Value::from(text.as_str()),
        Cell::Picture(picture) => Value::from_object(PictureValue::Kept(picture.clone())),
        Cell::List(items) => items.iter().map(to_value).collect(),
        Cell::Map(entries) => {
            let entries = entries.iter();
            Value::from_pairs(
                entries.map(|(key, cell)| (Value::from(key.as_str()), to_value(cell))),
            )
        }
    }
}

/// A picture in an expression: it can be chosen and passed on, nothing else.
#[derive(Debug)]
pub(super) enum PictureValue {
    /// As it is in the file of rows.
    Bytes(Arc<[u8]>),
    /// Named by the file of rows.
    Path(String),
    /// Put away.
    Kept(PictureData),
}

impl Object for PictureValue {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}

/// A value as text: of text itself, and of numbers as they are written.
pub(super) fn text_of(value: &Value) -> Option<String> {
    match value.kind() {
        ValueKind::String => value.as_str().map(str::to_owned),
        ValueKind::Number | ValueKind::Bool => Some(value.to_string()),
        _ => None,
    }
}

/// Whether there is no value: nothing, empty text, an empty list.
pub(super) fn is_empty(value: &Value) -> bool {
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => true,
        ValueKind::String => value.as_str().is_some_and(|text| text.trim().is_empty()),
        ValueKind::Seq => value.len() == Some(0),
        _ => false,
    }
}

/// A value as a list of texts; a single one as a list of one.
pub(super) fn texts_of(value: &Value) -> Option<Vec<String>> {
    if let Some(text) = text_of(value) {
        return Some(vec![text]);
    }
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return None;
    }
    value.try_iter().ok()?.map(|item| text_of(&item)).collect()
}

/// A value as JSON; `None` for what JSON has no form for.
pub(super) fn json_of(value: &Value) -> Option<serde_json::Value> {
    Some(match value.kind() {
        ValueKind::None | ValueKind::Undefined => serde_json::Value::Null,
        ValueKind::Bool => value.is_true().into(),
        ValueKind::Number => match value.as_i64().filter(|_| value.is_integer()) {
            Some(whole) => whole.into(),
            None => serde_json::Number::from_f64(f64::try_from(value.clone()).ok()?)?.into(),
        },
        ValueKind::String => value.as_str()?.into(),
        ValueKind::Seq => {
            let items = value.try_iter().ok()?;
            serde_json::Value::Array(items.map(|item| json_of(&item)).collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(value: serde_json::Value) -> Row {
        let serde_json::Value::Object(entries) = value else {
            panic!()
        };
        let entries = entries.into_iter();
        Row::new(entries.map(|(name, value)| (Arc::from(name), Cell::from(value))))
    }

    fn evaluate(text: &str, columns: serde_json::Value) -> Value {
        let environment = environment();
        let expression = environment.compile_expression(text).unwrap();
        let context = context(&row(columns), Value::from(()));
        expression.eval(context).unwrap()
    }

    #[test]
    fn columns_and_helpers() {
        let answers = evaluate("answers[1:]", json!({"answers": ["a", "b", 3]}));
        assert_eq!(texts_of(&answers).unwrap(), ["b", "3"]);
        let known = evaluate("[A, B, C]|known", json!({"A": "x", "B": "nan", "C": null}));
        assert_eq!(texts_of(&known).unwrap(), ["x"]);
        let lettered = evaluate("o|lettered", json!({"o": ["x", 2]}));
        assert_eq!(lettered.as_str(), Some("\nA. x\nB. 2"));
        let nested = evaluate(
            "(g|from_json).a.b",
            json!({"g": "{\"a\": {\"b\": \"deep\"}}"}),
        );
        assert_eq!(nested.as_str(), Some("deep"));
        let unit = evaluate("(n|int - 1) // 2", json!({"n": "4"}));
        assert_eq!(unit.to_string(), "1");
        assert_eq!(evaluate("letter(2)", json!({})).to_string(), "C");
    }

    #[test]
    fn columns_are_found() {
        let environment = environment();
        let text =
            "{% for o in choices %}{{ letter(loop.index0) }}{{ o }}{{ this.number }}{% endfor %}";
        let template = environment.template_from_str(text).unwrap();
        let found = columns(template.undeclared_variables(false));
        assert_eq!(Vec::from_iter(found), ["choices"]);
    }

    #[test]
    fn pictures_pass_through_expressions() {
        let pictures = Cell::List(vec![Cell::Bytes(Arc::from(*b"one")), Cell::Null]);
        let row = Row::new([(Arc::from("image"), pictures)]);
        let environment = environment();
        let context = context(&row, Value::from(()));
        let first = environment.compile_expression("image[0]").unwrap();
        let first = first.eval(context.clone()).unwrap();
        let picture = first.downcast_object_ref::<PictureValue>();
        assert!(matches!(picture, Some(PictureValue::Bytes(bytes)) if &**bytes == b"one"));
        let count = environment.compile_expression("image|length").unwrap();
        assert_eq!(count.eval(context).unwrap().as_usize(), Some(2));
    }

    #[test]
    fn mistakes_are_explained() {
        let environment = environment();
        assert!(check(&environment, "a +").is_err());
        assert!(
            check(&environment, "a|no_such_filter").is_ok(),
            "found when used"
        );
        assert!(check_template(&environment, "{% for %}").is_err());
    }

    #[test]
    fn emptiness() {
        for (text, empty) in [("a", true), ("b", true), ("c", true), ("d", false)] {
            let value = evaluate(text, json!({"a": null, "b": " ", "c": [], "d": 0}));
            assert_eq!(is_empty(&value), empty, "{text}");
        }
    }

    #[test]
    fn json_of_values() {
        let value = evaluate("[a|int, b, c, none]", json!({"a": "7", "b": 0.5, "c": "x"}));
        assert_eq!(json_of(&value), Some(json!([7, 0.5, "x", null])));
    }
}
