//! Images of requests: from files to what stands for them in a prompt.
//!
//! The files are strangers'. They are opened here and not in the daemon, by decoders in Rust, and only once their size is known
//! and within bounds. In a text an image is the character that Unicode has for that, its number, and the character again, from
//! before the chat template to the tokens.

use super::prepare::{refused, text};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hearth_abi::host::{Model, Projector};
use hearth_abi::raw::Token;
use hearth_abi::{ImagePiece, Pixels};
use hearth_engine::Span;
use hearth_protocol::{ErrorKind, IMAGE_PLACE, Image, Message, RpcError};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader, Limits, Rgb, RgbImage};
use sha2::{Digest, Sha256};
use std::io::Cursor;
use std::path::PathBuf;
use std::sync::Arc;

/// Most images of one request.
const MOST_IMAGES: usize = 32;
/// Of one image.
const MOST_PIXELS: u64 = 1 << 26;
/// To a side.
const LONGEST_SIDE: u32 = 1 << 15;
/// That a decoder may take.
const DECODER_BYTES: u64 = 256 << 20;
/// Around an image's number.
const OBJECT: char = '\u{fffc}';

/// What a model sees with.
pub(super) enum Sight {
    /// It was not made to see.
    None,
    /// It was, but not by what there is.
    Broken(String),
    /// The projector, and the file that it is from.
    Of(Arc<Projector>, PathBuf),
}

/// The images of one request.
#[derive(Default)]
pub(super) struct Pictures {
    pictures: Vec<Picture>,
}

/// All of one image.
struct Picture {
    /// At least one.
    tokens: Vec<Token>,
    spans: Vec<Span>,
}

impl Sight {
    /// Takes the images out of messages, and leaves in their texts what stands for them.
    pub(super) fn take(&self, messages: &mut [Message]) -> Result<Pictures, RpcError> {
        let mut pictures = Pictures::default();
        for message in messages {
            let images: Vec<Image> = message.images.iter_mut().map(std::mem::take).collect();
            self.place(&images, &mut message.content, &mut pictures)?;
        }
        Ok(pictures)
    }

    /// Puts images into a text.
    pub(super) fn place(
        &self,
        images: &[Image],
        text: &mut String,
        pictures: &mut Pictures,
    ) -> Result<(), RpcError> {
        let mut before = String::new();
        for image in images {
            let number = pictures.pictures.len();
            if number == MOST_IMAGES {
                let message =
                    format!("a request may have {MOST_IMAGES} images, and this one has more");
                return Err(RpcError::new(ErrorKind::TooLarge, message)
                    .with_hint("leave out those of earlier messages"));
            }
            pictures.pictures.push(self.picture(image)?);
            let mark = format!("{OBJECT}{number}{OBJECT}");
            match text.find(IMAGE_PLACE) {
                Some(at) => text.replace_range(at..at + IMAGE_PLACE.len(), &mark),
                None => before.push_str(&mark),
            }
        }
        text.insert_str(0, &before);
        Ok(())
    }

    fn picture(&self, image: &Image) -> Result<Picture, RpcError> {
        let missing = |hint: String| {
            let message = "this model is missing data required for image input";
            RpcError::new(ErrorKind::Unsupported, message).with_hint(hint)
        };
        let (projector, path) = match self {
            Self::Of(projector, path) => (projector, path),
            Self::None => {
                return Err(missing("ask a model that has `vision` in `ctl show MODEL`".into()));
            }
            Self::Broken(why) => {
                return Err(missing(format!("its projector cannot be used: {why}")));
            }
        };
        let file = BASE64_STANDARD.decode(&image.0).map_err(|_| {
            RpcError::new(ErrorKind::InvalidParams, "an image is not in base64")
                .with_hint("send the bytes of its file, in base64 and nothing else")
        })?;
        let rgb = decode(&file)?;
        let pixels = Pixels::new(rgb.as_raw(), rgb.width(), rgb.height());
        let pixels = pixels.ok_or_else(|| unreadable("it has no pixels"))?;
        let image = Arc::new(projector.image(pixels).map_err(refused)?);
        let hash = Sha256::new_with_prefix(path.as_os_str().as_encoded_bytes()).chain_update([0]);
        let hash = hash.chain_update(&file).finalize().into();
        let mut picture = Picture { tokens: Vec::new(), spans: Vec::new() };
        for (index, piece) in image.pieces().iter().enumerate() {
            if let ImagePiece::Tokens(tokens) = piece {
                picture.tokens.extend(tokens);
            } else if let Some(span) = Span::new(&image, index, &hash) {
                picture.tokens.extend(span.tokens());
                picture.spans.push(span);
            }
        }
        if picture.tokens.is_empty() {
            return Err(unreadable("the projector makes nothing of it"));
        }
        Ok(picture)
    }
}

impl Pictures {
    /// For the engine.
    pub(super) fn spans(&self) -> Vec<Span> {
        self.pictures.iter().flat_map(|picture| &picture.spans).cloned().collect()
    }

