//! What ggml computes slowly on processors with AVX-512 VNNI: products of quantized weights ([`product`]) and attention over
//! half-precision memory ([`attention`]).
//!
//! ggml takes them as a CPU buffer type of its own (`shim/kernels.cpp`), which it asks before its own code. What they do not
//! know stays with ggml.

mod attention;
mod product;

/// This processor has the instructions.
pub(crate) fn are_usable() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
}

#[cfg(test)]
mod tests {
    /// The same numbers in each run.
    pub(super) struct Noise(u64);

    impl Noise {
        pub(super) fn new(seed: u64) -> Self {
            Self(seed)
        }

        fn word(&mut self) -> u64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            self.0 >> 40
        }

        /// From -0.5 to 0.5.
        pub(super) fn next(&mut self) -> f32 {
            self.word() as f32 / (1 << 24) as f32 - 0.5
        }

        pub(super) fn below(&mut self, n: usize) -> usize {
            usize::try_from(self.word()).expect("24 bits") % n
        }

        /// With some larger ones among them, as a model has.
        pub(super) fn take(&mut self, n: usize) -> Vec<f32> {
            (0..n).map(|_| self.next() * (1.0 + 3.0 * self.next())).collect()
        }
    }
}
