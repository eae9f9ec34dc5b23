//! Writing: lines with an offset index, Parquet, or WebDataset shards.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use opabinia_data::stays_inside;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::normalise::show_picture;
use super::webdataset::{self, Tar};
use super::{Conversion, Converted, Form, Incoming, parquet};
use crate::copy::ShardWriter;
use crate::error::CurateError;
use crate::table::hex;

/// Where a record keeps the name of a picture that had to be given another one.
const ORIGINAL: &str = "original_image";

/// What is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum To {
    /// One JSON object per line, pictures in `images/`.
    #[default]
    Lines,
    /// Parquet, pictures inside.
    Parquet,
    /// Tar files of `KEY.json` and `KEY.jpg`.
    WebDataset,
}

pub(super) struct Writer {
    folder: PathBuf,
    images: Option<PathBuf>,
    to: To,
    shard_samples: u64,
    shard: Option<Shard>,
    in_shard: u64,
    converted: Converted,
}

enum Shard {
    Lines(ShardWriter),
    Parquet(Box<parquet::Shard>),
    Tar(Tar, PathBuf),
}

impl Writer {
    pub fn new(folder: &Path, conversion: &Conversion) -> Self {
        Self {
            folder: folder.to_owned(),
            images: conversion.images.clone(),
            to: conversion.to,
            shard_samples: conversion.shard_samples.max(1),
            shard: None,
            in_shard: 0,
            converted: Converted::default(),
        }
    }

    pub fn put(&mut self, incoming: Incoming) -> Result<(), CurateError> {
        match incoming {
            Incoming::Blank => return Ok(()),
            Incoming::LeftOut => {
                self.converted.left_out += 1;
                return Ok(());
            }
            Incoming::Record { .. } | Incoming::Line(_) => {}
        }
        if self.in_shard == self.shard_samples {
            self.close()?;
        }
        if self.shard.is_none() {
            self.open()?;
        }
        let number = self.converted.samples;
        self.converted.samples += 1;
        self.in_shard += 1;
        match incoming {
            Incoming::Record {
                record,
                pictures,
                form,
            } => self.put_record(number, record, pictures, form),
            Incoming::Line(line) => self.put_line(number, &line),
            Incoming::LeftOut | Incoming::Blank => Ok(()),
        }
    }

    fn put_line(&mut self, number: u64, line: &[u8]) -> Result<(), CurateError> {
        self.converted.lines += 1;
        match &mut self.shard {
            Some(Shard::Lines(shard)) => shard.line(line),
            Some(Shard::Parquet(shard)) => shard.put_line(line),
            Some(Shard::Tar(tar, path)) => webdataset::put_line(tar, path, number, line),
            None => Ok(()),
        }
    }

    fn put_record(
        &mut self,
        number: u64,
        mut record: Value,
        mut pictures: Vec<Vec<u8>>,
        form: Form,
    ) -> Result<(), CurateError> {
        self.converted.pictures += pictures.len() as u64;
        if !pictures.is_empty() {
            let names = self.name_pictures(&record, &pictures)?;
            rename(&mut record, names);
            if form == Form::Foreign && pictures.len() == 1 {
                show_picture(&mut record);
            }
        } else if self.to != To::Lines {
            pictures = self.beside(&record)?;
        }
        match &mut self.shard {
            Some(Shard::Lines(shard)) => shard.line(record.to_string().as_bytes()),
            Some(Shard::Parquet(shard)) => shard.put(record, pictures),
            Some(Shard::Tar(tar, path)) => {
                webdataset::put_sample(tar, path, number, &record, &pictures)
            }
            None => Ok(()),
        }
    }

    /// Names of pictures that came inside, and files where they become files: what the record calls
    /// them, or a name by content.
    fn name_pictures(
        &self,
        record: &Value,
        pictures: &[Vec<u8>],
    ) -> Result<Vec<String>, CurateError> {
        let wanted = names_in(record);
        let by_content = wanted.len() != pictures.len();
        let mut names = Vec::new();
        for (i, picture) in pictures.iter().enumerate() {
            let wanted = wanted.get(i).filter(|name| !by_content && is_inside(name));
            let name = match wanted {
                None => picture_name(picture),
                Some(name) if self.to != To::Lines => (*name).to_owned(),
                // Another sample's picture may have this name.
                Some(name) => match self.save(name, picture)? {
                    true => (*name).to_owned(),
                    false => picture_name(picture),
                },
            };
            if self.to == To::Lines {
                self.save(&name, picture)?;
            }
            names.push(name);
        }
        Ok(names)
    }

    /// The pictures of a sample, from the folder of pictures; none unless all are there, and then
    /// `data check` says which one is missing.
    fn beside(&self, record: &Value) -> Result<Vec<Vec<u8>>, CurateError> {
        let Some(root) = &self.images else {
            return Ok(Vec::new());
        };
        let names = names_in(record);
        let paths: Vec<PathBuf> = names.iter().map(|name| root.join(name)).collect();
        let there = names.iter().all(|name| is_inside(name)) && paths.iter().all(|p| p.is_file());
        if !there {
            return Ok(Vec::new());
        }
        let read =
            |path: &PathBuf| std::fs::read(path).map_err(CurateError::io("read the picture", path));
        paths.iter().map(read).collect()
    }

