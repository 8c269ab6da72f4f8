//! Products beside plain arithmetic over ggml's own reading of the weights.

use super::*;
use crate::kernels::are_usable;
use crate::kernels::tests::Noise;
use llama_cpp_sys_2 as sys;

const ALL: [sys::ggml_type; 8] = [
    sys::GGML_TYPE_Q4_0,
    sys::GGML_TYPE_Q4_1,
    sys::GGML_TYPE_Q5_0,
    sys::GGML_TYPE_Q5_1,
    sys::GGML_TYPE_Q8_0,
    sys::GGML_TYPE_Q4_K,
    sys::GGML_TYPE_Q5_K,
    sys::GGML_TYPE_Q6_K,
];

/// Rows in ggml's layout, and what they mean.
fn quantized(
    kind: sys::ggml_type,
    n_weights: usize,
    n_rows: usize,
    noise: &mut Noise,
) -> (Vec<u8>, Vec<f32>) {
    let format = Format::of(kind).unwrap();
    let floats = noise.take(n_weights * n_rows);
    let mut packed = vec![0_u8; n_rows * n_weights / format.block() * tile::block_bytes(format)];
    let mut means = vec![0_f32; floats.len()];
    // SAFETY: ggml fills as many bytes as a tensor of this type has, and reads them back.
    unsafe {
        let n = sys::ggml_quantize_chunk(
            kind,
            floats.as_ptr(),
            packed.as_mut_ptr().cast(),
            0,
            i64::try_from(n_rows).unwrap(),
            i64::try_from(n_weights).unwrap(),
            std::ptr::null(),
        );
        assert_eq!(n, packed.len());
        let to_float = (*sys::ggml_get_type_traits(kind)).to_float.unwrap();
        to_float(packed.as_ptr().cast(), means.as_mut_ptr(), i64::try_from(means.len()).unwrap());
    }
    (packed, means)
}

/// Rounded as `activations` says, in plain arithmetic.
fn rounded(token: &[f32]) -> Vec<f64> {
    let mut answer = Vec::new();
    for block in token.chunks_exact(activations::BLOCK) {
        let largest = block.iter().fold(0_f32, |largest, x| largest.max(x.abs()));
        let inverse = if largest == 0.0 { 0.0 } else { 127.0 / largest };
        let scale = largest / 127.0;
        answer.extend(block.iter().map(|x| f64::from((x * inverse).round_ties_even() * scale)));
    }
    answer
}

#[test]
fn products_are_those_of_plain_arithmetic() {
    if !are_usable() {
        // The kernels are not registered on such a processor.
        return;
    }
    let mut noise = Noise::new(7);
    for kind in ALL {
        for (n_weights, n_rows, n_tokens) in
            [(256, 16, 1), (512, 48, 5), (768, 32, 12), (256, 16, 13), (512, 32, 31)]
        {
            let (ggml, means) = quantized(kind, n_weights, n_rows, &mut noise);
            let size = hearth_kernels_packed_size(kind, n_weights, n_rows);
            let mut tiles = vec![0_u8; size];
            let mut tokens = noise.take(n_weights * n_tokens);
            tokens[..32].fill(0.0);
            let mut panels = vec![0_u8; hearth_kernels_rounded_size(kind, n_weights, n_tokens)];
            let mut out = vec![f32::NAN; n_rows * n_tokens];
            let product = Product {
                format: kind,
                n_weights,
                n_rows,
                n_tokens,
                weights: tiles.as_ptr(),
                tokens: panels.as_mut_ptr(),
                out: out.as_mut_ptr(),
            };
            // SAFETY: all buffers have the sizes that were asked for.
            unsafe {
                hearth_kernels_pack(kind, n_weights, n_rows, ggml.as_ptr(), tiles.as_mut_ptr());
                for (index, token) in tokens.chunks_exact(n_weights).enumerate() {
                    hearth_kernels_round(&product, index, token.as_ptr());
                }
                hearth_kernels_multiply(&product, 0, n_rows / LANES / 2);
                hearth_kernels_multiply(&product, n_rows / LANES / 2, n_rows / LANES);
            }
            for (token, sums) in tokens.chunks_exact(n_weights).zip(out.chunks_exact(n_rows)) {
                let token = rounded(token);
                for (row, sum) in means.chunks_exact(n_weights).zip(sums) {
                    let terms = || row.iter().zip(&token).map(|(w, x)| f64::from(*w) * x);
                    let (exact, size) = (terms().sum::<f64>(), terms().map(f64::abs).sum::<f64>());
                    let error = (f64::from(*sum) - exact).abs();
                    assert!(
                        error <= 2e-6 * size,
                        "type {kind}, {n_tokens} tokens: {sum} for {exact}"
                    );
                }
            }
        }
    }
}

#[test]
fn what_has_no_tile_stays_with_ggml() {
    assert_eq!(hearth_kernels_packed_size(sys::GGML_TYPE_Q4_0, 64, 16), 16 * 36);
    assert_eq!(hearth_kernels_packed_size(sys::GGML_TYPE_Q4_0, 64, 24), 0);
    assert_eq!(hearth_kernels_packed_size(sys::GGML_TYPE_Q4_K, 96, 16), 0);
    assert_eq!(hearth_kernels_packed_size(sys::GGML_TYPE_F16, 64, 16), 0);
}

#[test]
fn numbers_that_are_none_do_not_become_numbers() {
    if !are_usable() {
        return;
    }
    let (kind, n_weights, n_rows) = (sys::GGML_TYPE_Q8_0, 32, 16);
    let (ggml, _) = quantized(kind, n_weights, n_rows, &mut Noise::new(3));
    let mut tiles = vec![0_u8; hearth_kernels_packed_size(kind, n_weights, n_rows)];
    let mut panels = vec![0_u8; hearth_kernels_rounded_size(kind, n_weights, 1)];
    let mut out = vec![0_f32; n_rows];
    let product = Product {
        format: kind,
        n_weights,
        n_rows,
        n_tokens: 1,
        weights: tiles.as_ptr(),
        tokens: panels.as_mut_ptr(),
        out: out.as_mut_ptr(),
    };
    let token = [f32::INFINITY; 32];
    // SAFETY: all buffers have the sizes that were asked for.
    unsafe {
        hearth_kernels_pack(kind, n_weights, n_rows, ggml.as_ptr(), tiles.as_mut_ptr());
        hearth_kernels_round(&product, 0, token.as_ptr());
        hearth_kernels_multiply(&product, 0, 1);
    }
    assert!(out.iter().all(|sum| !sum.is_finite()), "{out:?}");
}
