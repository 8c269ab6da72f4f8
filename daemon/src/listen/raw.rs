//! Raw JSON-RPC: values in, lines out. A client that closes its writing side still gets everything it asked for.

use super::Connection;
use super::calls::{Calls, OUTGOING};
use super::framing::{Frame, Framer};
use serde_json::value::RawValue;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

pub(super) async fn serve(
    connection: Connection,
    first: Vec<u8>,
    stream: UnixStream,
) -> io::Result<()> {
    let (reader, writer) = stream.into_split();
    let (outgoing, outgoing_rx) = mpsc::channel(OUTGOING);
    let calls = Calls::new(&connection, connection.caller, outgoing);
    let closed = tokio::spawn(write(outgoing_rx, writer));
    let result = read(&connection, calls, first, reader).await;
    // Whatever was asked for is sent before the connection goes; a client that is gone ends the writer at once.
    let _ = closed.await;
    result
}

async fn read(
    connection: &Connection,
    mut calls: Calls,
    first: Vec<u8>,
    mut reader: OwnedReadHalf,
) -> io::Result<()> {
    let mut framer = Framer::new(connection.server.daemon.config().max_request_bytes);
    let mut chunk = vec![0; 16 << 10];
    let mut held = connection.account().hold();
    framer.push(&first);
    loop {
        while let Some(frame) = framer.next() {
            calls.begin(frame).await;
        }
        if !held.set(framer.held()) {
            calls.begin(Frame::Crowded).await;
            calls.finish().await;
            return Ok(());
        }
        tokio::select! {
            n = reader.read(&mut chunk) => match n? {
                0 => break,
                n => framer.push(&chunk[..n]),
            },
            () = calls.outgoing.closed() => return Ok(()),
            () = connection.server.stop.stopped() => break,
        }
    }
    if framer.is_inside() {
        calls.begin(Frame::Cut).await;
    }
    calls.finish().await;
    Ok(())
}

/// Writes until every sender is gone, or the client is.
async fn write(mut messages: mpsc::Receiver<Box<RawValue>>, mut writer: OwnedWriteHalf) {
    loop {
        let message = tokio::select! {
            message = messages.recv() => message,
            // Nobody reads any more.
            () = writer.hung_up() => return,
        };
        let Some(message) = message else { return };
        let mut line = String::from(Box::<str>::from(message)).into_bytes();
        line.push(b'\n');
        // What is ready goes out in one write.
        while line.len() < 64 << 10
            && let Ok(message) = messages.try_recv()
        {
            line.extend_from_slice(message.get().as_bytes());
            line.push(b'\n');
        }
        if writer.write_all(&line).await.is_err() {
            return;
        }
    }
}

/// A side to write to, that can tell when nobody reads any more.
pub(super) trait Writer: AsyncWrite + Unpin + Send + Sync + 'static {
    /// Returns once both directions are closed. A client that only stopped writing still reads.
    fn hung_up(&self) -> impl Future<Output = ()> + Send;
}

macro_rules! writer {
    ($half:ty) => {
        impl Writer for $half {
            async fn hung_up(&self) {
                // Linux says so when the client stops writing, which comes first, and costs nothing to wait for.
                #[cfg(target_os = "linux")]
                let _ = self.ready(Interest::PRIORITY).await;
                // A registration of its own: what is cleared here, a write must not miss.
                closed(self.as_ref().as_fd().try_clone_to_owned()).await;
            }
        }
    };
}

writer!(tokio::net::unix::OwnedWriteHalf);
writer!(tokio::net::tcp::OwnedWriteHalf);

/// Returns once both directions of a stream socket of any family are closed.
pub(super) async fn closed(own: io::Result<OwnedFd>) {
    let Ok(own) = own.and_then(|own| UnixStream::from_std(own.into())) else {
        return std::future::pending().await;
    };
    while let Ok(ready) = own.ready(Interest::WRITABLE).await {
        if ready.is_write_closed() {
            return;
        }
        let _ = own.try_io(Interest::WRITABLE, || {
            Err::<(), _>(io::Error::from(io::ErrorKind::WouldBlock))
        });
    }
    std::future::pending().await
}
