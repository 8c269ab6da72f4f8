/*
 * minimal.c - the smallest plugin that passes `hearthd plugin check`: copy it and put an engine inside.
 *
 *   cc -std=c11 -shared -fPIC -fvisibility=hidden -I../include minimal.c -o libhearth_minimal.so
 *
 * A model is any file that begins with the line "minimal". Tokens are bytes; 256, spelled <end>, ends a text. Logits
 * are a hash of the sequence, so nothing is learned here but the contract. What an engine may leave out is left out:
 * embeddings, shifting, saving, extensions.
 */
#include "hearth_plugin.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_VOCAB = 257, END_TOKEN = 256 };

struct hearth_model {
  uint64_t size_bytes;
};

struct hearth_context {
  uint32_t n_ctx, n_batch, n_ubatch, n_seq_max, n_threads;
  uint32_t n_used;        /* cells, over all sequences */
  uint32_t *lengths;      /* n_seq_max */
  hearth_token_t *tokens; /* n_seq_max rows of n_ctx */
  float *logits;          /* n_batch rows of N_VOCAB */
  uint8_t *has_logits;    /* n_batch, of the last decode */
};

static hearth_status_t fail(hearth_error_t *error, hearth_status_t status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(error->message, HEARTH_MESSAGE_MAX, format, arguments);
  va_end(arguments);
  if (length >= HEARTH_MESSAGE_MAX) {
    /* Cut, perhaps inside a character: drop its continuation bytes and its first byte. */
    char *end = error->message + HEARTH_MESSAGE_MAX - 2;
    while (end > error->message && ((unsigned char)*end & 0xC0) == 0x80) end--;
    if ((unsigned char)*end >= 0xC0) *end = '\0';
  }
  return status;
}

/* Answers how many bytes were copied or are needed, as tokenize and its sisters do. */
static hearth_status_t copy_out(const void *from, size_t n, size_t element_size, void *to, size_t capacity,
                                size_t *n_out, hearth_error_t *error) {
  *n_out = n;
  if (n > capacity) return fail(error, HEARTH_BUFFER_TOO_SMALL, "the answer has %zu elements", n);
  if (n > 0) memcpy(to, from, n * element_size);
  return HEARTH_OK;
}

static hearth_status_t init(const hearth_host_t *host, hearth_error_t *error) {
  if (host->struct_size < sizeof *host) return fail(error, HEARTH_INVALID_ARGUMENT, "the host is too old");
  return HEARTH_OK;
}

static void deinit(void) {}

static void bytes_free(hearth_bytes_t bytes) { free(bytes.data); }

static uint32_t device_count(hearth_error_t *error) {
  (void)error;
  return 1;
}

static hearth_status_t device_get(uint32_t index, hearth_device_t *device, hearth_error_t *error) {
  if (index != 0) return fail(error, HEARTH_INVALID_ARGUMENT, "there is no device `%u`", (unsigned)index);
  if (device->struct_size < sizeof *device) return fail(error, HEARTH_INVALID_ARGUMENT, "the device struct is too short");
  device->kind = HEARTH_DEVICE_CPU;
  device->memory_total = device->memory_free = 0;
  strcpy(device->id, "CPU");
  strcpy(device->name, "any processor");
  strcpy(device->detail, "");
  return HEARTH_OK;
}

static hearth_status_t model_open(const hearth_model_params_t *params, hearth_model_t **model, hearth_error_t *error) {
  *model = NULL;
  FILE *file = fopen(params->path, "rb");
  if (file == NULL) return fail(error, HEARTH_NOT_FOUND, "cannot read `%s`", params->path);
  char line[8] = {0};
  size_t n_read = fread(line, 1, sizeof line, file);
  fclose(file);
  if (n_read < 8 || memcmp(line, "minimal\n", 8) != 0)
    return fail(error, HEARTH_BAD_MODEL, "`%s` is no model of this plugin", params->path);
  for (int percent = 0; percent <= 100; percent += 50)
    if (params->progress != NULL && !params->progress(params->progress_data, (float)percent / 100.0f))
      return fail(error, HEARTH_CANCELLED, "opening was cancelled");
  hearth_model_t *opened = calloc(1, sizeof *opened);
  if (opened == NULL) return fail(error, HEARTH_OUT_OF_MEMORY, "no memory for the model");
  opened->size_bytes = params->vocab_only ? 0 : 8;
  *model = opened;
  return HEARTH_OK;
}

static void model_close(hearth_model_t *model) { free(model); }

