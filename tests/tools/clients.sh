# shellcheck shell=bash
# Installs the clients that nobody here wrote, and that tests talk to the daemon with; sourced by ./dev.
#
# They lie in the cache: a virtual environment, and in it the folder of npm's packages. What it holds is in its file `installed`,
# which is written last.

# LangChain's core is named so that pip need not search for one that fits.
python_clients=(
    ollama==0.6.3 openai==3.54.0 anthropic==2.12.0
    langchain-core==1.7.2 langchain-ollama==1.1.0 langchain-openai==1.7.3
    schemathesis==4.32.5
)

clients=${cache:?}/clients
export HEARTH_TEST_CLIENTS=$clients

# Checkouts share the cache, and two may come at once.
fetch_clients() (
    mkdir -p "$cache"
    exec 9>"$cache/clients.lock"
    flock 9
    wanted="$(python3 --version) ${python_clients[*]} $(cksum <tests/clients/package-lock.json)"
    [ "$(cat "$clients/installed" 2>/dev/null)" != "$wanted" ] || exit 0
    rm -rf "$clients"
    say "installing ${python_clients[*]} from PyPI into $clients"
    python3 -m venv "$clients"
    # Wheels only: a source package would run its own code.
    "$clients/bin/pip" --disable-pip-version-check install -q --no-cache-dir --only-binary :all: "${python_clients[@]}" >&2 \
        || die 'the clients could not be installed' 'check the connection to PyPI, then run ./dev again'
    say 'installing what tests/clients/package.json names from npm there'
    cp tests/clients/package.json tests/clients/package-lock.json "$clients/"
    npm --prefix "$clients" --loglevel error ci --ignore-scripts --no-audit --no-fund >&2 \
        || die 'the clients could not be installed' 'check the connection to npm, then run ./dev again'
    printf '%s\n' "$wanted" >"$clients/installed"
)