    /// A text with images in it.
    pub(super) fn tokenize(
        &self,
        model: &Model,
        text: &str,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<Token>, RpcError> {
        let (mut tokens, mut rest, mut add_special) = (Vec::new(), text, add_special);
        while let Some((before, picture, behind)) = self.first(rest) {
            tokens.extend(model.tokenize(before, add_special, parse_special).map_err(refused)?);
            tokens.extend(&picture.tokens);
            (rest, add_special) = (behind, false);
        }
        tokens.extend(model.tokenize(rest, add_special, parse_special).map_err(refused)?);
        Ok(tokens)
    }

    /// The opposite, with [`IMAGE_PLACE`] for each image.
    pub(super) fn detokenize(&self, model: &Model, tokens: &[Token]) -> Result<String, RpcError> {
        let (mut bytes, mut start, mut at) = (Vec::new(), 0, 0);
        while at < tokens.len() {
            let stands_there = |picture: &&Picture| tokens[at..].starts_with(&picture.tokens);
            let Some(picture) = self.pictures.iter().find(stands_there) else {
                at += 1;
                continue;
            };
            bytes.extend(model.detokenize(&tokens[start..at], true).map_err(refused)?);
            bytes.extend(IMAGE_PLACE.bytes());
            at += picture.tokens.len();
            start = at;
        }
        bytes.extend(model.detokenize(&tokens[start..], true).map_err(refused)?);
        Ok(text(bytes))
    }

    /// The first image in a text, and what stands around it.
    fn first<'a>(&self, text: &'a str) -> Option<(&'a str, &Picture, &'a str)> {
        if self.pictures.is_empty() {
            return None;
        }
        text.match_indices(OBJECT).find_map(|(at, object)| {
            let (number, behind) = text[at + object.len()..].split_once(OBJECT)?;
            let picture = self.pictures.get(number.parse::<usize>().ok()?)?;
            Some((&text[..at], picture, behind))
        })
    }
}

fn unreadable(why: &str) -> RpcError {
    RpcError::new(ErrorKind::InvalidParams, format!("an image cannot be read: {why}"))
        .with_hint("send it as PNG, JPEG, WebP or GIF")
}

/// The pixels as a person sees them: turned as the camera says, and on white where one looks through.
fn decode(file: &[u8]) -> Result<RgbImage, RpcError> {
    let broken = |error: image::ImageError| unreadable(&error.to_string());
    let reader = ImageReader::new(Cursor::new(file)).with_guessed_format();
    let mut reader = reader.map_err(|error| unreadable(&error.to_string()))?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(LONGEST_SIDE);
    limits.max_image_height = Some(LONGEST_SIDE);
    limits.max_alloc = Some(DECODER_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MOST_PIXELS {
        let message =
            format!("an image has {width} times {height} pixels, and may have {MOST_PIXELS}");
        return Err(RpcError::new(ErrorKind::TooLarge, message).with_hint("scale it down"));
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(broken)?;
    image.apply_orientation(orientation);
    Ok(if image.color().has_alpha() { on_white(&image) } else { image.into_rgb8() })
}

fn on_white(image: &DynamicImage) -> RgbImage {
    let image = image.to_rgba8();
    RgbImage::from_fn(image.width(), image.height(), |x, y| {
        let [red, green, blue, alpha] = image.get_pixel(x, y).0.map(u16::from);
        // A mean of two bytes.
        #[allow(clippy::cast_possible_truncation)]
        let over = |value: u16| ((value * alpha + 255 * (255 - alpha)) / 255) as u8;
        Rgb([over(red), over(green), over(blue)])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageFormat, Rgba, RgbaImage};

    fn png(image: impl Into<DynamicImage>) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        image.into().write_to(&mut file, ImageFormat::Png).unwrap();
        file.into_inner()
    }

    #[test]
    fn what_one_sees_through_is_white() {
        let mut image = RgbaImage::from_pixel(2, 1, Rgba([255, 0, 0, 255]));
        image.put_pixel(1, 0, Rgba([0, 0, 0, 0]));
        assert_eq!(decode(&png(image)).unwrap().into_raw(), [255, 0, 0, 255, 255, 255]);
    }

    /// A PNG that says it is so large, and holds next to nothing.
    fn bomb(width: u32, height: u32) -> Vec<u8> {
        let mut file = png(RgbImage::new(1, 1));
        file[16..20].copy_from_slice(&width.to_be_bytes());
        file[20..24].copy_from_slice(&height.to_be_bytes());
        let sum = file[12..29].iter().fold(u32::MAX, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 * (sum & 1)))
        });
        file[29..33].copy_from_slice(&(!sum).to_be_bytes());
        file
    }

    #[test]
    fn what_is_too_large_or_no_image_is_refused_before_it_is_decoded() {
        assert_eq!(decode(&bomb(1, 1)).unwrap().dimensions(), (1, 1));
        for (width, height) in [(30_000, 30_000), (u32::MAX >> 1, 1), (1, 1 << 20)] {
            assert!(decode(&bomb(width, height)).is_err(), "{width} times {height}");
        }
        let whole = png(RgbImage::new(20, 20));
        for len in 0..whole.len() - 12 {
            assert!(decode(&whole[..len]).is_err(), "{len} of {} bytes", whole.len());
        }
        assert!(decode(b"no image at all").is_err());
    }

    #[test]
    fn marks_that_are_none_are_text() {
        let picture = || Picture { tokens: Vec::new(), spans: Vec::new() };
        let pictures = Pictures { pictures: vec![picture(), picture()] };
        let around = |text| pictures.first(text).map(|(before, _, behind)| (before, behind));
        assert_eq!(around("a\u{fffc}1\u{fffc}b"), Some(("a", "b")));
        assert_eq!(around("\u{fffc}x\u{fffc}0\u{fffc}"), Some(("\u{fffc}x", "")));
        for text in ["a\u{fffc}2\u{fffc}b", "\u{fffc}1", "\u{fffc}\u{fffc}", "no image"] {
            assert_eq!(around(text), None, "{text}");
        }
        assert!(Pictures::default().first("\u{fffc}0\u{fffc}").is_none());
    }
}
