/*
 * hearth_plugin.h - the contract between hearthd and an inference backend.
 *
 * A plugin is one shared library that exports one symbol, `hearth_plugin_entry`, of type
 * `hearth_plugin_t`. The host loads it in a worker process of its own, one model per process and
 * perhaps a smaller one that guesses what the first will say, so a plugin that crashes costs one
 * worker. Plugins are small on purpose: open a model, tokenize, run batches, read logits or
 * embeddings, move and save KV memory. Scheduling, caching, sampling and sessions are the host's.
 *
 * Symbolic threads
 * ----------------
 * A tag names a concurrency guard, not an OS thread: the host may change the OS thread between two
 * calls, but never makes two calls under one guard at the same time.
 *
 *   [main-thread]     One per process. Loads and unloads the plugin, opens and closes models.
 *   [engine-thread]   One per context. Every call that takes a `hearth_context_t *`, except where
 *                     tagged [any-thread].
 *   [any-thread]      May be called at any time from any thread, also while another call runs.
 *   [host-callback]   Called by the plugin, from whatever thread it likes, only while a host call that
 *                     received the callback is running (or, for `log`, until deinit returns).
 *
 * Calls under [main-thread] and [engine-thread] never overlap for the same model: the host destroys
 * all contexts of a model before it closes the model.
 *
 * Scenarios
 * ---------
 *   Probe:     dlopen, entry checks, init, device_count, device_get..., deinit, dlclose.
 *   Serve:     init, model_open, model_info, context_create, { decode, logits... }..., context_destroy,
 *              model_close, deinit.
 *   New prompt on a used sequence: seq_remove(seq, keep, -1), then decode from position `keep`.
 *              If seq_remove answers UNSUPPORTED: seq_remove(seq, 0, -1), then decode from position 0.
 *   Shared prefix: seq_copy(a, b, 0, n), then decode b from position n. b is independent of a from then on.
 *   Cancel an open:  the progress callback answers false; model_open answers CANCELLED.
 *   Cancel a decode: decode_abort from any thread; decode answers CANCELLED; the host then removes
 *              the sequences of that batch, whose memory is undefined from the batch's positions on.
 *
 * Failure
 * -------
 * Every fallible function answers a status and takes a `hearth_error_t *` (never null) that the host
 * owns. On any status but OK the plugin writes one sentence for a person into `message`: lower case,
 * no full stop, values in backticks. Out-parameters are unspecified then, unless said otherwise. No
 * exception, panic or longjmp may cross any function here.
 *
 * Versions
 * --------
 * Structs grow only at the end. Each begins with `struct_size`, set by whoever fills it: a reader must not
 * touch members beyond it. The major version changes when that is not enough; the host refuses
 * another major version and accepts any minor one.
 *
 * Text is UTF-8. Every `const char *` is NUL-terminated unless a length goes with it.
 */
#ifndef HEARTH_PLUGIN_H
#define HEARTH_PLUGIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HEARTH_ABI_VERSION_MAJOR 1u
#define HEARTH_ABI_VERSION_MINOR 1u
#define HEARTH_ABI_VERSION ((HEARTH_ABI_VERSION_MAJOR << 16) | HEARTH_ABI_VERSION_MINOR)

#if defined(__GNUC__)
#define HEARTH_EXPORT __attribute__((visibility("default")))
#else
#define HEARTH_EXPORT
#endif

/* Opaque handles, owned by the plugin. */
typedef struct hearth_model hearth_model_t;
typedef struct hearth_context hearth_context_t;
typedef struct hearth_grammar hearth_grammar_t;
typedef struct hearth_adapter hearth_adapter_t;
typedef struct hearth_projector hearth_projector_t;
typedef struct hearth_image hearth_image_t;

typedef int32_t hearth_token_t;
typedef int32_t hearth_seq_t; /* 0 .. n_seq_max-1 */
typedef int32_t hearth_pos_t; /* 0 .. n_ctx_seq-1 */

typedef int32_t hearth_status_t;
enum {
  HEARTH_OK = 0,
  HEARTH_INVALID_ARGUMENT = 1,  /* the host broke this contract; nothing was changed */
  HEARTH_UNSUPPORTED = 2,       /* this model or memory cannot do it; nothing was changed */
  HEARTH_BUFFER_TOO_SMALL = 3,  /* *n_out says what is needed; nothing was changed */
  HEARTH_NOT_FOUND = 4,         /* a file or device does not exist or cannot be read */
  HEARTH_BAD_MODEL = 5,         /* the file is not a model this plugin can run */
  HEARTH_OUT_OF_MEMORY = 6,     /* RAM or device memory; nothing was changed */
  HEARTH_NO_KV_SPACE = 7,       /* no room in the context for this batch; nothing was changed */
  HEARTH_CANCELLED = 8,         /* the host asked for it */
  HEARTH_FAILED = 9             /* anything else; the context must be destroyed */
};