static hearth_status_t model_info(const hearth_model_t *model, hearth_model_info_t *info, hearth_error_t *error) {
  if (info->struct_size < sizeof *info) return fail(error, HEARTH_INVALID_ARGUMENT, "the info struct is too short");
  info->capabilities = HEARTH_MODEL_CAN_GENERATE;
  info->n_vocab = N_VOCAB;
  info->n_ctx_train = 4096;
  info->n_embd = 1;
  info->n_layer = 1;
  info->n_params = 0;
  info->size_bytes = model->size_bytes;
  info->bos_token = -1;
  info->eos_token = END_TOKEN;
  info->add_bos = false;
  strcpy(info->architecture, "minimal");
  strcpy(info->description, "minimal example");
  return HEARTH_OK;
}

static uint32_t model_meta_count(const hearth_model_t *model) {
  (void)model;
  return 1;
}

static hearth_status_t model_meta(const hearth_model_t *model, uint32_t index, const char **key, const char **value,
                                  hearth_error_t *error) {
  (void)model;
  if (index != 0) return fail(error, HEARTH_INVALID_ARGUMENT, "there is no metadata entry `%u`", (unsigned)index);
  *key = "general.architecture";
  *value = "minimal";
  return HEARTH_OK;
}

static hearth_status_t tokenize(const hearth_model_t *model, const char *text, size_t text_len, bool add_special,
                                bool parse_special, hearth_token_t *tokens, size_t capacity, size_t *n_out,
                                hearth_error_t *error) {
  (void)model, (void)add_special;
  size_t n = 0;
  for (size_t i = 0; i < text_len; n++) {
    bool is_end = parse_special && text_len - i >= 5 && memcmp(text + i, "<end>", 5) == 0;
    if (n < capacity) tokens[n] = is_end ? END_TOKEN : (unsigned char)text[i];
    i += is_end ? 5 : 1;
  }
  *n_out = n;
  return n <= capacity ? HEARTH_OK : fail(error, HEARTH_BUFFER_TOO_SMALL, "the text has %zu tokens", n);
}

static bool is_token(hearth_token_t token) { return token >= 0 && token < N_VOCAB; }

static hearth_status_t token_piece(const hearth_model_t *model, hearth_token_t token, bool special, char *buffer,
                                   size_t capacity, size_t *n_out, hearth_error_t *error) {
  (void)model;
  if (!is_token(token)) return fail(error, HEARTH_INVALID_ARGUMENT, "`%d` is no token", (int)token);
  if (token == END_TOKEN) return copy_out("<end>", special ? 5 : 0, 1, buffer, capacity, n_out, error);
  char byte = (char)token;
  return copy_out(&byte, 1, 1, buffer, capacity, n_out, error);
}

static hearth_status_t detokenize(const hearth_model_t *model, const hearth_token_t *tokens, size_t n_tokens,
                                  bool special, char *buffer, size_t capacity, size_t *n_out, hearth_error_t *error) {
  size_t needed = 0;
  for (size_t i = 0; i < n_tokens; i++) {
    char piece[8];
    size_t length = 0;
    hearth_status_t status = token_piece(model, tokens[i], special, piece, sizeof piece, &length, error);
    if (status != HEARTH_OK) return status;
    if (needed + length <= capacity) memcpy(buffer + needed, piece, length);
    needed += length;
  }
  *n_out = needed;
  return needed <= capacity ? HEARTH_OK : fail(error, HEARTH_BUFFER_TOO_SMALL, "the text has %zu bytes", needed);
}

static bool token_is_end(const hearth_model_t *model, hearth_token_t token) {
  (void)model;
  return token == END_TOKEN;
}

static void context_destroy(hearth_context_t *context) {
  if (context == NULL) return;
  free(context->lengths);
  free(context->tokens);
  free(context->logits);
  free(context->has_logits);
  free(context);
}

static hearth_status_t context_create(hearth_model_t *model, const hearth_context_params_t *params,
                                      hearth_context_t **context, hearth_error_t *error) {
  *context = NULL;
  if (model->size_bytes == 0) return fail(error, HEARTH_UNSUPPORTED, "the model was opened for its vocabulary alone");
  if (params->embeddings) return fail(error, HEARTH_UNSUPPORTED, "this plugin makes no embeddings");
  hearth_context_t *created = calloc(1, sizeof *created);
  if (created == NULL) return fail(error, HEARTH_OUT_OF_MEMORY, "no memory for the context");
  created->n_ctx = params->n_ctx;
  created->n_batch = params->n_batch;
  created->n_ubatch = params->n_ubatch < params->n_batch ? params->n_ubatch : params->n_batch;
  created->n_seq_max = params->n_seq_max;
  created->n_threads = 1;
  created->lengths = calloc(params->n_seq_max, sizeof *created->lengths);
  created->tokens = calloc((size_t)params->n_seq_max * params->n_ctx, sizeof *created->tokens);
  created->logits = calloc((size_t)params->n_batch * N_VOCAB, sizeof *created->logits);
  created->has_logits = calloc(params->n_batch, 1);
  if (!created->lengths || !created->tokens || !created->logits || !created->has_logits) {
    context_destroy(created);
    return fail(error, HEARTH_OUT_OF_MEMORY, "no memory for `%u` cells", (unsigned)params->n_ctx);
  }
  *context = created;
  return HEARTH_OK;
}

