// Runs calls into llama.cpp that may throw.
#pragma once

#include "engine.h"

#include <exception>

template <typename Body> bool guarded(char * message, Body body) noexcept {
    try {
        body();
        return true;
    } catch (const std::exception & error) {
        hearth_shim_write_message(message, error.what());
    } catch (...) {
        hearth_shim_write_message(message, "unknown exception");
    }
    return false;
}