#define HEARTH_MESSAGE_MAX 512

typedef struct hearth_error {
  uint32_t struct_size;
  char message[HEARTH_MESSAGE_MAX]; /* NUL-terminated; cut at a character border if too long */
} hearth_error_t;

/* Bytes allocated by the plugin. The host gives them back with `bytes_free`, exactly once. */
typedef struct hearth_bytes {
  uint8_t *data; /* null only if len is 0 */
  size_t len;
} hearth_bytes_t;

typedef int32_t hearth_log_level_t;
enum {
  HEARTH_LOG_DEBUG = 0,
  HEARTH_LOG_INFO = 1,
  HEARTH_LOG_WARN = 2,
  HEARTH_LOG_ERROR = 3,
  HEARTH_LOG_HOST_MISBEHAVING = 4 /* the host broke this contract, and the plugin noticed */
};

/* What the host offers. Owned by the host, valid from init until deinit returns. */
typedef struct hearth_host {
  uint32_t struct_size;
  void *host_data; /* the plugin passes it back and never looks inside */

  /* Takes one line of text for the service's log, without a newline. `text` is only read during the call.
   * Prompts and generated text must never be passed here.
   * [host-callback] */
  void (*log)(void *host_data, hearth_log_level_t level, const char *text);
} hearth_host_t;

typedef int32_t hearth_device_kind_t;
enum { HEARTH_DEVICE_CPU = 0, HEARTH_DEVICE_GPU = 1, HEARTH_DEVICE_INTEGRATED_GPU = 2, HEARTH_DEVICE_ACCELERATOR = 3 };

typedef struct hearth_device {
  uint32_t struct_size;
  hearth_device_kind_t kind;
  uint64_t memory_total; /* bytes; 0 when unknown */
  uint64_t memory_free;  /* bytes; 0 when unknown */
  char id[64];           /* stable over restarts of the same machine, e.g. "CPU" or "CUDA0" */
  char name[128];        /* for a person, e.g. "AMD EPYC" */
  char detail[256];      /* what was chosen and why, e.g. "libggml-cpu-zen4.so, best of 14"; may be empty */
} hearth_device_t;

typedef struct hearth_model_params {
  uint32_t struct_size;
  int32_t n_gpu_layers;     /* -1: as many as fit */
  const char *path;         /* of the model's first file */
  bool use_mmap;
  bool use_mlock;
  bool vocab_only;          /* no weights: tokenize works, context_create answers UNSUPPORTED */

  /* Called now and then while opening, with 0.0 to 1.0, never going down. Answering false asks the plugin
   * to stop soon and answer CANCELLED. May be null.
   * [host-callback] */
  bool (*progress)(void *progress_data, float fraction);
  void *progress_data;

  /* Since 1.1. Also open the layers that only guess ahead, for hearth.mtp. A model without any opens all the same. */
  bool with_mtp;
} hearth_model_params_t;

/* Bits of hearth_model_info_t.capabilities. */
#define HEARTH_MODEL_CAN_GENERATE 1u
#define HEARTH_MODEL_CAN_EMBED 2u
#define HEARTH_MODEL_HAS_CHAT_TEMPLATE 4u

typedef struct hearth_model_info {
  uint32_t struct_size;
  uint32_t capabilities;
  uint32_t n_vocab;
  uint32_t n_ctx_train; /* longest text the model was trained on, in tokens */
  uint32_t n_embd;      /* length of one embedding */
  uint32_t n_layer;
  uint64_t n_params;
  uint64_t size_bytes;  /* of the weights as stored */
  hearth_token_t bos_token; /* -1 when the vocabulary has none */
  hearth_token_t eos_token; /* -1 when the vocabulary has none */
  bool add_bos;             /* tokenize with add_special begins with bos_token */
  char architecture[64];    /* e.g. "llama" */
  char description[128];    /* for a person, e.g. "llama 135M Q4_1" */
} hearth_model_info_t;

