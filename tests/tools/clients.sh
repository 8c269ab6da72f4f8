# shellcheck shell=bash
# Installs the clients that nobody here wrote, and that tests talk to the daemon with; sourced by ./dev.
#
# They lie in a virtual environment in the cache. What it holds is in its file `installed`, which is written last.

python_clients=(ollama==0.6.3 openai==3.54.0 anthropic==2.12.0 schemathesis==4.32.5)

clients=${cache:?}/clients
export HEARTH_TEST_CLIENTS=$clients

fetch_clients() {
    [ "$(cat "$clients/installed" 2>/dev/null)" != "${python_clients[*]}" ] || return 0
    say "installing ${python_clients[*]} from PyPI into $clients"
    rm -rf "$clients"
    python3 -m venv "$clients"
    # Wheels only: a source package would run its own code.
    "$clients/bin/pip" --disable-pip-version-check install -q --no-cache-dir --only-binary :all: "${python_clients[@]}" >&2 \
        || die 'the clients could not be installed' 'check the connection to PyPI, then run ./dev again'
    printf '%s\n' "${python_clients[*]}" >"$clients/installed"
}
