// llama.cpp's quantizer. Mirrored by hand in src/quantize.rs.
#pragma once

#include "engine.h"

extern "C" {

struct hearth_shim_quantize_job {
    const char * input;
    const char * output;
    const char * imatrix; // may be null
    int32_t ftype;
    int32_t n_threads; // 0: one for each processor
    bool requantize;
    // Answers false to cancel.
    bool (*progress)(void * data, float fraction);
    void * data;
};

enum hearth_shim_quantize_end {
    HEARTH_SHIM_QUANTIZED = 0,
    HEARTH_SHIM_QUANTIZE_CANCELLED = 1,
    HEARTH_SHIM_QUANTIZE_BAD_MATRIX = 2, // `message` says why
    HEARTH_SHIM_QUANTIZE_NOT_WRITTEN = 3, // `message` is the system's
    HEARTH_SHIM_QUANTIZE_FAILED = 4, // the reason is in llama.cpp's log
};

bool hearth_shim_quantize(const hearth_shim_quantize_job * job, int32_t * end, char * message);
}