typedef int32_t hearth_pooling_t;
enum {
  HEARTH_POOLING_NONE = 0, /* one embedding per token */
  HEARTH_POOLING_MODEL = 1, /* what the model's file says; MEAN when it says nothing */
  HEARTH_POOLING_MEAN = 2,
  HEARTH_POOLING_CLS = 3,
  HEARTH_POOLING_LAST = 4
};

typedef int32_t hearth_kv_type_t;
enum { HEARTH_KV_F16 = 0, HEARTH_KV_Q8_0 = 1, HEARTH_KV_Q4_0 = 2, HEARTH_KV_F32 = 3 };

/* Flash attention computes softmax in pieces, without a matrix of all scores. */
typedef int32_t hearth_flash_attention_t;
enum { HEARTH_FLASH_ATTENTION_AUTO = 0, HEARTH_FLASH_ATTENTION_OFF = 1, HEARTH_FLASH_ATTENTION_ON = 2 };

typedef struct hearth_context_params {
  uint32_t struct_size;
  uint32_t n_ctx;       /* KV cells, shared by all sequences */
  uint32_t n_batch;     /* most tokens in one decode */
  uint32_t n_ubatch;    /* most tokens computed at once inside it */
  uint32_t n_seq_max;   /* sequences 0 .. n_seq_max-1 exist, all empty at first */
  uint32_t n_threads;       /* while decoding single tokens; 0: the plugin chooses */
  uint32_t n_threads_batch; /* while decoding prompts; 0: the plugin chooses */
  bool embeddings;          /* this context yields embeddings instead of logits */
  hearth_pooling_t pooling; /* only read when `embeddings` is set */
  hearth_kv_type_t kv_type; /* UNSUPPORTED where the model or its attention cannot have it; never another one in its place */

  /* Since 1.1. AUTO: the plugin chooses, as all older ones do. */
  hearth_flash_attention_t flash_attention;
} hearth_context_params_t;

/* Bits of hearth_context_info_t.memory: what this model's memory can do, told honestly. */
#define HEARTH_MEMORY_CAN_ROLL_BACK 1u /* seq_remove(seq, p0 > 0, -1) works for every p0 */
#define HEARTH_MEMORY_CAN_SHIFT 2u     /* seq_shift works */
#define HEARTH_MEMORY_CAN_COPY_PART 4u /* seq_copy works for less than the whole sequence */
#define HEARTH_MEMORY_CAN_SAVE 8u      /* seq_save and seq_load work */
#define HEARTH_MEMORY_CAN_SAVE_PART 16u /* hearth.parts works */

typedef struct hearth_context_info {
  uint32_t struct_size;
  uint32_t memory;
  uint32_t n_ctx;       /* cells really there; may be more than asked for */
  uint32_t n_ctx_seq;   /* most tokens one sequence may hold */
  uint32_t n_batch;
  uint32_t n_ubatch;
  uint32_t n_seq_max;
  uint32_t n_threads;
  uint64_t memory_bytes; /* this context takes for KV and compute buffers; 0 when unknown */
} hearth_context_info_t;

/* One step of work. Arrays belong to the host and are only read during decode. All have n_tokens
 * entries. A sequence's tokens stand in rising position without a gap, beginning at its length so far. */
typedef struct hearth_batch {
  uint32_t struct_size;
  uint32_t n_tokens; /* 1 .. n_batch */
  const hearth_token_t *tokens;
  const hearth_pos_t *positions;
  const hearth_seq_t *sequences;
  const uint8_t *outputs; /* 1: this entry's logits (or embedding) will be read; 0: not */
} hearth_batch_t;

