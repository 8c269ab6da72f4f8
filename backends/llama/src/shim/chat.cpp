// See chat.h. `common/chat.h` is llama.cpp's; this file only moves its structs into JSON and back.

#include "common/chat.h"

#include "chat.h"
#include "common/common.h"
#include "common/json-schema-to-grammar.h"
#include "common/json.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <list>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <utility>

using templates_ptr = std::shared_ptr<common_chat_templates>;
using parser_ptr    = std::shared_ptr<const common_chat_parser_params>;

// The entries last used, by their source text. Entries stay alive for whoever still holds the pointer.
template <typename Value> class recent {
  public:
    template <typename Make> Value get(const std::string & key, Make make) {
        {
            std::lock_guard<std::mutex> lock(mutex);
            for (auto it = entries.begin(); it != entries.end(); ++it) {
                if (it->first == key) {
                    entries.splice(entries.begin(), entries, it);
                    return entries.front().second;
                }
            }
        }
        Value value = make();
        std::lock_guard<std::mutex> lock(mutex);
        entries.emplace_front(key, value);
        if (entries.size() > max_entries) {
            entries.pop_back();
        }
        return value;
    }

  private:
    // A stream in flight needs one parser; more streams than this reload theirs, which costs time and nothing else.
    static constexpr size_t max_entries = 64;

    std::mutex                               mutex;
    std::list<std::pair<std::string, Value>> entries;
};

struct hearth_shim_chat {
    const llama_model *   model;
    recent<templates_ptr> templates;
    recent<parser_ptr>    parsers;
};

static templates_ptr templates_for(hearth_shim_chat * chat, const std::string & source) {
    return chat->templates.get(source, [&] {
        if (!source.empty()) {
            // Parsed once more on its own, because common_chat_templates_init slices the exception and so loses its text.
            common_chat_template(source, "", "");
        }
        return templates_ptr(common_chat_templates_init(chat->model, source).release(), common_chat_templates_deleter());
    });
}

static parser_ptr parser_for(hearth_shim_chat * chat, const std::string & text) {
    return chat->parsers.get(text, [&] {
        const common_json source         = common_json::parse(text);
        auto              params         = std::make_shared<common_chat_parser_params>();
        params->format                   = static_cast<common_chat_format>(source.at("format").get<int>());
        params->generation_prompt        = source.at("generation_prompt").get<std::string>();
        params->reasoning_format         = COMMON_REASONING_FORMAT_DEEPSEEK;
        const std::string parser         = source.at("parser").get<std::string>();
        if (!parser.empty()) {
            params->parser.load(parser);
        }
        return parser_ptr(params);
    });
}

static common_chat_templates_inputs inputs_from(const common_json & request) {
    common_chat_templates_inputs inputs;
    inputs.messages            = common_chat_msgs_parse_oaicompat(request.at("messages"));
    inputs.tools               = common_chat_tools_parse_oaicompat(request.value("tools", common_json()));
    inputs.tool_choice         = common_chat_tool_choice_parse_oaicompat(request.value("tool_choice", "auto"));
    inputs.parallel_tool_calls = request.value("parallel_tool_calls", false);
    inputs.enable_thinking     = request.value("thinking", true);
    inputs.reasoning_format    = COMMON_REASONING_FORMAT_DEEPSEEK;
    const common_json schema   = request.value("json_schema", common_json());
    if (!schema.is_null()) {
        inputs.json_schema = schema.dump();
    }
    const common_json args = request.value("template_args", common_json());
    if (args.is_object()) {
        for (const auto & [name, value] : args.items()) {
            inputs.chat_template_kwargs[name] = value.dump();
        }
    }
    return inputs;
}

