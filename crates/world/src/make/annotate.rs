//! The annotation files of a split: COCO and Omni3D in one file each, ADE20K beside one another.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use super::create_folder;
use super::page::{Page, shard_folder};
use crate::error::WorldError;
use crate::export::{ade20k, coco, omni3d};

/// What the files that hold many pictures say about one.
pub(super) struct Record {
    coco: Option<coco::Record>,
    omni3d: Option<omni3d::Record>,
}

impl Record {
    /// Describes a picture, and writes the files that are its own. `root` is the split's folder.
    pub fn of(root: &Path, index: usize, page: &Page) -> Result<Self, WorldError> {
        // Annotation files count from 1.
        let number = index as u64 + 1;
        ade20k::write_picture(&ade20k_folder(root, index), &page.file, &page.picture)?;
        Ok(Self {
            coco: coco::Record::of(number, &page.file, &page.picture),
            omni3d: omni3d::Record::of(number, &page.file, &page.picture),
        })
    }
}

/// The files that hold many pictures, while they are written.
pub(super) struct Annotations {
    coco: coco::Writer<BufWriter<File>>,
    omni3d: omni3d::Writer<BufWriter<File>>,
}

impl Annotations {
    /// Begins the files of a split with so many pictures.
    pub fn create(root: &Path, split: &str, pictures: usize) -> Result<Self, WorldError> {
        for index in (0..pictures).step_by(super::page::SHARD) {
            create_folder(&ade20k_folder(root, index))?;
        }
        let folder = root.join("annotations");
        create_folder(&folder.join("ade20k"))?;
        ade20k::write_classes(&folder.join("ade20k"))?;
        Ok(Self {
            coco: coco::Writer::new(create(folder.join("coco.json"))?)?,
            omni3d: omni3d::Writer::new(create(folder.join("omni3d.json"))?, split)?,
        })
    }

    /// Writes the next picture; the order is that of the pictures.
    pub fn push(&mut self, record: Record) -> Result<(), WorldError> {
        if let Some(record) = record.coco {
            self.coco.add(record)?;
        }
        if let Some(record) = record.omni3d {
            self.omni3d.add(record)?;
        }
        Ok(())
    }

    /// Ends the files.
    pub fn finish(self) -> Result<(), WorldError> {
        self.coco.finish()?;
        self.omni3d.finish()?;
        Ok(())
    }
}

fn ade20k_folder(root: &Path, index: usize) -> PathBuf {
    root.join("annotations/ade20k").join(shard_folder(index))
}

fn create(path: PathBuf) -> Result<BufWriter<File>, WorldError> {
    let file = File::create(&path).map_err(|source| WorldError::Write { path, source })?;
    Ok(BufWriter::new(file))
}
