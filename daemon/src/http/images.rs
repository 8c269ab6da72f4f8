//! Images as other dialects give them: in base64, as `data:` URLs, and as URLs of the network where the configuration lets the
//! daemon fetch those.

use super::Core;
use crate::config::ImageUrls;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hearth_protocol::{ChatParams, ErrorKind, Image, RpcError};
use hearth_registry::{Elsewhere, Reach, fetch_elsewhere};

/// Most bytes of one that is fetched.
const MAX_BYTES: usize = 20 << 20;

/// A chat with the files in the place of URLs.
pub(super) async fn resolved(core: &Core, mut chat: ChatParams) -> Result<ChatParams, RpcError> {
    // Together they are no longer than a request may be.
    let mut n_left = core.daemon.config().max_request_bytes;
    for Image(text) in chat.messages.iter_mut().flat_map(|message| &mut message.images) {
        if let Some(url) = text.strip_prefix("data:") {
            let data = url.split_once(',').filter(|(kind, _)| kind.ends_with(";base64"));
            let (_, data) = data.ok_or_else(|| {
                RpcError::new(ErrorKind::InvalidParams, "an image's `data:` URL is not in base64")
                    .with_hint("write `data:image/png;base64,` and the bytes of its file")
            })?;
            *text = data.into();
        } else if text.contains("://") {
            let bytes = fetch(core, text, n_left.min(MAX_BYTES)).await?;
            n_left -= bytes.len();
            *text = BASE64_STANDARD.encode(bytes);
        }
    }
    Ok(chat)
}

async fn fetch(core: &Core, url: &str, max_bytes: usize) -> Result<Vec<u8>, RpcError> {
    let reach = match core.daemon.config().http.image_urls {
        ImageUrls::No => {
            return Err(RpcError::new(
                ErrorKind::Unsupported,
                "images by URL are not fetched here",
            )
            .with_hint("send the image itself, or set `http.image_urls` in the configuration"));
        }
        ImageUrls::Public => Reach::Public,
        ImageUrls::All => Reach::All,
    };
    fetch_elsewhere(url, max_bytes, reach).await.map_err(|error| {
        let (kind, hint) = match error {
            Elsewhere::Forbidden { .. } => (
                ErrorKind::InvalidParams,
                "`http.image_urls` in the configuration says what may be",
            ),
            Elsewhere::TooLarge { .. } => (ErrorKind::TooLarge, "send a smaller image"),
            Elsewhere::Failed { .. } => (ErrorKind::Network, "send the image itself"),
        };
        RpcError::new(kind, error.to_string()).with_hint(hint)
    })
}