    /// Writes a picture; `false` if there is another one of this name.
    fn save(&self, name: &str, picture: &[u8]) -> Result<bool, CurateError> {
        let path = self.folder.join("images").join(name);
        let io = || CurateError::io("write", &path);
        match path.metadata() {
            Ok(about) if about.is_file() => {
                let same = about.len() == picture.len() as u64
                    && std::fs::read(&path).map_err(io())? == picture;
                return Ok(same);
            }
            Ok(_) => return Ok(false),
            Err(_) => {}
        }
        if let Some(folder) = path.parent()
            && std::fs::create_dir_all(folder).is_err()
        {
            // A file has the name of the folder.
            return Ok(false);
        }
        std::fs::write(&path, picture).map_err(io())?;
        Ok(true)
    }

    fn open(&mut self) -> Result<(), CurateError> {
        let number = self.converted.shards.len();
        let ending = match self.to {
            To::Lines => "jsonl",
            To::Parquet => "parquet",
            To::WebDataset => "tar",
        };
        let name = format!("samples-{number:05}.{ending}");
        let path = self.folder.join(&name);
        let create = || File::create(&path).map_err(CurateError::io("write", &path));
        self.shard = Some(match self.to {
            To::Lines => Shard::Lines(ShardWriter::create(&path)?),
            To::Parquet => {
                let shard = parquet::Shard::create(create()?, path.clone())?;
                Shard::Parquet(Box::new(shard))
            }
            To::WebDataset => {
                Shard::Tar(tar::Builder::new(BufWriter::new(create()?)), path.clone())
            }
        });
        self.converted.shards.push(name);
        Ok(())
    }

    fn close(&mut self) -> Result<(), CurateError> {
        self.in_shard = 0;
        match self.shard.take() {
            None => Ok(()),
            Some(Shard::Lines(shard)) => shard.finish().map(|_| ()),
            Some(Shard::Parquet(shard)) => shard.finish(),
            Some(Shard::Tar(tar, path)) => {
                let io = || CurateError::io("write", &path);
                let mut file = tar.into_inner().map_err(io())?;
                file.flush().map_err(io())
            }
        }
    }

    pub fn finish(mut self) -> Result<Converted, CurateError> {
        self.close()?;
        Ok(self.converted)
    }
}

/// Names of pictures that a record has.
fn names_in(record: &Value) -> Vec<&str> {
    match record.get("image") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => {
            let texts: Option<Vec<&str>> = names.iter().map(Value::as_str).collect();
            texts.unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

/// Whether a name stays below the folder it starts from.
fn is_inside(name: &str) -> bool {
    // A name is written as it is found, so that it must be the only one of its file.
    let plain = !name.ends_with('/') && !name.starts_with("./") && name != ".";
    plain && stays_inside(name)
}

/// Names the pictures of a record, and keeps what they were called if that changes.
fn rename(record: &mut Value, names: Vec<String>) {
    let Value::Object(fields) = record else {
        return;
    };
    let new = match names.as_slice() {
        [one] if !matches!(fields.get("image"), Some(Value::Array(_))) => json!(one),
        // A sample has one picture; this one stays as it is for `data check` to say so.
        several => json!(several),
    };
    match fields.insert("image".to_owned(), new.clone()) {
        Some(old) if old != new && !old.is_null() && !fields.contains_key(ORIGINAL) => {
            fields.insert(ORIGINAL.to_owned(), old);
        }
        _ => {}
    }
}

/// Names pictures that are not unpacked: by what the record calls them, or by their place.
pub fn name_inside(record: &mut Value, pictures: usize, form: Form) {
    if names_in(record).len() != pictures {
        rename(
            record,
            (1..=pictures).map(|i| format!("inside/{i}")).collect(),
        );
    }
    if form == Form::Foreign && pictures == 1 {
        show_picture(record);
    }
}

/// A name by content: equal pictures are one file.
fn picture_name(picture: &[u8]) -> String {
    let hash = hex(&Sha256::digest(picture));
    format!("{}/{}.{}", &hash[..2], &hash[2..32], ending_of(picture))
}

/// The ending of a picture's name, by its first bytes.
pub(super) fn ending_of(picture: &[u8]) -> &'static str {
    match picture {
        [0x89, b'P', b'N', b'G', ..] => "png",
        [0xFF, 0xD8, ..] => "jpg",
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'E',
            b'B',
            b'P',
            ..,
        ] => "webp",
        [b'G', b'I', b'F', b'8', ..] => "gif",
        [b'B', b'M', ..] => "bmp",
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => "tif",
        _ => "bin",
    }
}
