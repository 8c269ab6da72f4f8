//! The frames of a WebSocket's client, taken apart without being collected.
//!
//! soketto knows what a header is. Its own reader makes room for whatever length a header announces before a byte of it
//! has come, and loses its place after a message that is too long.

use soketto::Parsing;
use soketto::base::{self, Codec, Header, OpCode};

/// Something of what a client sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Part of a message.
    Data {
        payload: &'a [u8],
        ends: bool,
    },
    Ping(Vec<u8>),
    /// With the code to answer.
    Close(Option<u16>),
}

/// What no client may send.
#[derive(Debug, thiserror::Error)]
pub(super) enum Violation {
    #[error("a frame's header cannot be read: {0}")]
    Header(#[from] base::Error),
    #[error("a frame is not masked")]
    NotMasked,
    #[error("a message begins inside another, or goes on after its end")]
    OutOfOrder,
}

#[derive(Debug)]
pub(super) struct Unmasker {
    codec: Codec,
    /// Bytes of a header that is not complete; never more than 14.
    head: Vec<u8>,
    current: Option<Current>,
    /// Payload of a control frame; never more than 125 bytes.
    control: Vec<u8>,
    in_message: bool,
}

/// The frame that is being read.
#[derive(Debug)]
struct Current {
    header: Header,
    done: usize,
}

impl Default for Unmasker {
    fn default() -> Self {
        let mut codec = Codec::new();
        // The limit is the framer's to keep.
        codec.set_max_data_size(usize::MAX);
        Self { codec, head: Vec::new(), current: None, control: Vec::new(), in_message: false }
    }
}

impl Unmasker {
    /// What comes first in `bytes`, which it is taken out of; `None` once they are used up.
    pub(super) fn next<'a>(
        &mut self,
        bytes: &mut &'a mut [u8],
    ) -> Result<Option<Piece<'a>>, Violation> {
        loop {
            let mut current = match self.current.take() {
                Some(current) => current,
                None => match self.header(bytes)? {
                    Some(header) => Current { header, done: 0 },
                    None => return Ok(None),
                },
            };
            let left = current.header.payload_len() - current.done;
            if left > 0 && bytes.is_empty() {
                self.current = Some(current);
                return Ok(None);
            }
            let n = left.min(bytes.len());
            let (payload, rest) = std::mem::take(bytes).split_at_mut(n);
            *bytes = rest;
            let mask = current.header.mask().to_be_bytes();
            for (at, byte) in payload.iter_mut().enumerate() {
                *byte ^= mask[(current.done + at) % 4];
            }
            current.done += payload.len();
            let (opcode, is_fin) = (current.header.opcode(), current.header.is_fin());
            let is_whole = payload.len() == left;
            if !is_whole {
                self.current = Some(current);
            }
            if !opcode.is_control() {
                let ends = is_whole && is_fin;
                self.in_message &= !ends;
                return Ok(Some(Piece::Data { payload, ends }));
            }
            self.control.extend_from_slice(payload);
            match opcode {
                _ if !is_whole => {}
                OpCode::Ping => return Ok(Some(Piece::Ping(std::mem::take(&mut self.control)))),
                OpCode::Close => {
                    let code = self.control.first_chunk().copied().map(u16::from_be_bytes);
                    return Ok(Some(Piece::Close(code)));
                }
                _ => {}
            }
        }
    }

    fn header(&mut self, bytes: &mut &mut [u8]) -> Result<Option<Header>, Violation> {
        while let Some((first, rest)) = std::mem::take(bytes).split_first_mut() {
            *bytes = rest;
            self.head.push(*first);
            if let Parsing::Done { value: header, .. } = self.codec.decode_header(&self.head)? {
                self.head.clear();
                self.begin(&header)?;
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    fn begin(&mut self, header: &Header) -> Result<(), Violation> {
        if !header.is_masked() {
            return Err(Violation::NotMasked);
        }
        if header.opcode().is_control() {
            self.control.clear();
        } else if (header.opcode() == OpCode::Continue) != self.in_message {
            return Err(Violation::OutOfOrder);
        } else {
            self.in_message = true;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(opcode: OpCode, is_fin: bool, mask: u32, payload: &[u8]) -> Vec<u8> {
        let mut header = Header::new(opcode);
        header.set_fin(is_fin).set_masked(true).set_mask(mask).set_payload_len(payload.len());
        let mut bytes = Codec::new().encode_header(&header).to_vec();
        let mut payload = payload.to_vec();
        Codec::apply_mask(&header, &mut payload);
        bytes.extend(payload);
        bytes
    }

    #[derive(Debug, PartialEq, Eq)]
    enum Said {
        Message(Vec<u8>),
        Ping(Vec<u8>),
        Close(Option<u16>),
    }

    fn said(bytes: &[u8], cut: usize) -> Vec<Said> {
        let mut unmasker = Unmasker::default();
        let (mut said, mut message) = (Vec::new(), Vec::new());
        for chunk in bytes.chunks(cut) {
            let mut chunk = chunk.to_vec();
            let mut rest = chunk.as_mut_slice();
            while let Some(piece) = unmasker.next(&mut rest).unwrap() {
                match piece {
                    Piece::Data { payload, ends } => {
                        message.extend_from_slice(payload);
                        if ends {
                            said.push(Said::Message(std::mem::take(&mut message)));
                        }
                    }
                    Piece::Ping(payload) => said.push(Said::Ping(payload)),
                    Piece::Close(code) => said.push(Said::Close(code)),
                }
            }
        }
        said
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_makes_no_difference(text in prop::collection::vec(any::<u8>(), 0..70_000), at in any::<prop::sample::Index>(), mask in any::<u32>(), cut in 1_usize..300) {
            let (first, second) = text.split_at(at.index(text.len() + 1));
            let bytes = [
                frame(OpCode::Text, false, mask, first),
                frame(OpCode::Ping, true, !mask, b"ping"),
                frame(OpCode::Continue, true, mask / 3, second),
                frame(OpCode::Pong, true, mask, b"unasked"),
                frame(OpCode::Binary, true, mask, b""),
                frame(OpCode::Close, true, mask, &1000_u16.to_be_bytes()),
            ]
            .concat();
            let expected = [
                Said::Ping(b"ping".to_vec()),
                Said::Message(text),
                Said::Message(Vec::new()),
                Said::Close(Some(1000)),
            ];
            prop_assert_eq!(said(&bytes, cut), expected);
        }
    }

    #[test]
    fn what_is_not_masked_is_refused() {
        let mut bytes = [0x81, 0x02, b'{', b'}'];
        let result = Unmasker::default().next(&mut bytes.as_mut_slice());
        assert!(matches!(result, Err(Violation::NotMasked)), "{result:?}");
    }
}
