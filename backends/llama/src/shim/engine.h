// Calls into llama.cpp that may throw, each with the exception caught and its text written into `message`.
//
// Every function answers false after an exception; the out-parameters are unspecified then. `message` has
// HEARTH_SHIM_MESSAGE bytes. Mirrored by hand in src/shim.rs.
#pragma once

#include "llama.h"

struct llama_grammar;

#define HEARTH_SHIM_MESSAGE 512

extern "C" {

// The answers are llama.cpp's own: counts, or minus the size needed.
bool hearth_shim_tokenize(const llama_vocab * vocab, const char * text, int32_t text_len, llama_token * tokens,
                          int32_t capacity, bool add_special, bool parse_special, int32_t * answer, char * message);
bool hearth_shim_token_piece(const llama_vocab * vocab, llama_token token, char * buffer, int32_t capacity, bool special,
                             int32_t * answer, char * message);
bool hearth_shim_detokenize(const llama_vocab * vocab, const llama_token * tokens, int32_t n_tokens, char * buffer,
                            int32_t capacity, bool remove_special, bool unparse_special, int32_t * answer, char * message);

// Null answers without an exception are possible too; the reason is then in llama.cpp's log.
bool hearth_shim_model_load(const char * path, const llama_model_params * params, llama_model ** model, char * message);
bool hearth_shim_context_new(llama_model * model, const llama_context_params * params, llama_context ** context,
                             char * message);
// Rows of the model's table of positions, behind which llama.cpp would abort; 0 if it has no such table.
int64_t hearth_shim_position_rows(const llama_model * model);
bool hearth_shim_adapter_load(llama_model * model, const char * path, llama_adapter_lora ** adapter, char * message);
bool hearth_shim_adapters_set(llama_context * context, llama_adapter_lora ** adapters, size_t n, float * scales,
                              char * message);

// `encode` is for models that are nothing but an encoder with cross-attention in mind, such as T5's.
bool hearth_shim_decode(llama_context * context, const llama_batch * batch, bool encode, int32_t * answer,
                        char * message);
bool hearth_shim_seq_size(llama_context * context, llama_seq_id seq, size_t * answer, char * message);
bool hearth_shim_seq_get(llama_context * context, llama_seq_id seq, uint8_t * data, size_t len, size_t * answer,
                         char * message);
bool hearth_shim_seq_set(llama_context * context, llama_seq_id seq, const uint8_t * data, size_t len, size_t * answer,
                         char * message);
// Adds `delta` to positions and rotates the keys at once. llama.cpp alone would wait for the next decode, and a state saved
// in between would hold new positions with old keys.
bool hearth_shim_seq_shift(llama_context * context, llama_seq_id seq, llama_pos p0, llama_pos p1, llama_pos delta,
                           char * message);

// Bytes a context takes for its memory and compute buffers, over all devices.
uint64_t hearth_shim_context_bytes(const llama_context * context);

// A token to guess from, with the state that the trunk or the guess before it has behind the token before.
struct hearth_shim_mtp_token {
    const float * state;
    llama_token   token;
    llama_pos     pos;
    llama_seq_id  seq;
    bool          output;
};
// Makes both contexts keep states. The batch is llama_batch_ext_free's to free.
bool hearth_shim_mtp_begin(llama_context * trunk, llama_context * heads, llama_batch_ext ** batch, char * message);
// The state behind a token of the last decode, by its index in that.
bool hearth_shim_mtp_state(llama_context * context, int32_t index, const float ** state, char * message);
bool hearth_shim_mtp_decode(llama_context * heads, llama_batch_ext * batch, const hearth_shim_mtp_token * tokens, size_t n,
                            size_t n_embd, int32_t * answer, char * message);

// Parses the grammar before llama.cpp does, because llama.cpp writes parse errors and the grammar to stderr.
bool hearth_shim_grammar_new(const llama_vocab * vocab, const char * text, const char * root, llama_grammar ** grammar,
                             char * message);
void hearth_shim_grammar_free(llama_grammar * grammar);
bool hearth_shim_grammar_apply(const llama_grammar * grammar, llama_token_data_array * tokens, char * message);
bool hearth_shim_grammar_accept(llama_grammar * grammar, llama_token token, char * message);

// A token of a vocabulary that is a tree: its text is that of the branch `above` it, which is an earlier one, or -1, and
// `len` characters more.
struct hearth_shim_branch {
    llama_token token;
    int32_t     above;
    uint32_t    begin;
    uint32_t    len;
};
// Says of each branch's token whether it may come. Not `walked`: the grammar names tokens, and each has to be asked about.
bool hearth_shim_grammar_walk(llama_grammar * grammar, const hearth_shim_branch * branches, size_t n, const uint32_t * text,
                              bool * may_come, bool * walked, char * message);
// Replaces the grammar by one that has taken the text; after false it is as it was.
bool hearth_shim_grammar_accept_text(llama_grammar ** grammar, const char * text, size_t text_len, char * message);

// llama.cpp's common library has a log of its own, on stdout and stderr, which may quote messages and answers.
void hearth_shim_silence_common(void);

// Lets ggml take main memory as it is used. Called before anything is allocated; a second call does nothing.
void hearth_shim_map_buffers(void);

// Lets the CPU module at this path, which is loaded, use the kernels of src/kernels. Answers false if it cannot.
bool hearth_shim_register_kernels(const char * module_path);

// A CPU module that is linked into this program, and no file. Written by backends/linked/build.rs, and mirrored by hand from
// src/linked.rs.
struct hearth_linked_module {
    const char * name; // null ends the list
    ggml_backend_reg_t (*init)(void);
    int (*score)(void);
    void (*buffer_types)(void); // and three more of what kernels.cpp looks up in a file
    void (*barrier)(void);
    void (*chunk_set)(void);
    void (*chunk_add)(void);
};

// The modules linked in, or null where the modules are files.
const struct hearth_linked_module * hearth_shim_linked_modules(void);

// As hearth_shim_register_kernels.
bool hearth_shim_register_linked_kernels(const struct hearth_linked_module * module);
}

// Copies an exception's text, cut to size, each run of white space as one space.
void hearth_shim_write_message(char * message, const char * text);
