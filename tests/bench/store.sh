#!/bin/sh
# How fast the store is: `ctl ls` with 1,000 models, and an import linked and copied. Medians of 20 runs, from exec to exit.
#     ./dev cargo build --release -p hearthd -p hearth-ctl && tests/bench/store.sh MODEL.gguf [FOLDER]
# FOLDER, on the disk to measure, gets a temporary folder that goes away at the end.
set -eu
gguf=$(realpath "$1")
programs=$(realpath "$(dirname "$0")/../../target/release")
dir=$(mktemp -d -p "${2:-/tmp}")
export HEARTH_SOCKET="$dir/sock" PATH="$programs:$PATH"
echo 'more_models = []' > "$dir/hearth.toml"
hearthd --config "$dir/hearth.toml" --socket "$HEARTH_SOCKET" --models "$dir/models" --state-dir "$dir/state" \
    --backends "$dir/none" 2> "$dir/log" &
daemon=$!
trap 'kill $daemon; wait $daemon || true; rm -rf "$dir"' EXIT
until [ -S "$HEARTH_SOCKET" ]; do
    kill -0 $daemon
    sleep 0.1
done

# Milliseconds of 20 runs of the command, each after `before`.
median() {
    what=$1
    shift
    for _ in $(seq 20); do
        before
        start=$(date +%s%N)
        "$@" > /dev/null
        echo $((($(date +%s%N) - start) / 10000))
    done | sort -n | awk -v what="$what" '{ t[NR] = $1 / 100 } END { printf "%-40s %7.2f ms (%.2f to %.2f)\n", what, (t[10] + t[11]) / 2, t[1], t[NR] }'
}

before() { :; }
median "nothing, as a measure of the clock" true
cat "$gguf" > /dev/null
before() { ctl rm m > /dev/null 2>&1 || true; }
median "import, linked" ctl import "$gguf" m --link
median "import, copied" ctl import "$gguf" m --copy
before() { :; }
library="$dir/models/manifests/registry.ollama.ai/library"
for n in $(seq 999); do cp -r "$library/m" "$library/m$n"; done
[ "$(ctl ls --json | tr , '\n' | grep -c '"id"')" = 1000 ]
median "ls, 1,000 models" ctl ls