/* The exported symbol. All pointers are set unless marked optional. */
typedef struct hearth_plugin {
  uint32_t struct_size;
  uint32_t abi_version;    /* HEARTH_ABI_VERSION of the header it was built with */
  const char *name;        /* [a-z0-9-]+, unique among plugins, e.g. "cpu" */
  const char *version;     /* the plugin's own */
  const char *description; /* for a person, one line; names the engine and its version */

  /* Prepares the process for this plugin. Fast (hosts scan): no model, no device memory. If it fails, no
   * other function may be called, deinit included. Matched by one deinit.
   * [main-thread] */
  hearth_status_t (*init)(const hearth_host_t *host, hearth_error_t *error);

  /* Undoes init. All models must be closed. After it returns the host may dlclose.
   * [main-thread & initialised] */
  void (*deinit)(void);

  /* Gives back bytes that a function of this plugin allocated. Null data is fine.
   * [any-thread & initialised] */
  void (*bytes_free)(hearth_bytes_t bytes);

  /* Number of devices this plugin can run on here; 0 is an answer, with the reason in `error->message`.
   * [main-thread & initialised] */
  uint32_t (*device_count)(hearth_error_t *error);

  /* Describes device `index`. Memory figures are measured now.
   * [main-thread & initialised] */
  hearth_status_t (*device_get)(uint32_t index, hearth_device_t *device, hearth_error_t *error);

  /* Opens a model. `params` is only read during the call. On OK the host owns `*model` and closes it with
   * model_close; on any other status `*model` is null and nothing is left behind. A file that is truncated,
   * corrupt or foreign answers BAD_MODEL and must not crash.
   * [main-thread & initialised] */
  hearth_status_t (*model_open)(const hearth_model_params_t *params, hearth_model_t **model, hearth_error_t *error);

  /* Closes it. All its contexts, grammars and adapters must be destroyed before.
   * [main-thread] */
  void (*model_close)(hearth_model_t *model);

  /* Fills `info`, whose struct_size the host has set.
   * [any-thread] */
  hearth_status_t (*model_info)(const hearth_model_t *model, hearth_model_info_t *info, hearth_error_t *error);

  /* Number of metadata entries the model's file carries.
   * [any-thread] */
  uint32_t (*model_meta_count)(const hearth_model_t *model);

  /* Entry `index`. Both strings belong to the plugin and stay valid until model_close.
   * [any-thread] */
  hearth_status_t (*model_meta)(const hearth_model_t *model, uint32_t index, const char **key, const char **value,
                                hearth_error_t *error);

  /* Turns text into tokens. `add_special` adds what the model wants around a text (BOS and the like);
   * `parse_special` reads spelled-out control tokens in the text as such. Writes at most `capacity` tokens; `*n_out`
   * is the number written, or needed when the answer is BUFFER_TOO_SMALL.
   * [any-thread] */
  hearth_status_t (*tokenize)(const hearth_model_t *model, const char *text, size_t text_len, bool add_special,
                              bool parse_special, hearth_token_t *tokens, size_t capacity, size_t *n_out,
                              hearth_error_t *error);

  /* The bytes of one token as they stand inside a text: possibly part of a UTF-8 character, possibly empty.
   * Control tokens yield nothing unless `special`. Not NUL-terminated. `*n_out` as in tokenize.
   * [any-thread] */
  hearth_status_t (*token_piece)(const hearth_model_t *model, hearth_token_t token, bool special, char *buffer,
                                 size_t capacity, size_t *n_out, hearth_error_t *error);

  /* Turns tokens back into the text they came from, undoing what tokenize added at the start (a leading
   * space, say). For tokens in the middle of a text use token_piece. `*n_out` as in tokenize.
   * [any-thread] */
  hearth_status_t (*detokenize)(const hearth_model_t *model, const hearth_token_t *tokens, size_t n_tokens, bool special,
                                char *buffer, size_t capacity, size_t *n_out, hearth_error_t *error);

  /* True if generating this token ends the text. False for a number that is no token.
   * [any-thread] */
  bool (*token_is_end)(const hearth_model_t *model, hearth_token_t token);

  /* Creates KV memory and compute buffers. `params` is only read during the call. On OK the host owns `*context`.
   * Several contexts of one model may exist.
   * [main-thread] */
  hearth_status_t (*context_create)(hearth_model_t *model, const hearth_context_params_t *params,
                                    hearth_context_t **context, hearth_error_t *error);

  /* [engine-thread] */
  void (*context_destroy)(hearth_context_t *context);

  /* [engine-thread] */
  hearth_status_t (*context_info)(const hearth_context_t *context, hearth_context_info_t *info, hearth_error_t *error);

  /* Threads to use from the next decode on. Each at least 1.
   * [engine-thread] */
  hearth_status_t (*set_threads)(hearth_context_t *context, uint32_t n_threads, uint32_t n_threads_batch,
                                 hearth_error_t *error);

  /* Computes a batch and appends its tokens to their sequences. NO_KV_SPACE and INVALID_ARGUMENT leave everything as it
   * was. After CANCELLED the sequences in the batch must be removed. After FAILED the context must be destroyed.
   * [engine-thread] */
  hearth_status_t (*decode)(hearth_context_t *context, const hearth_batch_t *batch, hearth_error_t *error);

  /* Asks a running decode to stop; the next one if none is running is unaffected.
   * [any-thread] */
  void (*decode_abort)(hearth_context_t *context);

  /* Logits for entry `index` of the last decode, which had `outputs[index]` set: n_vocab floats that belong to the
   * plugin. The host may change them in place. Valid until the next call on this context.
   * [engine-thread & decoded & !embeddings] */
  hearth_status_t (*logits)(hearth_context_t *context, uint32_t index, float **logits, hearth_error_t *error);

  /* An embedding of the last decode: with POOLING_NONE of entry `index`, otherwise of the whole sequence `index`.
   * n_embd floats, not normalised, that belong to the plugin. Valid until the next call on this context.
   * [engine-thread & decoded & embeddings] */
  hearth_status_t (*embedding)(hearth_context_t *context, uint32_t index, const float **embedding,
                               hearth_error_t *error);

  /* Forgets positions p0 <= p < p1 of a sequence; p1 = -1 means to the end. Removing all of a sequence always works.
   * UNSUPPORTED when this memory cannot be cut there.
   * [engine-thread] */
  hearth_status_t (*seq_remove)(hearth_context_t *context, hearth_seq_t seq, hearth_pos_t p0, hearth_pos_t p1,
                                hearth_error_t *error);

  /* Makes the empty sequence `to` begin with positions p0 <= p < p1 of `from`, p0 = 0; p1 = -1 means all. Costs no cells
   * where the engine can share them.
   * [engine-thread] */
  hearth_status_t (*seq_copy)(hearth_context_t *context, hearth_seq_t from, hearth_seq_t to, hearth_pos_t p0,
                              hearth_pos_t p1, hearth_error_t *error);

  /* Adds `delta` to positions p0 <= p < p1 of this sequence and of no other. The host removes what would collide before.
   * What is moved must be this sequence's own: positions that seq_copy gave it in common with a sequence that still holds
   * them answer UNSUPPORTED, and everything stays as it was. Common positions below p0 are no obstacle.
   * Rationale: engines count positions by cell, so moving one that is shared moves it for all. The host knows which
   * sequences share it, can let go of those it only keeps, and can otherwise compute the moved part again.
   * [engine-thread] */
  hearth_status_t (*seq_shift)(hearth_context_t *context, hearth_seq_t seq, hearth_pos_t p0, hearth_pos_t p1,
                               hearth_pos_t delta, hearth_error_t *error);

  /* Serialises one sequence's memory. `*n_out` as in tokenize. The bytes are only meant for seq_load of the same plugin
   * version and model.
   * [engine-thread] */
  hearth_status_t (*seq_save)(hearth_context_t *context, hearth_seq_t seq, uint8_t *buffer, size_t capacity,
                              size_t *n_out, hearth_error_t *error);

  /* Replaces the sequence's memory by saved bytes. Damaged bytes answer INVALID_ARGUMENT and leave the sequence
   * empty. Bytes of another model may not be noticed: the host keeps them apart.
   * [engine-thread] */
  hearth_status_t (*seq_load)(hearth_context_t *context, hearth_seq_t seq, const uint8_t *data, size_t len,
                              hearth_error_t *error);

  /* An optional power, null if this plugin does not have it. The struct belongs to the plugin, lives until deinit, and is
   * the one named beside the id below.
   * [any-thread & initialised] */
  const void *(*extension)(const char *id);
} hearth_plugin_t;

