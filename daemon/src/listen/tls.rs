//! TLS, before HTTP.
//!
//! A connection's handshake is part of its own task, with a deadline, so that nobody who only connects keeps others from it.

use super::raw::{Writer, closed};
use super::secret::read_secret;
use crate::config::TlsFiles;
use anyhow::Context as _;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;

/// How long a client may take until both sides have agreed on keys.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The type of a record that holds a part of a handshake.
const HANDSHAKE_RECORD: u8 = 22;

/// What the daemon shows to its clients.
pub(crate) struct Tls {
    files: TlsFiles,
    acceptor: RwLock<TlsAcceptor>,
}

/// How a client has begun.
pub(super) enum Greeted {
    Tls(TlsHalf),
    /// With something else, of which nothing was read.
    Plain(TcpStream),
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Tls {
    pub(crate) fn load(files: &TlsFiles) -> anyhow::Result<Arc<Self>> {
        let acceptor = RwLock::new(acceptor(files)?);
        Ok(Arc::new(Self { files: files.clone(), acceptor }))
    }

    /// What its files hold now.
    pub(crate) fn read(&self) -> anyhow::Result<TlsAcceptor> {
        acceptor(&self.files)
    }

    /// Shows this from now on.
    pub(crate) fn show(&self, acceptor: TlsAcceptor) {
        *self.acceptor.write().unwrap_or_else(PoisonError::into_inner) = acceptor;
    }

    pub(super) async fn greet(&self, stream: TcpStream) -> io::Result<Greeted> {
        let greet = async {
            let mut first = [0];
            stream.peek(&mut first).await?;
            if first != [HANDSHAKE_RECORD] {
                return Ok(Greeted::Plain(stream));
            }
            let acceptor = self.acceptor.read().unwrap_or_else(PoisonError::into_inner).clone();
            let stream = acceptor.accept(stream).await?;
            Ok(Greeted::Tls(TlsHalf(Arc::new(Mutex::new(stream)))))
        };
        tokio::time::timeout(HANDSHAKE, greet).await?
    }
}

fn acceptor(files: &TlsFiles) -> anyhow::Result<TlsAcceptor> {
    let TlsFiles { certificate, key } = files;
    let (shown, shown_key) = (certificate.display(), key.display());
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("cannot read the certificate in `{shown}`"))?;
    let secret =
        read_secret(key).and_then(|text| Ok(PrivateKeyDer::from_pem_slice(text.as_bytes())?));
    let secret = secret.with_context(|| format!("cannot read the key in `{shown_key}`"))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .with_context(|| format!("`{shown}` and `{shown_key}` are no certificate and its key"))?;
    config.alpn_protocols = vec![b"http/1.1".into()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// One of two sides of a stream: reading and writing share its state.
#[derive(Clone)]
pub(super) struct TlsHalf(Arc<Mutex<TlsStream<TcpStream>>>);

impl TlsHalf {
    fn stream(&self) -> MutexGuard<'_, TlsStream<TcpStream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncRead for TlsHalf {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream()).poll_read(context, buffer)
    }
}

impl AsyncWrite for TlsHalf {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream()).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream()).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream()).poll_shutdown(context)
    }
}

impl Writer for TlsHalf {
    async fn hung_up(&self) {
        let own = self.stream().get_ref().0.as_fd().try_clone_to_owned();
        closed(own).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio_rustls::rustls::server::ResolvesServerCertUsingSni;

    #[tokio::test(start_paused = true)]
    async fn who_does_not_get_on_with_the_handshake_is_dropped() {
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()));
        let files = TlsFiles { certificate: "/".into(), key: "/".into() };
        let tls = Tls { files, acceptor: RwLock::new(TlsAcceptor::from(Arc::new(config))) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for begun in [&b""[..], &[HANDSHAKE_RECORD, 3, 1]] {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(begun).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let error = tls.greet(stream).await.err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{begun:?}: {error}");
        }
    }
}