static hearth_status_t context_info(const hearth_context_t *context, hearth_context_info_t *info,
                                    hearth_error_t *error) {
  if (info->struct_size < sizeof *info) return fail(error, HEARTH_INVALID_ARGUMENT, "the info struct is too short");
  info->memory = HEARTH_MEMORY_CAN_ROLL_BACK | HEARTH_MEMORY_CAN_COPY_PART;
  info->n_ctx = info->n_ctx_seq = context->n_ctx;
  info->n_batch = context->n_batch;
  info->n_ubatch = context->n_ubatch;
  info->n_seq_max = context->n_seq_max;
  info->n_threads = context->n_threads;
  info->memory_bytes = 0;
  return HEARTH_OK;
}

static hearth_status_t set_threads(hearth_context_t *context, uint32_t n_threads, uint32_t n_threads_batch,
                                   hearth_error_t *error) {
  if (n_threads == 0 || n_threads_batch == 0) return fail(error, HEARTH_INVALID_ARGUMENT, "thread counts begin at 1");
  context->n_threads = n_threads;
  return HEARTH_OK;
}

static bool is_sequence(const hearth_context_t *context, hearth_seq_t seq) {
  return seq >= 0 && (uint32_t)seq < context->n_seq_max;
}

static hearth_token_t *row(hearth_context_t *context, hearth_seq_t seq) {
  return context->tokens + (size_t)seq * context->n_ctx;
}

/* The "model": every logit depends on every token of the sequence. */
static void compute_logits(hearth_context_t *context, hearth_seq_t seq, float *logits) {
  uint32_t hash = 2166136261u;
  for (uint32_t i = 0; i < context->lengths[seq]; i++) hash = (hash ^ (uint32_t)row(context, seq)[i]) * 16777619u;
  for (uint32_t token = 0; token < N_VOCAB; token++) {
    uint32_t mixed = (hash ^ token) * 2654435761u;
    mixed = (mixed ^ (mixed >> 15)) * 2246822519u;
    logits[token] = (float)(mixed >> 16) / 8192.0f;
  }
}

/* Everything is checked before anything is changed, so that a refused batch leaves no trace. */
static hearth_status_t check_batch(const hearth_context_t *context, const hearth_batch_t *batch,
                                   hearth_error_t *error) {
  if (batch->n_tokens == 0 || batch->n_tokens > context->n_batch)
    return fail(error, HEARTH_INVALID_ARGUMENT, "a batch has 1 to %u tokens", (unsigned)context->n_batch);
  for (uint32_t i = 0; i < batch->n_tokens; i++) {
    hearth_seq_t seq = batch->sequences[i];
    if (!is_sequence(context, seq)) return fail(error, HEARTH_INVALID_ARGUMENT, "there is no sequence `%d`", (int)seq);
    if (!is_token(batch->tokens[i])) return fail(error, HEARTH_INVALID_ARGUMENT, "entry `%u` is no token", (unsigned)i);
    uint32_t expected = context->lengths[seq];
    for (uint32_t before = 0; before < i; before++) expected += batch->sequences[before] == seq;
    if (batch->positions[i] != (hearth_pos_t)expected)
      return fail(error, HEARTH_INVALID_ARGUMENT, "entry `%u` is not the next of its sequence", (unsigned)i);
  }
  if (batch->n_tokens > context->n_ctx - context->n_used)
    return fail(error, HEARTH_NO_KV_SPACE, "`%u` cells are free", (unsigned)(context->n_ctx - context->n_used));
  return HEARTH_OK;
}

static hearth_status_t decode(hearth_context_t *context, const hearth_batch_t *batch, hearth_error_t *error) {
  hearth_status_t status = check_batch(context, batch, error);
  if (status != HEARTH_OK) return status;
  memset(context->has_logits, 0, context->n_batch);
  for (uint32_t i = 0; i < batch->n_tokens; i++) {
    hearth_seq_t seq = batch->sequences[i];
    row(context, seq)[context->lengths[seq]++] = batch->tokens[i];
    context->n_used++;
    context->has_logits[i] = batch->outputs[i];
    if (batch->outputs[i]) compute_logits(context, seq, context->logits + (size_t)i * N_VOCAB);
  }
  return HEARTH_OK;
}

/* A decode here is over before anyone could ask for its end. */
static void decode_abort(hearth_context_t *context) { (void)context; }