/* ---- hearth.chat/1: templates and parsers of chat models ------------------------------------------- */

#define HEARTH_EXT_CHAT "hearth.chat/1"

typedef struct hearth_chat {
  uint32_t struct_size;

  /* Renders messages into a prompt. `request` is a JSON object:
   *   messages      array, as in OpenAI's chat completions (role, content, tool_calls, tool_call_id, reasoning_content)
   *   tools         array, same source; absent: none
   *   tool_choice   "auto" | "required" | "none"; absent: "auto"
   *   parallel_tool_calls  bool: one answer may hold several calls; absent: as the template has it
   *   thinking      bool; absent: true
   *   json_schema   object; absent: none
   *   template      Jinja source instead of the model's own; absent: the model's own, or ChatML if it has none
   *   template_args object of strings for the template; absent: none
   * `*answer` is a JSON object:
   *   prompt        string, to be tokenized with parse_special and without add_special
   *   stops         array of strings that end the answer besides end tokens
   *   plain         bool: the answer is all content; parse may be skipped
   *   parser        string, opaque, for parse
   *   grammar       string, GBNF from the rule `root`; empty: none
   *   grammar_prefix  string: text that the grammar takes before the answer
   *   grammar_thinks  bool: the grammar is of the reasoning too; otherwise it holds for the answer behind that
   *   grammar_lazy  bool: the grammar holds only from a trigger in the answer on, beginning with the trigger's text
   *   triggers      array of {type: "word"|"pattern", value: string}: a text, or a regular expression without look-around,
   *                 whose first group that is not empty is the trigger, or all of it
   *   preserved     array of strings, control tokens that token_piece must spell out for parse to work
   *   thinks        bool: the answer may begin with reasoning
   *   think_start   string, the text before the reasoning; empty: the prompt ends with it, or `thinks` is false
   *   think_ends    array of strings, each of which ends the reasoning; the first is the usual one
   * Tools are offered also where the template knows none; a plugin that cannot do so answers UNSUPPORTED.
   * A template that refuses the messages answers INVALID_ARGUMENT with the template's reason.
   * [any-thread] */
  hearth_status_t (*render)(const hearth_model_t *model, const char *request, size_t request_len, hearth_bytes_t *answer,
                            hearth_error_t *error);

  /* Reads an answer generated after `render`. `parser` is the string from there. `partial` says that the text is not
   * complete. `*message` is a JSON object: content string, reasoning string, tool_calls array of {id, name, arguments (the
   * text of a JSON object, or the start of one in the last call of a text that is not complete)}. An empty id is for the host
   * to fill in. No text is ever lost: what is no whole call in a complete text is content.
   * [any-thread] */
  hearth_status_t (*parse)(const hearth_model_t *model, const char *parser, size_t parser_len, const char *text,
                           size_t text_len, bool partial, hearth_bytes_t *message, hearth_error_t *error);
} hearth_chat_t;

