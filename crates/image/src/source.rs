//! Where a picture comes from, and how its bytes are read without reading too many.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::str::FromStr;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::error::ImageError;
use crate::limits::ImageLimits;

/// Where a picture comes from.
///
/// Parsed from text, `-` is standard input, `data:…` is a data URL, and anything else is a path.
/// Web addresses are refused: fetching is not this crate's work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// A file.
    File(PathBuf),
    /// Standard input, read to its end.
    Stdin,
    /// A URL that carries the picture itself, `data:image/png;base64,…`.
    DataUrl(String),
    /// Bytes that are already here, such as an upload.
    Bytes {
        /// The encoded picture.
        bytes: Vec<u8>,
        /// What to call it in messages.
        name: String,
    },
}

impl FromStr for ImageSource {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        if text.is_empty() {
            return Err(ImageError::EmptyName);
        }
        if text == "-" {
            return Ok(Self::Stdin);
        }
        if has_scheme(text, "data:") {
            return Ok(Self::DataUrl(text.to_owned()));
        }
        if has_scheme(text, "http://") || has_scheme(text, "https://") {
            return Err(ImageError::RemoteUrl {
                url: text.to_owned(),
            });
        }
        Ok(Self::File(PathBuf::from(text)))
    }
}

impl ImageSource {
    /// What to call the picture in a message.
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => format!("`{}`", path.display()),
            Self::Stdin => "standard input".to_owned(),
            Self::DataUrl(_) => "the data URL".to_owned(),
            Self::Bytes { name, .. } => format!("`{name}`"),
        }
    }

    /// Reads the encoded picture, at most `limits.max_bytes` of it.
    ///
    /// # Errors
    /// Whatever keeps the bytes from being read, [`ImageError::Empty`] if there are none and
    /// [`ImageError::TooManyBytes`] if there are too many.
    pub(crate) fn read(&self, limits: &ImageLimits) -> Result<Vec<u8>, ImageError> {
        let bytes = match self {
            Self::File(path) => read_limited(self.open(path)?, &self.name(), limits)?,
            Self::Stdin => read_limited(std::io::stdin().lock(), &self.name(), limits)?,
            Self::DataUrl(url) => decode_data_url(url, limits)?,
            Self::Bytes { bytes, .. } => read_limited(bytes.as_slice(), &self.name(), limits)?,
        };
        if bytes.is_empty() {
            return Err(ImageError::Empty { name: self.name() });
        }
        Ok(bytes)
    }

    fn open(&self, path: &PathBuf) -> Result<File, ImageError> {
        if path.is_dir() {
            return Err(ImageError::IsDirectory { name: self.name() });
        }
        File::open(path).map_err(|source| ImageError::Read {
            name: self.name(),
            source,
        })
    }
}

/// Whether `text` begins with a URL scheme, in capitals or not.
fn has_scheme(text: &str, scheme: &str) -> bool {
    text.get(..scheme.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
}

/// Reads to the end, or to one byte past the limit, which is an error.
fn read_limited(
    reader: impl Read,
    name: &str,
    limits: &ImageLimits,
) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    reader
        .take(limits.max_bytes.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|source| ImageError::Read {
            name: name.to_owned(),
            source,
        })?;
    if bytes.len() as u64 > limits.max_bytes {
        return Err(ImageError::TooManyBytes {
            name: name.to_owned(),
            limit: limits.max_bytes,
        });
    }
    Ok(bytes)
}

