//! Attention beside plain arithmetic over random memories, masks and shapes.

use super::*;
use crate::kernels::are_usable;
use crate::kernels::tests::Noise;
use std::sync::Barrier;
use std::sync::atomic::{AtomicI32, Ordering};

struct Pool {
    barrier: Barrier,
    next: AtomicI32,
}

unsafe extern "C" fn barrier(pool: *mut c_void) {
    // SAFETY: the test's pool lives longer than its threads.
    unsafe { (*pool.cast::<Pool>()).barrier.wait() };
}

unsafe extern "C" fn set_next(pool: *mut c_void, next: i32) {
    // SAFETY: as above.
    unsafe { (*pool.cast::<Pool>()).next.store(next, Ordering::SeqCst) };
}

unsafe extern "C" fn take_next(pool: *mut c_void, n: i32) -> i32 {
    // SAFETY: as above.
    unsafe { (*pool.cast::<Pool>()).next.fetch_add(n, Ordering::SeqCst) }
}

fn half(x: f32) -> (u16, f32) {
    // SAFETY: plain conversions.
    unsafe {
        let half = llama_cpp_sys_2::ggml_fp32_to_fp16(x);
        (half, llama_cpp_sys_2::ggml_fp16_to_fp32(half))
    }
}

/// What tokens see: a prompt of a sequence among others' cells, and tokens of other sequences.
fn masks(n_tokens: usize, n_cells: usize, n_prompt: usize, noise: &mut Noise) -> Vec<Vec<bool>> {
    let owner: Vec<usize> = (0..n_cells).map(|_| noise.below(3)).collect();
    (0..n_tokens)
        .map(|token| {
            if token < n_prompt {
                let end = n_cells - n_prompt + token;
                return (0..n_cells).map(|cell| owner[cell] != 1 && cell <= end).collect();
            }
            let mine = noise.below(4);
            (0..n_cells).map(|cell| owner[cell] == mine).collect()
        })
        .collect()
}

struct Case {
    n_key: usize,
    n_value: usize,
    n_heads: usize,
    n_memory_heads: usize,
    n_tokens: usize,
    n_prompt: usize,
    n_cells: usize,
    n_threads: usize,
}

fn check(case: &Case, noise: &mut Noise) {
    let Case { n_key, n_value, n_heads, n_memory_heads, n_tokens, n_cells, .. } = *case;
    let masks = masks(n_tokens, n_cells, case.n_prompt, noise);
    let queries: Vec<f32> = (0..n_tokens * n_heads * n_key).map(|_| noise.next() * 8.0).collect();
    let memory = |n: usize, noise: &mut Noise| -> (Vec<u16>, Vec<f32>) {
        (0..n_cells * n_memory_heads * n).map(|_| half(noise.next())).unzip()
    };
    let (keys, key_floats) = memory(n_key, noise);
    let (values, value_floats) = memory(n_value, noise);
    let mask: Vec<u16> =
        masks.iter().flatten().map(|seen| if *seen { 0 } else { 0xfc00 }).collect();
    let mut out = vec![f32::NAN; n_tokens * n_heads * n_value];
    let mut attention = Attention {
        n_key,
        n_value,
        n_tokens,
        n_heads,
        n_memory_heads,
        n_cells,
        scale: 0.3,
        queries: Tensor {
            data: queries.as_ptr().cast(),
            stride: n_heads * n_key * 4,
            head_stride: n_key * 4,
        },
        keys: Tensor {
            data: keys.as_ptr().cast(),
            stride: n_memory_heads * n_key * 2,
            head_stride: n_key * 2,
        },
        values: Tensor {
            data: values.as_ptr().cast(),
            stride: n_memory_heads * n_value * 2,
            head_stride: n_value * 2,
        },
        mask: mask.as_ptr().cast(),
        mask_stride: n_cells * 2,
        out: out.as_mut_ptr(),
        work: std::ptr::null_mut(),
    };
    let mut work = vec![0xff_u8; hearth_kernels_attention_size(&attention, case.n_threads)];
    attention.work = work.as_mut_ptr().cast();
    let pool = Pool { barrier: Barrier::new(case.n_threads), next: AtomicI32::new(0) };
    let shared = (&raw const attention as usize, &raw const pool as usize);
    std::thread::scope(|scope| {
        for index in 0..case.n_threads {
            scope.spawn(move || {
                let threads = Threads {
                    index,
                    n: case.n_threads,
                    pool: shared.1 as *mut c_void,
                    barrier,
                    set_next,
                    take_next,
                };
                // SAFETY: the tensors and the working memory have the sizes that are said, and outlive the scope.
                unsafe { hearth_kernels_attend(&*(shared.0 as *const Attention), &threads) };
            });
        }
    });
    for token in 0..n_tokens {
        for head in 0..n_heads {
            let memory_head = head / (n_heads / n_memory_heads);
            let query = &queries[(token * n_heads + head) * n_key..][..n_key];
            let weights: Vec<f64> = (0..n_cells)
                .map(|cell| {
                    let key = &key_floats[(cell * n_memory_heads + memory_head) * n_key..][..n_key];
                    let score: f64 =
                        query.iter().zip(key).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                    if masks[token][cell] { (score * f64::from(0.3_f32)).exp() } else { 0.0 }
                })
                .collect();
            let total: f64 = weights.iter().sum();
            for index in 0..n_value {
                let exact: f64 = (0..n_cells)
                    .map(|cell| {
                        let value = (cell * n_memory_heads + memory_head) * n_value + index;
                        weights[cell] * f64::from(value_floats[value])
                    })
                    .sum();
                let exact = if total == 0.0 { 0.0 } else { exact / total };
                let got = f64::from(out[(token * n_heads + head) * n_value + index]);
                assert!(
                    (got - exact).abs() < 2e-6,
                    "token {token}, head {head}: {got} for {exact}"
                );
            }
        }
    }
}

#[test]
fn attention_is_that_of_plain_arithmetic() {
    if !are_usable() {
        // The kernels are not registered on such a processor.
        return;
    }
    let mut noise = Noise::new(11);
    for (n_key, n_value, n_heads, n_memory_heads) in
        [(64, 64, 9, 3), (128, 128, 4, 1), (80, 80, 2, 2), (32, 96, 64, 1), (256, 256, 4, 1)]
    {
        for (n_tokens, n_prompt, n_cells, n_threads) in [
            (1, 0, 256, 1),
            (1, 0, 1500, 3),
            (8, 0, 700, 2),
            (40, 40, 300, 2),
            (37, 30, 333, 3),
            (5, 5, 5, 2),
        ] {
            let case = Case {
                n_key,
                n_value,
                n_heads,
                n_memory_heads,
                n_tokens,
                n_prompt,
                n_cells,
                n_threads,
            };
            check(&case, &mut noise);
        }
    }
}

#[test]
fn a_token_is_found_among_cells_of_any_kind() {
    let words = [0b1011, 1 << 63 | 1, 7, 0];
    let sets = Sets { words: &words, n_words: 2 };
    let mut cells = [0; 256];
    assert_eq!(sets.cells(0..1, &mut cells), 5);
    assert_eq!(cells[..5], [0, 1, 3, 64, 127]);
    assert_eq!(sets.among(0, &[0, 2, 64, 127]), 0b1101);
    assert_eq!(sets.among(0, &[63, 64, 65]), 0b010);
    assert_eq!(sets.among(1, &cells[..5]), 0b00011);
    assert_eq!(sets.cells(0..2, &mut cells), 6);
    assert_eq!(sets.alike(0, 8), 0..2);
    assert_eq!(sets.alike(0, 1), 0..1);
}