/* ---- hearth.grammar/1: GBNF constraints -------------------------------------------------------------- */

#define HEARTH_EXT_GRAMMAR "hearth.grammar/1"

/* Calls for one grammar come one at a time, from changing threads, also while a context of the model decodes: masks are
 * made beside the step that they are for. */
typedef struct hearth_grammar_ext {
  uint32_t struct_size;

  /* Compiles GBNF text whose start rule is `root`. On OK the host owns `*grammar`. A grammar that does not parse answers
   * INVALID_ARGUMENT.
   * [any-thread] */
  hearth_status_t (*create)(const hearth_model_t *model, const char *text, size_t text_len, const char *root,
                            hearth_grammar_t **grammar, hearth_error_t *error);

  /* [any-thread] */
  void (*destroy)(hearth_grammar_t *grammar);

  /* Sets `logits[i]` to minus infinity where `tokens[i]` may not come next. Tokens need not be sorted or complete.
   * [any-thread] */
  hearth_status_t (*mask)(hearth_grammar_t *grammar, const hearth_token_t *tokens, float *logits, size_t n,
                          hearth_error_t *error);

  /* Takes the token that was chosen. A token that mask would refuse answers INVALID_ARGUMENT.
   * [any-thread] */
  hearth_status_t (*accept)(hearth_grammar_t *grammar, hearth_token_t token, hearth_error_t *error);

  /* Takes text that was not chosen as tokens under this grammar, perhaps cut inside a character. Text that does not fit
   * answers INVALID_ARGUMENT and leaves the grammar as it was.
   * [any-thread] */
  hearth_status_t (*accept_text)(hearth_grammar_t *grammar, const char *text, size_t text_len, hearth_error_t *error);
} hearth_grammar_ext_t;

/* ---- hearth.lora/1: low-rank adapters ---------------------------------------------------------------- */

#define HEARTH_EXT_LORA "hearth.lora/1"

typedef struct hearth_lora {
  uint32_t struct_size;

  /* Reads an adapter for this model. On OK the host owns `*adapter`.
   * [main-thread] */
  hearth_status_t (*open)(hearth_model_t *model, const char *path, hearth_adapter_t **adapter, hearth_error_t *error);

  /* No context may have it attached any more.
   * [main-thread] */
  void (*close)(hearth_adapter_t *adapter);

  /* Replaces the set of adapters this context applies from the next decode on; n = 0 applies none. What is already in
   * the context's memory was computed without them: the host removes it where that matters.
   * [engine-thread] */
  hearth_status_t (*attach)(hearth_context_t *context, hearth_adapter_t *const *adapters, const float *scales, size_t n,
                            hearth_error_t *error);
} hearth_lora_t;

