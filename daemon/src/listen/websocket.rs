//! A WebSocket: messages of one request each, answered as they would be raw.
//!
//! The payload of messages goes through the same [`Framer`] as raw bytes do, piece by piece as it comes, so that the
//! same mistake gets the same error, no more than the limit is ever held, and a message that is too long costs nobody the
//! connection.

use super::calls::{Calls, OUTGOING};
use super::framing::{Frame, Framer};
use super::raw::Writer;
use super::unmask::{Piece, Unmasker};
use super::{Caller, Connection};
use serde_json::value::RawValue;
use soketto::base::{Codec, Header, OpCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

/// Codes of RFC 6455, section 7.4.
const GOING_AWAY: u16 = 1001;
const PROTOCOL_ERROR: u16 = 1002;

/// What is sent between messages.
enum Control {
    Pong(Vec<u8>),
    Close(Option<u16>),
}

/// Why reading ended.
enum End {
    /// Nobody is there any more.
    Gone,
    /// A last frame is to be sent.
    Close(Option<u16>),
    /// What runs is answered, and then the other side hears that the daemon goes away.
    Finish,
}

pub(super) async fn serve(
    connection: &Connection,
    caller: Caller,
    reader: impl AsyncRead + Unpin,
    writer: impl Writer,
) {
    let (outgoing, outgoing_rx) = mpsc::channel(OUTGOING);
    let (control, control_rx) = mpsc::channel(1);
    let mut calls = Calls::new(connection, caller, outgoing);
    let writing = tokio::spawn(write(outgoing_rx, control_rx, writer));
    match read(connection, &mut calls, &control, reader).await {
        End::Gone => writing.abort(),
        End::Close(code) => {
            // The writer takes the end of all senders for the daemon's stop.
            let open = calls.outgoing.clone();
            drop(calls);
            let _ = control.send(Control::Close(code)).await;
            let _ = writing.await;
            drop(open);
        }
        End::Finish => {
            calls.finish().await;
            let _ = writing.await;
        }
    }
}

async fn read(
    connection: &Connection,
    calls: &mut Calls,
    control: &mpsc::Sender<Control>,
    mut reader: impl AsyncRead + Unpin,
) -> End {
    let mut unmasker = Unmasker::default();
    let mut framer = Framer::new(connection.server.daemon.config().max_request_bytes);
    let mut held = connection.account().hold();
    let mut chunk = vec![0; 16 << 10];
    loop {
        let mut bytes = tokio::select! {
            n = reader.read(&mut chunk) => match n {
                Ok(0) | Err(_) => return End::Gone,
                Ok(n) => &mut chunk[..n],
            },
            () = calls.outgoing.closed() => return End::Gone,
            () = connection.server.stop.stopped() => return End::Finish,
        };
        loop {
            match unmasker.next(&mut bytes) {
                Ok(None) => break,
                Ok(Some(Piece::Data { payload, ends })) => {
                    framer.push(payload);
                    while let Some(frame) = framer.next() {
                        calls.begin(frame).await;
                    }
                    if ends && let Some(cut) = framer.end() {
                        calls.begin(cut).await;
                    }
                    if !held.set(framer.held()) {
                        calls.begin(Frame::Crowded).await;
                        return End::Finish;
                    }
                }
                // Of several pings, the protocol wants only the last one answered.
                Ok(Some(Piece::Ping(payload))) => {
                    let _ = control.try_send(Control::Pong(payload));
                }
                Ok(Some(Piece::Close(code))) => return End::Close(code),
                Err(violation) => {
                    tracing::debug!("Closing a WebSocket: {violation}");
                    return End::Close(Some(PROTOCOL_ERROR));
                }
            }
        }
    }
}

/// Writes until a close frame, or until every sender or the client is gone.
async fn write(
    mut messages: mpsc::Receiver<Box<RawValue>>,
    mut control: mpsc::Receiver<Control>,
    mut writer: impl Writer,
) {
    let mut is_last = false;
    while !is_last {
        let mut bytes = Vec::new();
        tokio::select! {
            message = messages.recv() => match message {
                Some(message) => frame(OpCode::Text, message.get().as_bytes(), &mut bytes),
                None => {
                    is_last = true;
                    frame(OpCode::Close, &GOING_AWAY.to_be_bytes(), &mut bytes);
                }
            },
            Some(control) = control.recv() => match control {
                Control::Pong(payload) => frame(OpCode::Pong, &payload, &mut bytes),
                Control::Close(code) => {
                    is_last = true;
                    let code = code.map(u16::to_be_bytes);
                    frame(OpCode::Close, code.as_ref().map_or(&[], |code| code), &mut bytes);
                }
            },
            () = writer.hung_up() => return,
        }
        // What is ready goes out in one write.
        while !is_last
            && bytes.len() < 64 << 10
            && let Ok(message) = messages.try_recv()
        {
            frame(OpCode::Text, message.get().as_bytes(), &mut bytes);
        }
        // What TLS has taken and could not send yet goes out by a flush.
        if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
            return;
        }
    }
}

fn frame(opcode: OpCode, payload: &[u8], bytes: &mut Vec<u8>) {
    let mut header = Header::new(opcode);
    header.set_payload_len(payload.len());
    bytes.extend_from_slice(Codec::new().encode_header(&header));
    bytes.extend_from_slice(payload);
}