// llama.cpp takes the BOS text away where its callers tokenize with `add_special`; ours do not.
static std::string with_bos(const llama_vocab * vocab, std::string prompt) {
    const llama_token bos = llama_vocab_bos(vocab);
    if (bos == LLAMA_TOKEN_NULL || !llama_vocab_get_add_bos(vocab)) {
        return prompt;
    }
    const std::string text = common_token_to_piece(vocab, bos, true);
    return prompt.compare(0, text.size(), text) == 0 ? prompt : text + prompt;
}

static common_json trigger_json(const llama_vocab * vocab, const common_chat_params & params,
                                const common_grammar_trigger & trigger) {
    static const char * const names[] = { "token", "word", "pattern", "pattern_full" };
    std::string type  = names[trigger.type];
    llama_token token = trigger.token;
    const auto & kept = params.preserved_tokens;
    if (trigger.type == COMMON_GRAMMAR_TRIGGER_TYPE_WORD && std::count(kept.begin(), kept.end(), trigger.value) > 0) {
        // A word that is one control token never shows up in the text, so it has to be recognised as a token.
        const auto tokens = common_tokenize(vocab, trigger.value, false, true);
        if (tokens.size() == 1) {
            type  = "token";
            token = tokens[0];
        }
    }
    return common_json::object({ { "type", type }, { "value", trigger.value }, { "token", token } });
}

// True if the parser hands every text on as content, tried on one that has a little of every markup.
static bool is_plain(const common_chat_parser_params & params) {
    static const std::string probe =
        "\n {\"name\": \"f\", \"arguments\": {}} <think>a</think> [THINK]b[/THINK] <|channel|>final<|message|>c >>>all\nd "
        "<tool_call>{}</tool_call> [TOOL_CALLS][] <|tool_call|> e \n";
    try {
        for (const bool partial : { true, false }) {
            for (const std::string & text : { probe, probe.substr(2), ">>>all\n" + probe, "<|channel|>x" + probe }) {
                const common_chat_msg message = common_chat_parse(text, partial, params);
                if (message.content != text || !message.reasoning_content.empty() || !message.tool_calls.empty()) {
                    return false;
                }
            }
        }
        return true;
    } catch (const std::exception &) {
        return false;
    }
}

// A template that knows no tools leaves them out without a word.
static bool offers_tools(const common_chat_templates * templates, const common_chat_templates_inputs & inputs,
                         const common_chat_params & params) {
    if (inputs.tools.empty() || inputs.tool_choice == COMMON_CHAT_TOOL_CHOICE_NONE) {
        return false;
    }
    auto caps = common_chat_templates_get_caps(templates);
    return caps["supports_tools"] || caps["supports_tool_calls"] || !params.grammar.empty();
}

// Some templates begin the reasoning themselves, and others begin and end it when none is wanted.
static bool ends_inside(const std::string & prompt, const std::string & start, const std::vector<std::string> & ends) {
    const size_t begun = start.empty() ? std::string::npos : prompt.rfind(start);
    return begun != std::string::npos && std::none_of(ends.begin(), ends.end(), [&](const std::string & end) {
        return prompt.find(end, begun) != std::string::npos;
    });
}