/* ---- hearth.images/1: images in prompts -------------------------------------------------------------- */

/* With an image:  projector_open after model_open; image_create, piece... to lay out the prompt; encode and append for each
 *                 span, where the prompt has it, and decode for the tokens around; image_destroy; projector_close before
 *                 model_close.
 *
 * A span is embeddings in the place of tokens. It takes n_cells cells, and makes its sequence n_positions longer, which may be
 * less: a sequence's length is the position that comes next. The host gives seq_remove, seq_copy and seq_shift no position
 * inside of a span. */
#define HEARTH_EXT_IMAGES "hearth.images/1"

/* A part of an image as the prompt has it: tokens that the model wants around its images, or a span. */
typedef struct hearth_image_piece {
  uint32_t struct_size;
  uint32_t n_cells;             /* tokens, or embeddings of a span; at least 1 */
  uint32_t n_positions;         /* n_cells for tokens, 1 .. n_cells for a span */
  uint32_t n_floats;            /* length of all embeddings of a span together; 0 for tokens */
  const hearth_token_t *tokens; /* null for a span; the image's */
} hearth_image_piece_t;

typedef struct hearth_images {
  uint32_t struct_size;

  /* Opens the file that turns images into embeddings for this model. `n_threads` compute them; 0: the plugin chooses. A file
   * that is none, or is for another model, answers BAD_MODEL and must not crash. On OK the host owns `*projector`.
   * [main-thread] */
  hearth_status_t (*projector_open)(hearth_model_t *model, const char *path, uint32_t n_threads,
                                    hearth_projector_t **projector, hearth_error_t *error);

  /* All its images must be destroyed before.
   * [main-thread] */
  void (*projector_close)(hearth_projector_t *projector);

  /* Cuts and scales an image as the model wants it. `rgb` has width * height pixels of three bytes (red, green, blue), row by
   * row from the top, and is only read during the call. A size that it cannot take answers INVALID_ARGUMENT. The same pixels
   * have the same pieces. On OK the host owns `*image`.
   * [any-thread] */
  hearth_status_t (*image_create)(const hearth_projector_t *projector, const uint8_t *rgb, uint32_t width,
                                  uint32_t height, hearth_image_t **image, hearth_error_t *error);

  /* [any-thread] */
  void (*image_destroy)(hearth_image_t *image);

  /* Number of pieces, at least one of which is a span.
   * [any-thread] */
  uint32_t (*piece_count)(const hearth_image_t *image);

  /* Fills `piece`, whose struct_size the host has set. `tokens` stays valid until image_destroy.
   * [any-thread] */
  hearth_status_t (*piece_get)(const hearth_image_t *image, uint32_t index, hearth_image_piece_t *piece,
                               hearth_error_t *error);

  /* Computes a span's embeddings. `n_floats` is the piece's.
   * [engine-thread, with the projector in the place of a context] */
  hearth_status_t (*encode)(const hearth_image_t *image, uint32_t index, float *embeddings, size_t n_floats,
                            hearth_error_t *error);

  /* Appends a span, whole, to a sequence whose length is `position`. `embeddings` are what encode computed for it. Statuses as
   * for decode, and UNSUPPORTED for a span that this context's n_ubatch has no room for, where the model wants it in one
   * piece. There are no logits to read until the next decode.
   * [engine-thread & !embeddings] */
  hearth_status_t (*append)(hearth_context_t *context, const hearth_image_t *image, uint32_t index,
                            const float *embeddings, size_t n_floats, hearth_seq_t seq, hearth_pos_t position,
                            hearth_error_t *error);
} hearth_images_t;

/* ---- hearth.mtp/1: guesses of a model's own layers for several tokens (multi-token prediction) ------------------ */

#define HEARTH_EXT_MTP "hearth.mtp/1"

typedef struct hearth_mtp {
  uint32_t struct_size;

  /* From now on the context keeps beside each token what guessing needs, which costs time and memory. `*n_most` is the number
   * of tokens in a row that guesses are good for, at least 1. UNSUPPORTED where the model has no such layers, or was
   * opened without them.
   * [engine-thread & !decoded & !embeddings] */
  hearth_status_t (*begin)(hearth_context_t *context, uint32_t *n_most, hearth_error_t *error);

  /* Guesses how `n` different sequences go on behind `tokens[i]`, which was chosen to follow what `sequences[i]` holds and is
   * not decoded yet. Writes `n_guesses` tokens for each, one sequence after the other, and -1 from the place on where it has
   * no guess. A guess may be wrong, and nothing else changes: not the memory, and not the logits of the last decode. What a sequence
   * got by seq_load or seq_copy may be guessed from worse, or for a step not at all.
   * [engine-thread & begun] */
  hearth_status_t (*draft)(hearth_context_t *context, const hearth_seq_t *sequences, const hearth_token_t *tokens,
                           size_t n, size_t n_guesses, hearth_token_t *guesses, hearth_error_t *error);
} hearth_mtp_t;