/// Base64 as browsers and people write it: with or without the final `=`.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The bytes in `data:[<type>];base64,<data>` (RFC 2397).
///
/// The media type is not believed; the bytes decide. White space inside the data is skipped,
/// since long lines get folded on their way.
fn decode_data_url(url: &str, limits: &ImageLimits) -> Result<Vec<u8>, ImageError> {
    let malformed = |problem: String| ImageError::MalformedDataUrl {
        start: url.chars().take(32).collect(),
        problem,
    };
    let (header, data) = url
        .split_once(',')
        .ok_or_else(|| malformed("there is no comma".to_owned()))?;
    let is_base64 = header
        .rsplit_once(';')
        .is_some_and(|(_, last)| last.trim().eq_ignore_ascii_case("base64"));
    if !is_base64 {
        return Err(malformed("it is not base64".to_owned()));
    }
    let data: Vec<u8> = data
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    if data.len() as u64 / 4 * 3 > limits.max_bytes {
        let name = "the data URL".to_owned();
        return Err(ImageError::TooManyBytes {
            name,
            limit: limits.max_bytes,
        });
    }
    BASE64
        .decode(data)
        .map_err(|error| malformed(format!("bad base64: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn data_url(url: &str) -> Result<Vec<u8>, ImageError> {
        ImageSource::DataUrl(url.to_owned()).read(&ImageLimits::default())
    }

    fn at_most(max_bytes: u64) -> ImageLimits {
        ImageLimits {
            max_bytes,
            ..ImageLimits::default()
        }
    }

    #[test]
    fn text_names_a_source() {
        assert_eq!("-".parse::<ImageSource>().unwrap(), ImageSource::Stdin);
        assert_eq!(
            "DATA:,x".parse::<ImageSource>().unwrap(),
            ImageSource::DataUrl("DATA:,x".to_owned())
        );
        assert_eq!(
            "a b/ç.png".parse::<ImageSource>().unwrap(),
            ImageSource::File(PathBuf::from("a b/ç.png"))
        );
        assert!(matches!(
            "".parse::<ImageSource>(),
            Err(ImageError::EmptyName)
        ));
        let error = "HTTPS://example.org/a.png"
            .parse::<ImageSource>()
            .unwrap_err();
        assert!(
            error.to_string().contains("download the file first"),
            "{error}"
        );
    }

    #[test]
    fn a_data_url_gives_its_bytes() {
        assert_eq!(data_url("data:image/png;base64,QUJD").unwrap(), b"ABC");
        assert_eq!(data_url("data:;base64,QUJ\n D").unwrap(), b"ABC");
        // Without padding, and with it.
        assert_eq!(
            data_url("data:image/png;charset=x;base64,QUI").unwrap(),
            b"AB"
        );
        assert_eq!(data_url("data:image/png;Base64,QUI=").unwrap(), b"AB");
    }

    #[test]
    fn a_malformed_data_url_is_explained() {
        let message = |url| data_url(url).unwrap_err().to_string();
        assert!(message("data:image/png").contains("no comma"));
        assert!(message("data:image/png,abc").contains("not base64"));
        assert!(message("data:image/png;base64,Q?==").contains("bad base64"));
        assert!(matches!(
            data_url("data:;base64,"),
            Err(ImageError::Empty { .. })
        ));
    }

    #[test]
    fn no_more_than_the_limit_is_read() {
        let name = "upload";
        assert_eq!(
            read_limited(&[1_u8, 2][..], name, &at_most(2)).unwrap(),
            [1, 2]
        );
        let error = read_limited(std::io::repeat(0), name, &at_most(2)).unwrap_err();
        assert!(matches!(error, ImageError::TooManyBytes { limit: 2, .. }));
        assert!(error.to_string().contains("--max-image-bytes"));
        let url = ImageSource::DataUrl("data:;base64,QUJDREVG".to_owned());
        assert!(matches!(
            url.read(&at_most(5)),
            Err(ImageError::TooManyBytes { .. })
        ));
    }

    #[test]
    fn a_folder_and_a_missing_file_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let limits = ImageLimits::default();
        let source = ImageSource::File(folder.path().to_owned());
        assert!(matches!(
            source.read(&limits),
            Err(ImageError::IsDirectory { .. })
        ));
        let source = ImageSource::File(folder.path().join("none.png"));
        assert!(matches!(source.read(&limits), Err(ImageError::Read { .. })));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_data_url_decoder_panic(text in ".{0,60}") {
            let _ = data_url(&text);
            let _ = data_url(&format!("data:image/png;base64,{text}"));
            let _ = text.parse::<ImageSource>();
        }
    }
}
