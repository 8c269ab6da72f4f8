// CPU modules that are linked into the program, where there are any.

#include "engine.h"

// Weak: a plugin that is a file has its modules beside it, and this is null there.
extern "C" __attribute__((weak)) const hearth_linked_module hearth_linked_modules[];

extern "C" const hearth_linked_module * hearth_shim_linked_modules(void) {
    return hearth_linked_modules;
}
