//! Writing: lines with an offset index, Parquet, or WebDataset shards.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, StringBuilder};
use arrow_array::{ArrayRef, RecordBatch, StructArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::read::with_picture;
use super::{Conversion, Converted, Incoming};
use crate::copy::ShardWriter;
use crate::error::CurateError;
use crate::part::hex;

/// A file that says whose folder this is while it is not whole.
pub(super) const MARK: &str = ".conversion";

/// Rows of a Parquet file that are written at once.
const ROWS: usize = 256;

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
    Parquet(Box<ParquetShard>),
    Tar(tar::Builder<BufWriter<File>>, PathBuf),
}

impl Writer {
    pub fn create(folder: &Path, conversion: &Conversion) -> Result<Self, CurateError> {
        std::fs::create_dir_all(folder).map_err(CurateError::io("make the folder", folder))?;
        let mark = folder.join(MARK);
        std::fs::write(&mark, "").map_err(CurateError::io("write", &mark))?;
        Ok(Self {
            folder: folder.to_owned(),
            images: conversion.images.clone(),
            to: conversion.to,
            shard_samples: conversion.shard_samples.max(1),
            shard: None,
            in_shard: 0,
            converted: Converted::default(),
        })
    }

    pub fn put(&mut self, incoming: Incoming) -> Result<(), CurateError> {
        if self.in_shard == self.shard_samples {
            self.close()?;
        }
        if self.shard.is_none() {
            self.open()?;
        }
        let number = self.converted.samples;
        self.converted.samples += 1;
        self.in_shard += 1;
        let (record, pictures) = match incoming {
            Incoming::Record { record, pictures } => (record, pictures),
            Incoming::Line(line) => {
                self.converted.lines += 1;
                return match &mut self.shard {
                    Some(Shard::Lines(shard)) => shard.line(&line),
                    // Other formats have no place for what is no JSON but a text.
                    _ => self.put_record(
                        number,
                        Value::String(String::from_utf8_lossy(&line).into_owned()),
                        Vec::new(),
                    ),
                };
            }
        };
        self.put_record(number, record, pictures)
    }

    fn put_record(
        &mut self,
        number: u64,
        mut record: Value,
        pictures: Vec<Vec<u8>>,
    ) -> Result<(), CurateError> {
        self.converted.pictures += pictures.len() as u64;
        let kept_inside = self.to != To::Lines;
        let mut names = Vec::new();
        for picture in &pictures {
            let name = picture_name(picture);
            if !kept_inside {
                self.save(&name, picture)?;
            }
            names.push(name);
        }
        match names.as_slice() {
            [] => {}
            [one] => with_picture(&mut record, one),
            // A sample has one picture; this one stays as it is for `data check` to say so.
            several => {
                if let Value::Object(fields) = &mut record {
                    let list = several.iter().cloned().map(Value::String).collect();
                    fields.insert("image".to_owned(), Value::Array(list));
                }
            }
        }
        let inside = match (pictures.into_iter().next(), kept_inside) {
            (Some(picture), true) => Some(picture),
            (None, true) => self.beside(&record)?,
            (_, false) => None,
        };
        match &mut self.shard {
            Some(Shard::Lines(shard)) => shard.line(record.to_string().as_bytes()),
            Some(Shard::Parquet(shard)) => shard.put(record, inside),
            Some(Shard::Tar(tar, path)) => put_members(tar, path, number, &record, inside),
            None => Ok(()),
        }
    }

    /// The picture of a sample, from the folder of pictures.
    fn beside(&self, record: &Value) -> Result<Option<Vec<u8>>, CurateError> {
        let image = record.get("image").and_then(Value::as_str);
        let (Some(root), Some(image)) = (&self.images, image) else {
            return Ok(None);
        };
        let inside = |part| matches!(part, std::path::Component::Normal(_));
        let path = root.join(image);
        if !Path::new(image).components().all(inside) || !path.is_file() {
            // `data check` says that it is missing.
            return Ok(None);
        }
        std::fs::read(&path)
            .map(Some)
            .map_err(CurateError::io("read the picture", &path))
    }

