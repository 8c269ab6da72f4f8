//! TCP: the addresses to listen on, and who may connect from where.

use super::Listener;
use super::tls::Tls;
use crate::config::{Address, HttpConfig};
use anyhow::{Context, bail};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Listens on every address that the configuration names.
pub(crate) async fn bind(
    config: &HttpConfig,
    tls: Option<&Arc<Tls>>,
) -> anyhow::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    for Address { host: text, tls: secret } in &config.listen {
        let addresses = tokio::net::lookup_host(text)
            .await
            .with_context(|| format!("`http.listen` names `{text}`, which is no address"))?;
        for address in addresses {
            if !is_loopback(address) && config.keys.is_none() && !config.open {
                bail!(
                    "`{text}` can be reached from other machines, and nothing says who may\nhint: name a file with keys in `http.keys`, or, in a network that you trust, set `http.open = true`"
                );
            }
            let listener = TcpListener::bind(address).await.with_context(|| {
                format!("cannot listen on `{address}`\nhint: something else may, such as `ollama serve`; stop it, or name another port in `http.listen`")
            })?;
            listeners.push(Listener::Tcp(listener, tls.filter(|_| *secret).cloned()));
        }
    }
    Ok(listeners)
}

pub(super) fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}
