//! The numbers of the GGUF world: tensor types with their block sizes, and file types.
//!
//! Both tables mirror ggml.h, ggml-common.h and llama.h of the llama.cpp we ship
//! (llama-cpp-sys-2 0.1.161). Numbers that llama.cpp has retired are absent, and so unknown.

/// One of ggml's tensor types: elements are stored in blocks of fixed size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TensorType {
    pub number: u32,
    pub name: &'static str,
    pub block_elements: u64,
    pub block_bytes: u64,
}

impl TensorType {
    pub const F32: Self = tensor_type(0, "F32", 1, 4);
    pub const F16: Self = tensor_type(1, "F16", 1, 2);
    pub const Q8_0: Self = tensor_type(8, "Q8_0", 32, 34);
    pub const BF16: Self = tensor_type(30, "BF16", 1, 2);
}

const fn tensor_type(
    number: u32,
    name: &'static str,
    block_elements: u64,
    block_bytes: u64,
) -> TensorType {
    TensorType { number, name, block_elements, block_bytes }
}

const TENSOR_TYPES: &[TensorType] = &[
    TensorType::F32,
    TensorType::F16,
    tensor_type(2, "Q4_0", 32, 18),
    tensor_type(3, "Q4_1", 32, 20),
    tensor_type(6, "Q5_0", 32, 22),
    tensor_type(7, "Q5_1", 32, 24),
    TensorType::Q8_0,
    tensor_type(9, "Q8_1", 32, 36),
    tensor_type(10, "Q2_K", 256, 84),
    tensor_type(11, "Q3_K", 256, 110),
    tensor_type(12, "Q4_K", 256, 144),
    tensor_type(13, "Q5_K", 256, 176),
    tensor_type(14, "Q6_K", 256, 210),
    tensor_type(15, "Q8_K", 256, 292),
    tensor_type(16, "IQ2_XXS", 256, 66),
    tensor_type(17, "IQ2_XS", 256, 74),
    tensor_type(18, "IQ3_XXS", 256, 98),
    tensor_type(19, "IQ1_S", 256, 50),
    tensor_type(20, "IQ4_NL", 32, 18),
    tensor_type(21, "IQ3_S", 256, 110),
    tensor_type(22, "IQ2_S", 256, 82),
    tensor_type(23, "IQ4_XS", 256, 136),
    tensor_type(24, "I8", 1, 1),
    tensor_type(25, "I16", 1, 2),
    tensor_type(26, "I32", 1, 4),
    tensor_type(27, "I64", 1, 8),
    tensor_type(28, "F64", 1, 8),
    tensor_type(29, "IQ1_M", 256, 56),
    TensorType::BF16,
    tensor_type(34, "TQ1_0", 256, 54),
    tensor_type(35, "TQ2_0", 256, 66),
    tensor_type(39, "MXFP4", 32, 17),
    tensor_type(40, "NVFP4", 64, 36),
    tensor_type(41, "Q1_0", 128, 18),
    tensor_type(42, "Q2_0", 64, 18),
];

impl TensorType {
    pub fn from_number(number: u32) -> Option<Self> {
        TENSOR_TYPES.iter().find(|known| known.number == number).copied()
    }

    /// The bytes that `n_elements` in whole blocks take, or `None` if that overflows.
    pub fn size_of(self, n_elements: u64) -> Option<u64> {
        (n_elements / self.block_elements).checked_mul(self.block_bytes)
    }
}

/// The name people know a `general.file_type` by, from llama.h's `LLAMA_FTYPE_*`.
pub fn file_type_name(number: u64) -> Option<&'static str> {
    Some(match number {
        0 => "F32",
        1 => "F16",
        2 => "Q4_0",
        3 => "Q4_1",
        7 => "Q8_0",
        8 => "Q5_0",
        9 => "Q5_1",
        10 => "Q2_K",
        11 => "Q3_K_S",
        12 => "Q3_K_M",
        13 => "Q3_K_L",
        14 => "Q4_K_S",
        15 => "Q4_K_M",
        16 => "Q5_K_S",
        17 => "Q5_K_M",
        18 => "Q6_K",
        19 => "IQ2_XXS",
        20 => "IQ2_XS",
        21 => "Q2_K_S",
        22 => "IQ3_XS",
        23 => "IQ3_XXS",
        24 => "IQ1_S",
        25 => "IQ4_NL",
        26 => "IQ3_S",
        27 => "IQ3_M",
        28 => "IQ2_S",
        29 => "IQ2_M",
        30 => "IQ4_XS",
        31 => "IQ1_M",
        32 => "BF16",
        36 => "TQ1_0",
        37 => "TQ2_0",
        38 => "MXFP4",
        39 => "NVFP4",
        40 => "Q1_0",
        41 => "Q2_0",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_from_ggmls_block_structs() {
        // Each sum is the static_assert beside the struct in ggml-common.h, with QK_K = 256.
        for (name, bytes) in [
            ("Q4_1", 2 * 2 + 32 / 2),
            ("Q5_0", 2 + 4 + 32 / 2),
            ("Q2_K", 2 * 2 + 256 / 16 + 256 / 4),
            ("Q3_K", 2 + 256 / 4 + 256 / 8 + 12),
            ("Q4_K", 2 * 2 + 12 + 256 / 2),
            ("Q5_K", 2 * 2 + 12 + 256 / 2 + 256 / 8),
            ("Q6_K", 2 + 256 / 16 + 3 * 256 / 4),
            ("Q8_K", 4 + 256 + 256 / 16 * 2),
            ("IQ2_XXS", 2 + 256 / 8 * 2),
            ("IQ2_XS", 2 + 256 / 8 * 2 + 256 / 32),
            ("IQ2_S", 2 + 256 / 4 + 256 / 16),
            ("IQ3_XXS", 2 + 3 * (256 / 8)),
            ("IQ3_S", 2 + 13 * (256 / 32) + 256 / 64),
            ("IQ1_S", 2 + 256 / 8 + 256 / 16),
            ("IQ1_M", 256 / 8 + 256 / 16 + 256 / 32),
            ("IQ4_XS", 2 + 2 + 256 / 64 + 256 / 2),
            ("TQ1_0", 2 + 256 / 64 + (256 - 4 * 256 / 64) / 5),
            ("TQ2_0", 2 + 256 / 4),
            ("MXFP4", 1 + 32 / 2),
            ("NVFP4", 64 / 16 + 64 / 2),
            ("Q1_0", 2 + 128 / 8),
            ("Q2_0", 2 + 64 / 4),
        ] {
            let known = TENSOR_TYPES.iter().find(|known| known.name == name).unwrap();
            assert_eq!(known.block_bytes, bytes, "{name}");
        }
    }

    #[test]
    fn retired_and_future_numbers_are_unknown() {
        for number in [4, 5, 31, 32, 33, 36, 37, 38, 43, u32::MAX] {
            assert!(TensorType::from_number(number).is_none(), "{number}");
        }
        assert_eq!(file_type_name(15), Some("Q4_K_M"));
        for number in [4, 5, 6, 33, 42, 1024] {
            assert_eq!(file_type_name(number), None, "{number}");
        }
    }

    #[test]
    fn a_size_that_overflows_is_none() {
        let f64 = TensorType::from_number(28).unwrap();
        assert_eq!(f64.size_of(3), Some(24));
        assert_eq!(f64.size_of(u64::MAX), None);
    }
}
