//! What a message holds: a text, or parts.

use crate::http::{invalid, or_default};
use hearth_protocol::{ErrorKind, IMAGE_PLACE, Image, RpcError};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
#[serde(untagged, expecting = "neither a text nor a list of parts")]
pub(super) enum Content {
    Text(String),
    Parts(Vec<Part>),
}

impl Default for Content {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Part {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default, deserialize_with = "or_default")]
    text: String,
    #[serde(default, deserialize_with = "or_default")]
    refusal: String,
    image_url: Option<ImageUrl>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum ImageUrl {
    Object { url: String },
    Text(String),
}

impl Content {
    /// Texts that come in parts are lines, as llama-server has them, and images stand between without a line of their own.
    pub(super) fn read(self) -> Result<(String, Vec<Image>), RpcError> {
        let parts = match self {
            Self::Text(text) => return Ok((text, Vec::new())),
            Self::Parts(parts) => parts,
        };
        let (mut all, mut images, mut is_behind_text) = (String::new(), Vec::new(), false);
        for part in parts {
            let text = match (part.kind.as_str(), part.image_url) {
                ("text" | "input_text" | "output_text" | "reasoning_text" | "summary_text", _) => {
                    part.text
                }
                ("refusal", _) => part.refusal,
                (
                    "image_url" | "input_image",
                    Some(ImageUrl::Object { url } | ImageUrl::Text(url)),
                ) => {
                    all.push_str(IMAGE_PLACE);
                    images.push(Image(url));
                    is_behind_text = false;
                    continue;
                }
                ("image_url" | "input_image", None) => {
                    return Err(invalid("a part of a message has no `image_url`"));
                }
                (other, _) => {
                    let message = format!(
                        "a part of a message has the type `{other}`, which nothing here reads"
                    );
                    return Err(RpcError::new(ErrorKind::Unsupported, message)
                        .with_hint("send texts, and images as `image_url` or `input_image`"));
                }
            };
            if is_behind_text {
                all.push('\n');
            }
            all.push_str(&text);
            is_behind_text = true;
        }
        Ok((all, images))
    }
}