static hearth_status_t logits(hearth_context_t *context, uint32_t index, float **out, hearth_error_t *error) {
  if (index >= context->n_batch || !context->has_logits[index])
    return fail(error, HEARTH_INVALID_ARGUMENT, "entry `%u` has no logits", (unsigned)index);
  *out = context->logits + (size_t)index * N_VOCAB;
  return HEARTH_OK;
}

static hearth_status_t embedding(hearth_context_t *context, uint32_t index, const float **out, hearth_error_t *error) {
  (void)context, (void)index, (void)out;
  return fail(error, HEARTH_INVALID_ARGUMENT, "this context makes no embeddings");
}

static hearth_status_t seq_remove(hearth_context_t *context, hearth_seq_t seq, hearth_pos_t p0, hearth_pos_t p1,
                                  hearth_error_t *error) {
  if (!is_sequence(context, seq)) return fail(error, HEARTH_INVALID_ARGUMENT, "there is no sequence `%d`", (int)seq);
  hearth_pos_t length = (hearth_pos_t)context->lengths[seq];
  if (p0 < 0 || (p1 != -1 && p1 < p0)) return fail(error, HEARTH_INVALID_ARGUMENT, "this is no range of positions");
  if (p0 >= length || p0 == p1) return HEARTH_OK;
  if (p1 != -1 && p1 < length) return fail(error, HEARTH_UNSUPPORTED, "only the end of a sequence can be removed");
  context->n_used -= (uint32_t)(length - p0);
  context->lengths[seq] = (uint32_t)p0;
  return HEARTH_OK;
}

static hearth_status_t seq_copy(hearth_context_t *context, hearth_seq_t from, hearth_seq_t to, hearth_pos_t p0,
                                hearth_pos_t p1, hearth_error_t *error) {
  if (!is_sequence(context, from) || !is_sequence(context, to) || context->lengths[to] != 0 || p0 != 0 || p1 < -1 ||
      p1 > (hearth_pos_t)context->lengths[from])
    return fail(error, HEARTH_INVALID_ARGUMENT, "this is no copy from a sequence's start to an empty sequence");
  uint32_t n = p1 == -1 ? context->lengths[from] : (uint32_t)p1;
  if (n > context->n_ctx - context->n_used) return fail(error, HEARTH_NO_KV_SPACE, "no room for a copy");
  memcpy(row(context, to), row(context, from), n * sizeof(hearth_token_t));
  context->lengths[to] = n;
  context->n_used += n;
  return HEARTH_OK;
}

static hearth_status_t seq_shift(hearth_context_t *context, hearth_seq_t seq, hearth_pos_t p0, hearth_pos_t p1,
                                 hearth_pos_t delta, hearth_error_t *error) {
  (void)context, (void)seq, (void)p0, (void)p1, (void)delta;
  return fail(error, HEARTH_UNSUPPORTED, "this memory cannot be shifted");
}

static hearth_status_t seq_save(hearth_context_t *context, hearth_seq_t seq, uint8_t *buffer, size_t capacity,
                                size_t *n_out, hearth_error_t *error) {
  (void)context, (void)seq, (void)buffer, (void)capacity, (void)n_out;
  return fail(error, HEARTH_UNSUPPORTED, "this memory cannot be saved");
}

static hearth_status_t seq_load(hearth_context_t *context, hearth_seq_t seq, const uint8_t *data, size_t len,
                                hearth_error_t *error) {
  (void)context, (void)seq, (void)data, (void)len;
  return fail(error, HEARTH_UNSUPPORTED, "this memory cannot be saved");
}

static const void *extension(const char *id) {
  (void)id;
  return NULL;
}

HEARTH_EXPORT const hearth_plugin_t hearth_plugin_entry = {
    .struct_size = sizeof(hearth_plugin_t),
    .abi_version = HEARTH_ABI_VERSION,
    .name = "minimal",
    .version = "1.0.0",
    .description = "the smallest plugin, without an engine",
    .init = init,
    .deinit = deinit,
    .bytes_free = bytes_free,
    .device_count = device_count,
    .device_get = device_get,
    .model_open = model_open,
    .model_close = model_close,
    .model_info = model_info,
    .model_meta_count = model_meta_count,
    .model_meta = model_meta,
    .tokenize = tokenize,
    .token_piece = token_piece,
    .detokenize = detokenize,
    .token_is_end = token_is_end,
    .context_create = context_create,
    .context_destroy = context_destroy,
    .context_info = context_info,
    .set_threads = set_threads,
    .decode = decode,
    .decode_abort = decode_abort,
    .logits = logits,
    .embedding = embedding,
    .seq_remove = seq_remove,
    .seq_copy = seq_copy,
    .seq_shift = seq_shift,
    .seq_save = seq_save,
    .seq_load = seq_load,
    .extension = extension,
};
