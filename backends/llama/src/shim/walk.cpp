// See engine.h: what a grammar allows of a whole vocabulary.

#include "engine.h"
#include "guarded.h"
#include "llama-grammar.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

namespace {

// A grammar's states and what leads from one to the other, as far as a walk has come. Characters that no rule tells apart are
// one class, so each state is asked a few dozen times, and not for each of the vocabulary's characters.
class walker {
  public:
    static constexpr uint32_t dead = 0;

    explicit walker(llama_grammar & grammar) : grammar(grammar), stacks(grammar.stacks) {
        std::vector<uint32_t> found = { 0 };
        for (const auto & rule : grammar.rules) {
            for (const auto & element : rule) {
                if (element.type == LLAMA_GRETYPE_CHAR || element.type == LLAMA_GRETYPE_CHAR_NOT ||
                    element.type == LLAMA_GRETYPE_CHAR_ALT || element.type == LLAMA_GRETYPE_CHAR_RNG_UPPER) {
                    found.push_back(element.value);
                    found.push_back(element.value + 1);
                }
            }
        }
        std::sort(found.begin(), found.end());
        found.erase(std::unique(found.begin(), found.end()), found.end());
        borders = std::move(found);
        for (uint32_t chr = 0; chr < n_ascii; ++chr) {
            ascii[chr] = search(chr);
        }
        number({});
        start = number(stacks);
    }

    walker(const walker &)             = delete;
    walker & operator=(const walker &) = delete;

    ~walker() { grammar.stacks = std::move(stacks); }

    uint32_t next(uint32_t state, uint32_t chr) {
        const size_t at = state * borders.size() + (chr < n_ascii ? ascii[chr] : search(chr));
        if (table[at] == unknown) {
            grammar.stacks = *states[state];
            llama_grammar_accept(&grammar, chr);
            const uint32_t found = number(grammar.stacks);
            table[at]            = found;
        }
        return table[at];
    }

    // Where the grammar stands.
    uint32_t start;

  private:
    static constexpr uint32_t unknown = UINT32_MAX;
    static constexpr uint32_t n_ascii = 128;

    // The class of a character is the last border that is not above it.
    uint32_t search(uint32_t chr) const {
        return uint32_t(std::upper_bound(borders.begin(), borders.end(), chr) - borders.begin() - 1);
    }

    uint32_t number(const llama_grammar_stacks & of) {
        const auto [entry, is_new] = numbers.emplace(of, uint32_t(states.size()));
        if (is_new) {
            states.push_back(&entry->first);
            table.resize(states.size() * borders.size(), entry->second == dead ? uint32_t(dead) : uint32_t(unknown));
        }
        return entry->second;
    }

    llama_grammar &                          grammar;
    llama_grammar_stacks                     stacks;
    std::vector<uint32_t>                    borders;
    uint32_t                                 ascii[n_ascii];
    std::map<llama_grammar_stacks, uint32_t> numbers;
    std::vector<const llama_grammar_stacks *> states;
    std::vector<uint32_t>                    table;
};

bool names_tokens(const llama_grammar & grammar) {
    return std::any_of(grammar.rules.begin(), grammar.rules.end(), [](const llama_grammar_rule & rule) {
        return std::any_of(rule.begin(), rule.end(), [](const llama_grammar_element & element) {
            return element.type == LLAMA_GRETYPE_TOKEN || element.type == LLAMA_GRETYPE_TOKEN_NOT;
        });
    });
}

}  // namespace

extern "C" bool hearth_shim_grammar_walk(llama_grammar * grammar, const hearth_shim_branch * branches, size_t n,
                                         const uint32_t * text, bool * may_come, bool * walked, char * message) {
    return guarded(message, [&] {
        *walked = !names_tokens(*grammar);
        // Inside a character no whole one can come.
        if (!*walked || grammar->partial_utf8.n_remain != 0) {
            return;
        }
        walker                walk(*grammar);
        std::vector<uint32_t> states(n);
        for (size_t at = 0; at < n; ++at) {
            const hearth_shim_branch & branch = branches[at];
            uint32_t                   state  = branch.above < 0 ? walk.start : states[size_t(branch.above)];
            for (uint32_t i = 0; i < branch.len && state != walker::dead; ++i) {
                state = walk.next(state, text[branch.begin + i]);
            }
            states[at]             = state;
            may_come[branch.token] = state != walker::dead;
        }
    });
}
