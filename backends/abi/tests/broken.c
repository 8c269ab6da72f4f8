/*
 * broken.c - examples/minimal.c with one function replaced by one that breaks a rule; a macro says which.
 *
 * Built by the tests of backends/reference and of the loader, to show that the checks can fail.
 */
#define hearth_plugin_entry minimal_entry
#include "../examples/minimal.c"
#undef hearth_plugin_entry

#if defined(BREAK_NO_ENTRY)
#define hearth_plugin_entry some_other_symbol
#endif

/* Not const, so that the constructor below can change it before anyone looks. */
extern HEARTH_EXPORT hearth_plugin_t hearth_plugin_entry;
hearth_plugin_t hearth_plugin_entry;

#if defined(BREAK_DECODE_POSITIONS)
/* Takes whatever positions the host gives. */
static hearth_status_t broken_decode(hearth_context_t *context, const hearth_batch_t *batch, hearth_error_t *error) {
  hearth_pos_t positions[4096];
  for (uint32_t i = 0; i < batch->n_tokens && i < 4096; i++) {
    hearth_seq_t seq = batch->sequences[i];
    if (!is_sequence(context, seq)) return decode(context, batch, error);
    uint32_t expected = context->lengths[seq];
    for (uint32_t before = 0; before < i; before++) expected += batch->sequences[before] == seq;
    positions[i] = (hearth_pos_t)expected;
  }
  hearth_batch_t patched = *batch;
  patched.positions = positions;
  return decode(context, &patched, error);
}
#define REPLACE hearth_plugin_entry.decode = broken_decode
#elif defined(BREAK_KV_FULL)
/* Takes part of a batch before it notices that there is no room. */
static hearth_status_t broken_decode(hearth_context_t *context, const hearth_batch_t *batch, hearth_error_t *error) {
  hearth_status_t status = decode(context, batch, error);
  if (status == HEARTH_NO_KV_SPACE && context->n_ctx > context->n_used) {
    hearth_seq_t seq = batch->sequences[0];
    row(context, seq)[context->lengths[seq]++] = batch->tokens[0];
    context->n_used++;
  }
  return status;
}
#define REPLACE hearth_plugin_entry.decode = broken_decode
#elif defined(BREAK_LOGITS_ROW)
/* Gives the last row, whichever was asked for. */
static hearth_status_t broken_logits(hearth_context_t *context, uint32_t index, float **out, hearth_error_t *error) {
  hearth_status_t status = logits(context, index, out, error);
  for (uint32_t i = context->n_batch; status == HEARTH_OK && i-- > 0;)
    if (context->has_logits[i]) {
      *out = context->logits + (size_t)i * N_VOCAB;
      break;
    }
  return status;
}
#define REPLACE hearth_plugin_entry.logits = broken_logits
#elif defined(BREAK_SEQ_COPY)
/* Loses the last token. */
static hearth_status_t broken_copy(hearth_context_t *context, hearth_seq_t from, hearth_seq_t to, hearth_pos_t p0,
                                   hearth_pos_t p1, hearth_error_t *error) {
  hearth_status_t status = seq_copy(context, from, to, p0, p1, error);
  if (status == HEARTH_OK && p1 == -1 && context->lengths[to] > 0) row(context, to)[context->lengths[to] - 1] = 0;
  return status;
}
#define REPLACE hearth_plugin_entry.seq_copy = broken_copy
#elif defined(BREAK_SEQ_COPY_PART)
/* Says that it can copy a part, and cannot. */
static hearth_status_t broken_copy(hearth_context_t *context, hearth_seq_t from, hearth_seq_t to, hearth_pos_t p0,
                                   hearth_pos_t p1, hearth_error_t *error) {
  if (p1 != -1) return fail(error, HEARTH_UNSUPPORTED, "only whole sequences can be copied");
  return seq_copy(context, from, to, p0, p1, error);
}
#define REPLACE hearth_plugin_entry.seq_copy = broken_copy
#elif defined(BREAK_REMOVE_LEAK)
/* Forgets to give the cells back. */
static hearth_status_t broken_remove(hearth_context_t *context, hearth_seq_t seq, hearth_pos_t p0, hearth_pos_t p1,
                                     hearth_error_t *error) {
  uint32_t n_used = context->n_used;
  hearth_status_t status = seq_remove(context, seq, p0, p1, error);
  context->n_used = n_used;
  return status;
}
#define REPLACE hearth_plugin_entry.seq_remove = broken_remove
#elif defined(BREAK_TOKENIZE_OVERRUN)
/* Writes one token more than there is room for. */
static hearth_status_t broken_tokenize(const hearth_model_t *model, const char *text, size_t text_len,
                                       bool add_special, bool parse_special, hearth_token_t *tokens, size_t capacity,
                                       size_t *n_out, hearth_error_t *error) {
  size_t room = capacity == text_len - 1 ? capacity + 1 : capacity;
  hearth_status_t status = tokenize(model, text, text_len, add_special, parse_special, tokens, room, n_out, error);
  return room == capacity ? status : fail(error, HEARTH_BUFFER_TOO_SMALL, "no room");
}
#define REPLACE hearth_plugin_entry.tokenize = broken_tokenize
#elif defined(BREAK_TOKENIZE_NUL)
/* Stops at the first NUL, as C programs do. */
static hearth_status_t broken_tokenize(const hearth_model_t *model, const char *text, size_t text_len,
                                       bool add_special, bool parse_special, hearth_token_t *tokens, size_t capacity,
                                       size_t *n_out, hearth_error_t *error) {
  const char *end = text_len > 0 ? memchr(text, 0, text_len) : NULL;
  if (end != NULL) text_len = (size_t)(end - text);
  return tokenize(model, text, text_len, add_special, parse_special, tokens, capacity, n_out, error);
}
#define REPLACE hearth_plugin_entry.tokenize = broken_tokenize
#elif defined(BREAK_MESSAGE)
/* Fails without a word. */
static hearth_status_t broken_open(const hearth_model_params_t *params, hearth_model_t **model,
                                   hearth_error_t *error) {
  hearth_status_t status = model_open(params, model, error);
  error->message[0] = '\0';
  return status;
}
#define REPLACE hearth_plugin_entry.model_open = broken_open
#elif defined(BREAK_OPEN_HANDLE)
/* Leaves the out-parameter as it was when the file is missing. */
static hearth_status_t broken_open(const hearth_model_params_t *params, hearth_model_t **model,
                                   hearth_error_t *error) {
  hearth_model_t *opened = NULL;
  hearth_status_t status = model_open(params, &opened, error);
  if (status != HEARTH_NOT_FOUND) *model = opened;
  return status;
}
#define REPLACE hearth_plugin_entry.model_open = broken_open
#elif defined(BREAK_PROGRESS)
/* Does not listen when the host cancels. */
static bool deaf(void *progress_data, float fraction) {
  const hearth_model_params_t *params = progress_data;
  if (params->progress != NULL) params->progress(params->progress_data, fraction);
  return true;
}
static hearth_status_t broken_open(const hearth_model_params_t *params, hearth_model_t **model,
                                   hearth_error_t *error) {
  hearth_model_params_t patched = *params;
  patched.progress = deaf;
  patched.progress_data = (void *)(uintptr_t)params;
  return model_open(&patched, model, error);
}
#define REPLACE hearth_plugin_entry.model_open = broken_open
#elif defined(BREAK_STRUCT_SIZE)
/* Fills the whole struct, however much of it the host has. */
static hearth_status_t broken_info(const hearth_model_t *model, hearth_model_info_t *info, hearth_error_t *error) {
  hearth_model_info_t whole = {.struct_size = sizeof whole};
  hearth_status_t status = model_info(model, &whole, error);
  uint32_t struct_size = info->struct_size;
  *info = whole;
  info->struct_size = struct_size;
  return status;
}
#define REPLACE hearth_plugin_entry.model_info = broken_info
#elif defined(BREAK_TOKEN_RANGE)
/* Takes any number for a token. */
static hearth_status_t broken_piece(const hearth_model_t *model, hearth_token_t token, bool special, char *buffer,
                                    size_t capacity, size_t *n_out, hearth_error_t *error) {
  return token_piece(model, is_token(token) ? token : 0, special, buffer, capacity, n_out, error);
}
#define REPLACE hearth_plugin_entry.token_piece = broken_piece
#elif defined(BREAK_THREADS)
/* Takes no threads at all. */
static hearth_status_t broken_threads(hearth_context_t *context, uint32_t n, uint32_t n_batch, hearth_error_t *error) {
  return set_threads(context, n == 0 ? 1 : n, n_batch == 0 ? 1 : n_batch, error);
}
#define REPLACE hearth_plugin_entry.set_threads = broken_threads
#elif defined(BREAK_EXTENSION)
/* Has everything, whatever it is. */
static const void *broken_extension(const char *id) {
  (void)id;
  static const uint32_t table[16] = {sizeof table};
  return table;
}
#define REPLACE hearth_plugin_entry.extension = broken_extension
#elif defined(BREAK_BLAME) || defined(BREAK_LOG_LINE)
/* Logs what it should not. */
static const hearth_host_t *the_host;
static hearth_status_t broken_init(const hearth_host_t *host, hearth_error_t *error) {
  the_host = host;
  return init(host, error);
}
static hearth_status_t broken_decode(hearth_context_t *context, const hearth_batch_t *batch, hearth_error_t *error) {
#if defined(BREAK_BLAME)
  if (batch->n_tokens == 1) the_host->log(the_host->host_data, HEARTH_LOG_HOST_MISBEHAVING, "a batch of one");
#else
  the_host->log(the_host->host_data, HEARTH_LOG_DEBUG, "decoding\n");
#endif
  return decode(context, batch, error);
}
#define REPLACE hearth_plugin_entry.init = broken_init, hearth_plugin_entry.decode = broken_decode
#elif defined(BREAK_NAME)
#define REPLACE hearth_plugin_entry.name = "My Plugin"
#elif defined(BREAK_VERSION)
#define REPLACE hearth_plugin_entry.abi_version = HEARTH_ABI_VERSION + (1u << 16)
#elif defined(BREAK_MINOR_VERSION) /* A newer minor version breaks nothing. */
#define REPLACE hearth_plugin_entry.abi_version = HEARTH_ABI_VERSION + 1u
#elif defined(BREAK_SIZE)
#define REPLACE hearth_plugin_entry.struct_size = sizeof(hearth_plugin_t) - sizeof(void *)
#elif defined(BREAK_NULL)
#define REPLACE hearth_plugin_entry.seq_shift = NULL
#elif defined(BREAK_INIT)
static hearth_status_t broken_init(const hearth_host_t *host, hearth_error_t *error) {
  (void)host;
  return fail(error, HEARTH_FAILED, "the driver is too old");
}
#define REPLACE hearth_plugin_entry.init = broken_init
#elif defined(BREAK_NO_ENTRY) || defined(BREAK_NOTHING)
#define REPLACE (void)0
#else
#error "say what to break"
#endif

__attribute__((constructor)) static void break_it(void) {
  hearth_plugin_entry = minimal_entry;
  REPLACE;
}
