//! TCP: the addresses to listen on, and who may connect from where.

use super::Socket;
use super::tls::Tls;
use crate::config::{Address, HttpConfig};
use anyhow::{Context, bail};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Listens on every address that the configuration names, but those of `given`; on those of `kept` with what listens there already.
pub(crate) async fn bind(
    config: &HttpConfig,
    tls: Option<&Arc<Tls>>,
    given: &[TcpListener],
    mut kept: Vec<TcpListener>,
) -> anyhow::Result<Vec<Socket>> {
    let is_at =
        |listener: &TcpListener, address| listener.local_addr().is_ok_and(|at| at == address);
    for address in given.iter().filter_map(|listener| listener.local_addr().ok()) {
        may_reach(config, address, &address.to_string())?;
    }
    let mut listeners = Vec::new();
    for Address { host: text, tls: secret } in &config.listen {
        let addresses = tokio::net::lookup_host(text)
            .await
            .with_context(|| format!("`{text}` is no address to listen on"))?;
        for address in addresses {
            may_reach(config, address, text)?;
            if given.iter().any(|listener| is_at(listener, address)) {
                continue;
            }
            let listener = match kept.iter().position(|listener| is_at(listener, address)) {
                Some(n) => kept.swap_remove(n),
                None => TcpListener::bind(address).await.map_err(|error| {
                    anyhow::anyhow!("cannot listen on `{address}`: {error}\nhint: something else may, such as `ollama serve`; stop it, or name another port in `http.listen` (`hearth serve --listen`)")
                })?,
            };
            listeners.push(Socket::Tcp(listener, tls.filter(|_| *secret).cloned()));
        }
    }
    Ok(listeners)
}

fn may_reach(config: &HttpConfig, address: SocketAddr, named: &str) -> anyhow::Result<()> {
    if !is_loopback(address) && config.keys.is_none() && !config.open {
        bail!(
            "`{named}` can be reached from other machines, and nothing says who may\nhint: name a file with keys in `http.keys` (`hearth serve --keys`), or, in a network that you trust, set `http.open = true` (`--open`)"
        );
    }
    Ok(())
}

pub(super) fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}
