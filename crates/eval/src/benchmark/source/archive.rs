//! Pictures that rows name instead of holding them: files in a folder, or members of a tar archive
//! (QBench). Members are read where they lie; nothing is unpacked.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use opabinia_data::stays_inside;

use crate::benchmark::error::BenchmarkError;
use crate::benchmark::picture::{PictureData, PicturePlace, read_part};
use crate::digest;

/// The pictures of a source.
pub(in crate::benchmark) enum Pictures {
    /// Files below a folder.
    Folder(PathBuf),
    /// Members of an archive.
    Archive {
        /// The archive.
        path: PathBuf,
        /// Where each member lies, by its name and by the last part of its name.
        members: HashMap<String, Span>,
    },
}

/// A part of a file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::benchmark) struct Span {
    offset: u64,
    length: u64,
}

impl Pictures {
    /// Opens the folder or archive `place` below `root`; `root` itself if there is none.
    pub(super) fn open(root: &Path, place: Option<&str>) -> Result<Self, BenchmarkError> {
        let Some(place) = place else {
            return Ok(Self::Folder(root.to_owned()));
        };
        let path = root.join(place);
        if !place.ends_with(".tar") {
            return Ok(Self::Folder(path));
        }
        let members = members(&path).map_err(BenchmarkError::read("archive of pictures", &path))?;
        Ok(Self::Archive { path, members })
    }

    /// The archive, if it is one.
    pub(super) fn archive(&self) -> Option<&Path> {
        match self {
            Self::Folder(_) => None,
            Self::Archive { path, .. } => Some(path),
        }
    }

    /// The picture of a name and its bytes; `None` if there is none, or if the name leads out of the
    /// folder.
    pub(in crate::benchmark) fn find(
        &self,
        name: &str,
    ) -> Result<Option<(PictureData, Vec<u8>)>, BenchmarkError> {
        if !stays_inside(name) {
            return Ok(None);
        }
        let (bytes, place) = match self {
            Self::Folder(folder) => {
                let path = folder.join(name);
                if !path.is_file() {
                    return Ok(None);
                }
                let bytes = fs::read(&path).map_err(BenchmarkError::read("picture", &path))?;
                (bytes, PicturePlace::File(path))
            }
            Self::Archive { path, members } => {
                let Some(&Span { offset, length }) = members.get(name) else {
                    return Ok(None);
                };
                let bytes = read_part(path, offset, length);
                let file = path.clone();
                (
                    bytes.map_err(BenchmarkError::read("archive of pictures", path))?,
                    PicturePlace::Part {
                        file,
                        offset,
                        length,
                    },
                )
            }
        };
        let sha256 = digest::of(&bytes);
        Ok(Some((PictureData { sha256, place }, bytes)))
    }
}

/// Where the files of a tar archive lie. A name without folders is found too, if one file has it.
fn members(path: &Path) -> std::io::Result<HashMap<String, Span>> {
    let mut archive = tar::Archive::new(BufReader::new(File::open(path)?));
    let mut members = HashMap::new();
    let mut short: HashMap<String, Option<Span>> = HashMap::new();
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let span = Span {
            offset: entry.raw_file_position(),
            length: entry.size(),
        };
        let name = entry.path()?.to_string_lossy().into_owned();
        if let Some((_, last)) = name.rsplit_once('/') {
            let known = short.entry(last.to_owned());
            known.and_modify(|span| *span = None).or_insert(Some(span));
        }
        members.insert(name, span);
    }
    for (name, span) in short {
        if let Some(span) = span {
            members.entry(name).or_insert(span);
        }
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, name, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn members_are_found_by_name_and_by_last_name() {
        let folder = tempfile::tempdir().unwrap();
        let long = format!("images/{}.jpg", "x".repeat(120));
        let files: [(&str, &[u8]); 4] = [
            ("images/1.jpg", b"one"),
            ("images/2.jpg", b"two"),
            ("more/2.jpg", b"other"),
            (&long, b"long"),
        ];
        fs::write(folder.path().join("p.tar"), archive(&files)).unwrap();
        let pictures = Pictures::open(folder.path(), Some("p.tar")).unwrap();
        let read = |name: &str| pictures.find(name).unwrap().map(|(_, bytes)| bytes);
        assert_eq!(read("images/1.jpg").unwrap(), b"one");
        assert_eq!(read("1.jpg").unwrap(), b"one");
        assert_eq!(read("2.jpg"), None, "there are two");
        assert_eq!(read("more/2.jpg").unwrap(), b"other");
        assert_eq!(read(&long).unwrap(), b"long");
        let (picture, _) = pictures.find("1.jpg").unwrap().unwrap();
        assert_eq!(&*picture.read().unwrap(), b"one");
    }

    #[test]
    fn names_do_not_lead_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("secret"), "x").unwrap();
        fs::create_dir(folder.path().join("set")).unwrap();
        fs::write(folder.path().join("set/a.png"), "a").unwrap();
        let pictures = Pictures::open(&folder.path().join("set"), None).unwrap();
        assert!(pictures.find("a.png").unwrap().is_some());
        assert!(pictures.find("../secret").unwrap().is_none());
        assert!(pictures.find("b.png").unwrap().is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn damaged_archives_never_panic(at in 0usize..2048, byte: u8, cut in 0usize..2048) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("p.tar");
            let mut bytes = archive(&[("images/1.jpg", b"one"), ("2.jpg", b"two")]);
            let length = bytes.len();
            bytes[at % length] = byte;
            bytes.truncate(length - cut % length);
            fs::write(&path, bytes).unwrap();
            if let Ok(members) = members(&path) {
                for span in members.values() {
                    let _ = read_part(&path, span.offset, span.length);
                }
            }
        }
    }
}
