//! `--set key.path=value`: changing a recipe from the command line.
//!
//! Values are read as TOML where they are TOML, and as text where they are not, so that
//! `schedule.kind=linear` needs no quotes.

use serde::Deserialize;
use toml::{Table, Value};

use super::error::{Place, RecipeError, explain};
use super::tables::Document;

/// Keys of which a file may have only one: setting one removes the other.
const EXCLUSIVE: [(&str, &str); 2] = [
    ("schedule.steps", "schedule.epochs"),
    ("schedule.warmup_steps", "schedule.warmup_ratio"),
];

/// Applies one override and checks that the result is still a recipe.
pub(super) fn apply(table: &mut Table, key: &str, value: &str) -> Result<(), RecipeError> {
    let place = Place::Set {
        assignment: format!("{key}={value}"),
    };
    for (a, b) in EXCLUSIVE {
        if key == a {
            remove(table, b);
        } else if key == b {
            remove(table, a);
        }
    }
    set(table, key, parse(value)).map_err(|problem| RecipeError::Override {
        place: place.clone(),
        problem,
    })?;
    match Document::deserialize(table.clone()) {
        Ok(_) => Ok(()),
        Err(error) => Err(explain(&error, place)),
    }
}

fn parse(value: &str) -> Value {
    // One value and nothing after it, lest a line break smuggle another key in.
    let table = format!("value = {value}").parse::<Table>().ok();
    table
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(value.to_owned()))
}

fn set(table: &mut Table, key: &str, value: Value) -> Result<(), String> {
    let (way, last) = match key.rsplit_once('.') {
        Some((way, last)) => (way, last),
        None => ("", key),
    };
    if last.is_empty() {
        return Err("a key is missing; write `--set table.key=value`".to_owned());
    }
    let mut words = way.split('.').filter(|word| !word.is_empty());
    let Some(first) = words.next() else {
        table.insert(last.to_owned(), value);
        return Ok(());
    };
    let mut place = table
        .entry(first)
        .or_insert_with(|| Value::Table(Table::new()));
    for word in words {
        place = enter(place, word)?;
    }
    match place {
        Value::Table(table) => {
            table.insert(last.to_owned(), value);
        }
        Value::Array(items) => *item(items, last)? = value,
        _ => return Err(format!("`{way}` has no keys inside")),
    }
    Ok(())
}

fn enter<'a>(place: &'a mut Value, word: &str) -> Result<&'a mut Value, String> {
    match place {
        Value::Table(table) => Ok(table
            .entry(word)
            .or_insert_with(|| Value::Table(Table::new()))),
        Value::Array(items) => item(items, word),
        _ => Err(format!("there are no keys above `{word}`")),
    }
}

fn item<'a>(items: &'a mut [Value], word: &str) -> Result<&'a mut Value, String> {
    let count = items.len();
    word.parse::<usize>()
        .ok()
        .and_then(|index| items.get_mut(index))
        .ok_or_else(|| format!("the list has {count} items, counted from 0, and no `{word}`"))
}

fn remove(table: &mut Table, key: &str) {
    if let Some((name, key)) = key.split_once('.')
        && let Some(Value::Table(table)) = table.get_mut(name)
    {
        table.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_toml_or_text() {
        assert_eq!(parse("1e-3"), Value::Float(1e-3));
        assert_eq!(parse("[1, 2]"), Value::Array(vec![1.into(), 2.into()]));
        assert_eq!(parse("cosine"), Value::String("cosine".into()));
        assert_eq!(parse("\"7\""), Value::String("7".into()));
        assert_eq!(parse("1\nother = 2"), Value::String("1\nother = 2".into()));
    }

    #[test]
    fn tables_are_made_and_lists_are_not() {
        let mut table: Table = "list = [{ a = 1 }]".parse().unwrap();
        set(&mut table, "x.y.z", Value::Integer(1)).unwrap();
        set(&mut table, "list.0.a", Value::Integer(2)).unwrap();
        let expected: Table = "list = [{ a = 2 }]\n[x.y]\nz = 1".parse().unwrap();
        assert_eq!(table, expected);
        assert!(set(&mut table, "list.1.a", Value::Integer(2)).is_err());
        assert!(set(&mut table, "x.y.z.w", Value::Integer(2)).is_err());
        assert!(set(&mut table, "x.", Value::Integer(2)).is_err());
    }
}