/* ---- hearth.parts/1: a sequence saved and loaded piece by piece, so that nothing waits long for either --------------- */

#define HEARTH_EXT_PARTS "hearth.parts/1"

typedef struct hearth_parts {
  uint32_t struct_size;

  /* As seq_save, of positions `p0` up to `p1` alone.
   * [engine-thread] */
  hearth_status_t (*save)(hearth_context_t *context, hearth_seq_t seq, hearth_pos_t p0, hearth_pos_t p1, uint8_t *buffer,
                          size_t capacity, size_t *n_out, hearth_error_t *error);

  /* Appends what `save` wrote to a sequence that ends at its `p0`. Damaged bytes, and those of another place, answer
   * INVALID_ARGUMENT. Whatever fails leaves the sequence as it was.
   * [engine-thread] */
  hearth_status_t (*load)(hearth_context_t *context, hearth_seq_t seq, const uint8_t *data, size_t len,
                          hearth_error_t *error);
} hearth_parts_t;

/* ---- hearth.rank/1: how well a text answers a question ------------------------------------------------ */

#define HEARTH_EXT_RANK "hearth.rank/1"

typedef struct hearth_rank {
  uint32_t struct_size;

  /* Turns a question and a text into the tokens that such a model reads of both. With POOLING_MODEL the embedding of that
   * sequence is one number, more of it for a better answer, and so is n_embd 1. UNSUPPORTED if the model is for something
   * else. `*n_out` as in tokenize.
   * [any-thread] */
  hearth_status_t (*tokenize)(const hearth_model_t *model, const char *query, size_t query_len, const char *text,
                              size_t text_len, hearth_token_t *tokens, size_t capacity, size_t *n_out,
                              hearth_error_t *error);
} hearth_rank_t;

/* ---- hearth.quantize/1: smaller weights -------------------------------------------------------------- */

#define HEARTH_EXT_QUANTIZE "hearth.quantize/1"

typedef struct hearth_quantize_params {
  uint32_t struct_size;
  uint32_t n_threads;    /* 0: the plugin chooses */
  const char *input;     /* path of the model's file */
  const char *output;    /* path of the file to write; what it holds is replaced */
  const char *type_name; /* one of those below, letter for letter */
  const char *imatrix;   /* path of an importance matrix for this model; may be null */
  bool requantize;       /* also weights that are quantized already, which loses more than quantizing their source */

  /* Called now and then, with 0.0 to 1.0 of the input's weights, never going down. Answering false asks the plugin to
   * stop soon and answer CANCELLED. May be null.
   * [host-callback] */
  bool (*progress)(void *progress_data, float fraction);
  void *progress_data;
} hearth_quantize_params_t;

typedef struct hearth_quantize {
  uint32_t struct_size;

  /* Name of type `index`, e.g. "Q4_K_M"; null for the first index that no type has, and for all behind it. No two types
   * have one name, and the first can do without an importance matrix. The string belongs to the plugin and lives until deinit.
   * [any-thread] */
  const char *(*type_name)(uint32_t index);

  /* Writes `output`, a model that model_open can open. `params` is only read during the call. An unknown type, a matrix that
   * cannot be used, and a type that needs one where there is none answer INVALID_ARGUMENT; quantized weights without
   * `requantize` answer UNSUPPORTED; an input that cannot be read NOT_FOUND, and one that is no model BAD_MODEL. On any
   * status but OK a part of `output` may have been written, which is the host's to remove. A plugin that aborts on a damaged
   * input keeps the contract: hosts do this in a process of its own.
   * [main-thread & initialised] */
  hearth_status_t (*quantize)(const hearth_quantize_params_t *params, hearth_error_t *error);
} hearth_quantize_t;

/* The one symbol a plugin exports. */
extern HEARTH_EXPORT const hearth_plugin_t hearth_plugin_entry;

#ifdef __cplusplus
}
#endif
#endif
