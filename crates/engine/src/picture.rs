//! Pictures: fetched through limits, decoded through the one door, judged, and known by two hashes.

use opabinia_image::{ImageLimits, ImageSource, PictureFormat, dhash, load_with_info};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::error::{Failure, Fault};
use crate::outside::{Asker, Outside};
use crate::plan::{PicturesTable, Plan, Svg, hex};
use crate::web::{Purpose, Request};

/// Limits of the door for this plan.
pub(crate) fn limits(table: &PicturesTable) -> ImageLimits {
    ImageLimits {
        max_pixels: table.max_pixels,
        max_bytes: table.max_bytes,
        ..ImageLimits::default()
    }
}

/// Decides before anything is fetched; gives the address to fetch.
pub(crate) fn choose(table: &PicturesTable, figure: &Value) -> Result<String, String> {
    let info = &figure["info"];
    let own = figure["url"].as_str().unwrap_or_default();
    let licence = info["licence"].as_str();
    match licence {
        None if table.need_licence => return Err("its licence is not known".to_owned()),
        Some(name) if !table.licences.is_empty() => {
            let name = name.to_lowercase();
            if !table
                .licences
                .iter()
                .any(|taken| name.starts_with(&taken.to_lowercase()))
            {
                return Err(format!("its licence, {name}, is not taken"));
            }
        }
        _ => {}
    }
    let url = info["url"].as_str().unwrap_or(own);
    let mime = info["mime"].as_str().unwrap_or_default();
    let path = url
        .split(['?', '#'])
        .next()
        .unwrap_or_default()
        .to_lowercase();
    let drawn = info["drawn"].as_str().filter(|drawn| !drawn.is_empty());
    let is_svg = mime.contains("svg") || path.ends_with(".svg");
    if let (Some(width), Some(height)) = (info["width"].as_u64(), info["height"].as_u64()) {
        match is_svg {
            // Its size is nominal: it is drawn in another one, which is judged when it is there.
            true => aspect(table, width, height)?,
            false => shape(table, width, height)?,
        }
    }
    if is_svg {
        return match (table.svg, drawn) {
            (Svg::Rendered, Some(drawn)) => Ok(drawn.to_owned()),
            (Svg::Rendered, None) => Err("it is SVG, and its host does not draw it".to_owned()),
            (Svg::Refused, _) => Err("it is SVG, which `pictures.svg` refuses".to_owned()),
        };
    }
    if !mime.is_empty() && !mime.starts_with("image/") && drawn.is_none() {
        return Err(format!("it is `{mime}`, not a picture"));
    }
    let large = info["width"]
        .as_u64()
        .is_some_and(|width| width > u64::from(table.max_width));
    let foreign =
        !mime.is_empty() && !["image/png", "image/jpeg", "image/webp", "image/gif"].contains(&mime);
    Ok(drawn.filter(|_| large || foreign).unwrap_or(url).to_owned())
}

fn shape(table: &PicturesTable, width: u64, height: u64) -> Result<(), String> {
    if width.min(height) < u64::from(table.min_side) {
        return Err(format!("{width} × {height} pixels are too small"));
    }
    aspect(table, width, height)
}

fn aspect(table: &PicturesTable, width: u64, height: u64) -> Result<(), String> {
    let (short, long) = (width.min(height), width.max(height));
    if long as f64 > table.max_aspect * short as f64 {
        return Err(format!(
            "{width} × {height} pixels are too long for their width"
        ));
    }
    Ok(())
}

/// Fetches and judges: `{sha256, pixels, dhash, width, height, ending}`.
pub(crate) fn fetch(
    plan: &Plan,
    url: &str,
    outside: &Outside<'_>,
    asker: Asker<'_>,
) -> Result<Value, Fault> {
    let answer = outside.fetch(&Request::get(Purpose::Picture, url), asker)?;
    let sha256 = hex(&Sha256::digest(&answer.body));
    let source = ImageSource::Bytes {
        bytes: answer.body,
        name: url.to_owned(),
    };
    let refuse = |why: String| Failure::lasting("picture", why);
    let (picture, info) = load_with_info(&source, &limits(&plan.pictures))
        .map_err(|error| refuse(error.to_string()))?;
    let (width, height) = picture.size();
    shape(&plan.pictures, width.into(), height.into())
        .map_err(|why| refuse(format!("`{url}`: {why}")))?;
    // Other formats are written as PNG, so that every reader sees the same first frame.
    let ending = match info.format {
        PictureFormat::Png => "png",
        PictureFormat::Jpeg => "jpg",
        PictureFormat::WebP => "webp",
        _ => "",
    };
    Ok(json!({
        "sha256": sha256, "pixels": picture.content_hash(), "dhash": format!("{:016x}", dhash(&picture)),
        "width": width, "height": height, "ending": ending,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_need_not_be_fetched_is_refused_before() {
        let table = PicturesTable::default();
        let with = |info: Value| choose(&table, &json!({"url": "http://h/a.png", "info": info}));
        assert!(with(json!({})).unwrap_err().contains("licence"));
        let small = json!({"licence": "CC0", "width": 10, "height": 900, "url": "http://h/a.png"});
        assert!(with(small).unwrap_err().contains("too small"));
        let svg = json!({"licence": "CC0", "mime": "image/svg+xml", "url": "http://h/a.svg", "drawn": "http://h/a.svg.png"});
        assert_eq!(with(svg.clone()).unwrap(), "http://h/a.svg.png");
        // 20 pixels are what its file says, and nothing that is drawn has to keep to it.
        let sized = |width: u64, height: u64| {
            let mut svg = svg.clone();
            (svg["width"], svg["height"]) = (json!(width), json!(height));
            with(svg)
        };
        assert_eq!(sized(20, 20).unwrap(), "http://h/a.svg.png");
        assert!(sized(20, 200).unwrap_err().contains("too long"));
        let refusing = PicturesTable {
            svg: Svg::Refused,
            ..PicturesTable::default()
        };
        assert!(
            choose(&refusing, &json!({"info": svg}))
                .unwrap_err()
                .contains("SVG")
        );
        let strict = PicturesTable {
            licences: vec!["cc by".to_owned()],
            ..PicturesTable::default()
        };
        assert!(choose(&strict, &json!({"info": {"licence": "Fair use"}})).is_err());
        assert!(choose(&strict, &json!({"info": {"licence": "CC BY-SA 4.0"}})).is_ok());
    }
}
