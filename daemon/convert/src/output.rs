//! The numbers written: types, and how those of the model become them.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use hearth_gguf::TensorType;

use crate::safetensors::Dtype;

/// What the matrices of the converted model are. Small tensors stay single precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputType {
    F32,
    F16,
    Bf16,
    Q8_0,
}

impl OutputType {
    pub(crate) fn tensor_type(self) -> TensorType {
        match self {
            Self::F32 => TensorType::F32,
            Self::F16 => TensorType::F16,
            Self::Bf16 => TensorType::BF16,
            Self::Q8_0 => TensorType::Q8_0,
        }
    }

    /// llama.h's `LLAMA_FTYPE_*`.
    pub(crate) fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 7,
            Self::Bf16 => 32,
        }
    }
}

/// Turns pieces of a stored tensor into pieces of a written one. A piece is whole blocks.
#[derive(Debug)]
pub(crate) struct Encoder {
    from: Dtype,
    to: TensorType,
    add_one: bool,
    numbers: Vec<f32>,
    halves: Vec<f16>,
    brains: Vec<bf16>,
}

impl Encoder {
    pub(crate) fn new(from: Dtype, to: TensorType, add_one: bool) -> Self {
        Self { from, to, add_one, numbers: Vec::new(), halves: Vec::new(), brains: Vec::new() }
    }

    /// Replaces what is in `out`.
    pub(crate) fn encode(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        out.clear();
        if self.from.tensor_type() == self.to && !self.add_one {
            out.extend_from_slice(piece);
            return;
        }
        self.decode(piece);
        if self.to == TensorType::F32 {
            out.extend(self.numbers.iter().flat_map(|number| number.to_le_bytes()));
        } else if self.to == TensorType::F16 {
            self.halves.resize(self.numbers.len(), f16::ZERO);
            self.halves.convert_from_f32_slice(&self.numbers);
            out.extend(self.halves.iter().flat_map(|number| number.to_le_bytes()));
        } else if self.to == TensorType::BF16 {
            self.brains.resize(self.numbers.len(), bf16::ZERO);
            self.brains.convert_from_f32_slice(&self.numbers);
            out.extend(self.brains.iter().flat_map(|number| number.to_le_bytes()));
        } else {
            for block in self.numbers.chunks_exact(Q8_0_ELEMENTS) {
                push_q8_0(block, out);
            }
        }
    }

    fn decode(&mut self, piece: &[u8]) {
        match self.from {
            Dtype::F32 => {
                self.numbers.clear();
                self.numbers
                    .extend(piece.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)));
            }
            Dtype::F16 => {
                self.halves.clear();
                self.halves
                    .extend(piece.as_chunks().0.iter().map(|&bytes| f16::from_le_bytes(bytes)));
                if self.add_one {
                    // Rounded to half precision, as in llama.cpp's converter.
                    self.halves.iter_mut().for_each(|number| *number += f16::ONE);
                }
                self.numbers.resize(self.halves.len(), 0.0);
                self.halves.convert_to_f32_slice(&mut self.numbers);
                return;
            }
            Dtype::Bf16 => {
                self.numbers.clear();
                self.numbers.extend(
                    piece
                        .as_chunks()
                        .0
                        .iter()
                        .map(|&bytes| f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)),
                );
            }
        }
        if self.add_one {
            self.numbers.iter_mut().for_each(|number| *number += 1.0);
        }
    }
}

const Q8_0_ELEMENTS: usize = 32;

/// As quantize_row_q8_0_ref in ggml-quants.c.
fn push_q8_0(block: &[f32], out: &mut Vec<u8>) {
    let max = block.iter().fold(0.0_f32, |max, number| max.max(number.abs()));
    let scale = max / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    out.extend(f16::from_f32(scale).to_le_bytes());
    // `as` takes the nearest that fits, and zero for what is no number.
    #[expect(clippy::cast_possible_truncation, reason = "rounded to -127..=127")]
    out.extend(block.iter().map(|number| ((number * inverse).round() as i8).to_le_bytes()[0]));
}