    fn save(&self, name: &str, picture: &[u8]) -> Result<(), CurateError> {
        let path = self.folder.join("images").join(name);
        if path.exists() {
            return Ok(());
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(CurateError::io("make the folder", folder))?;
        }
        std::fs::write(&path, picture).map_err(CurateError::io("write", &path))
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
            To::Parquet => Shard::Parquet(Box::new(ParquetShard::create(create()?, path.clone())?)),
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

/// A name by content: equal pictures are one file.
fn picture_name(picture: &[u8]) -> String {
    let hash = hex(&Sha256::digest(picture));
    let ending = match picture {
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
    };
    format!("{}/{}.{ending}", &hash[..2], &hash[2..32])
}

fn put_members(
    tar: &mut tar::Builder<BufWriter<File>>,
    path: &Path,
    number: u64,
    record: &Value,
    picture: Option<Vec<u8>>,
) -> Result<(), CurateError> {
    let ending = picture.as_deref().map(|picture| {
        let name = picture_name(picture);
        name.rsplit('.').next().unwrap_or("bin").to_owned()
    });
    let json = record.to_string().into_bytes();
    let members = [
        ("json".to_owned(), Some(json)),
        (ending.unwrap_or_default(), picture),
    ];
    for (ending, bytes) in members {
        let Some(bytes) = bytes else { continue };
        // Nothing of when and by whom: same inputs, same bytes.
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        tar.append_data(
            &mut header,
            format!("{number:09}.{ending}"),
            bytes.as_slice(),
        )
        .map_err(CurateError::io("write", path))?;
    }
    Ok(())
}

/// Columns: what samples have, the picture as Hugging Face data sets have it, and all other keys as JSON.
struct ParquetShard {
    writer: ArrowWriter<File>,
    path: PathBuf,
    texts: [StringBuilder; 5],
    bytes: BinaryBuilder,
    paths: StringBuilder,
    rows: usize,
}

fn picture_fields() -> arrow_schema::Fields {
    vec![
        Field::new("bytes", DataType::Binary, true),
        Field::new("path", DataType::Utf8, true),
    ]
    .into()
}

fn schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    Arc::new(Schema::new(vec![
        text("id"),
        text("source"),
        text("category"),
        text("conversations"),
        text("extra"),
        Field::new("image", DataType::Struct(picture_fields()), true),
    ]))
}

impl ParquetShard {
    fn create(file: File, path: PathBuf) -> Result<Self, CurateError> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .build();
        let writer = ArrowWriter::try_new(file, schema(), Some(properties));
        Ok(Self {
            writer: writer.map_err(CurateError::parquet("write", &path))?,
            path,
            texts: Default::default(),
            bytes: BinaryBuilder::new(),
            paths: StringBuilder::new(),
            rows: 0,
        })
    }

    fn put(&mut self, record: Value, picture: Option<Vec<u8>>) -> Result<(), CurateError> {
        let mut fields = match record {
            Value::Object(fields) => fields,
            other => Map::from_iter([("line".to_owned(), other)]),
        };
        let mut take = |key: &str| match fields.shift_remove(key) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text),
            Some(other) => Some(other.to_string()),
        };
        let own = ["id", "source", "category", "conversations"].map(&mut take);
        let path = take("image");
        let extra = (!fields.is_empty()).then(|| Value::Object(fields).to_string());
        for (column, text) in self.texts.iter_mut().zip(own.into_iter().chain([extra])) {
            column.append_option(text);
        }
        self.bytes.append_option(picture);
        self.paths.append_option(path);
        self.rows += 1;
        match self.rows == ROWS {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), CurateError> {
        let mut columns: Vec<ArrayRef> = Vec::new();
        for text in &mut self.texts {
            columns.push(Arc::new(text.finish()));
        }
        let format = |problem: String| CurateError::Format {
            path: self.path.clone(),
            problem,
        };
        let inner: Vec<ArrayRef> =
            vec![Arc::new(self.bytes.finish()), Arc::new(self.paths.finish())];
        let pictures = StructArray::try_new(picture_fields(), inner, None);
        columns.push(Arc::new(
            pictures.map_err(|error| format(error.to_string()))?,
        ));
        let batch = RecordBatch::try_new(schema(), columns).map_err(|e| format(e.to_string()))?;
        self.rows = 0;
        self.writer
            .write(&batch)
            .map_err(CurateError::parquet("write", &self.path))
    }

    fn finish(mut self) -> Result<(), CurateError> {
        self.flush()?;
        self.writer
            .close()
            .map(|_| ())
            .map_err(CurateError::parquet("write", &self.path))
    }
}