static std::string render(hearth_shim_chat * chat, const std::string & text) {
    const common_json        request   = common_json::parse(text);
    const templates_ptr      templates = templates_for(chat, request.value("template", ""));
    const auto               inputs    = inputs_from(request);
    const llama_vocab *      vocab     = llama_model_get_vocab(chat->model);
    const common_chat_params params    = common_chat_templates_apply(templates.get(), inputs);

    const std::string parser = common_json::object({
                                   { "format", static_cast<int>(params.format) },
                                   { "generation_prompt", params.generation_prompt },
                                   { "parser", params.parser },
                               }).dump_safe();
    std::string grammar = params.grammar;
    if (grammar.empty() && !inputs.json_schema.empty()) {
        grammar = json_schema_to_grammar(common_json::parse(inputs.json_schema), true);
    } else if (!grammar.empty() && !params.grammar_lazy && !params.generation_prompt.empty()) {
        // Such a grammar begins with the end of the prompt; hearth_shim_grammar_new skips it.
        grammar = HEARTH_SHIM_GRAMMAR_SKIP + common_json::make(params.generation_prompt).dump_safe() + "\n" + grammar;
    }
    common_json triggers = common_json::array();
    for (const auto & trigger : params.grammar_triggers) {
        triggers.push_back(trigger_json(vocab, params, trigger));
    }
    const bool plain = inputs.tools.empty() && !params.supports_thinking && is_plain(*parser_for(chat, parser));
    const bool thinks  = params.supports_thinking && inputs.enable_thinking && !params.thinking_end_tags.empty();
    const bool is_open = ends_inside(params.prompt, params.thinking_start_tag, params.thinking_end_tags);
    return common_json::object({
               { "prompt", with_bos(vocab, params.prompt) },
               { "stops", params.additional_stops },
               { "plain", plain },
               { "parser", parser },
               { "grammar", grammar },
               { "grammar_lazy", params.grammar_lazy },
               { "triggers", triggers },
               { "preserved", params.preserved_tokens },
               { "thinks", thinks },
               { "think_start", is_open ? "" : params.thinking_start_tag },
               { "think_ends", params.thinking_end_tags },
               { "tools", offers_tools(templates.get(), inputs, params) },
           }).dump_safe();
}

static std::string parse(hearth_shim_chat * chat, const std::string & parser, const std::string & text, bool partial) {
    const parser_ptr params = parser_for(chat, parser);
    common_chat_msg  message;
    try {
        message = common_chat_parse(text, partial, *params);
    } catch (const std::exception &) {
        // What cannot be read as the model's format is content: no text is ever lost.
        message.content = text;
    }
    common_json calls = common_json::array();
    for (const auto & call : message.tool_calls) {
        calls.push_back({ { "id", call.id }, { "name", call.name }, { "arguments", call.arguments } });
    }
    return common_json::object({
               { "content", message.content },
               { "reasoning", message.reasoning_content },
               { "tool_calls", calls },
           }).dump_safe();
}

template <typename Body> static bool answered(char ** answer, size_t * answer_len, char * message, Body body) noexcept {
    try {
        const std::string text  = body();
        char *            bytes = static_cast<char *>(std::malloc(text.size() + 1));
        if (bytes == nullptr) {
            throw std::bad_alloc();
        }
        std::memcpy(bytes, text.data(), text.size());
        *answer     = bytes;
        *answer_len = text.size();
        return true;
    } catch (const std::exception & error) {
        // A template's own words stand behind a trace of the interpreter.
        static const char own_words[] = "Jinja Exception: ";
        const char *      words       = std::strstr(error.what(), own_words);
        hearth_shim_write_message(message, words == nullptr ? error.what() : words + sizeof(own_words) - 1);
    } catch (...) {
        hearth_shim_write_message(message, "unknown exception");
    }
    return false;
}

extern "C" {

hearth_shim_chat * hearth_shim_chat_new(const llama_model * model) {
    auto * chat = new (std::nothrow) hearth_shim_chat;
    if (chat != nullptr) {
        chat->model = model;
    }
    return chat;
}

void hearth_shim_chat_free(hearth_shim_chat * chat) {
    delete chat;
}

bool hearth_shim_chat_render(hearth_shim_chat * chat, const char * request, size_t request_len, char ** answer,
                             size_t * answer_len, char * message) {
    return answered(answer, answer_len, message, [&] { return render(chat, std::string(request, request_len)); });
}

bool hearth_shim_chat_parse(hearth_shim_chat * chat, const char * parser, size_t parser_len, const char * text,
                            size_t text_len, bool partial, char ** answer, size_t * answer_len, char * message) {
    return answered(answer, answer_len, message, [&] {
        return parse(chat, std::string(parser, parser_len), std::string(text, text_len), partial);
    });
}

void hearth_shim_bytes_free(char * bytes) {
    std::free(bytes);
}
}
