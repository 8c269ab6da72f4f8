# shellcheck shell=bash
# Builds, and stages the plugins where a daemon loads them from; sourced by ./dev.
#
# target/backends holds the llama.cpp plugins with their engine (libllama, ggml and its CPU modules),
# target/backends-reference the reference plugin. Debug and release daemons both use them.
#
# All checkouts share the build folder in the cache, and in it what is not theirs: llama.cpp and the other
# dependencies.

export CARGO_BUILD_BUILD_DIR=${cache:?}/build CARGO_TARGET_DIR=${root:?}/target
export RUSTC_WORKSPACE_WRAPPER=$root/tests/tools/rustc
# Clippy is such a wrapper itself, the same for all checkouts, but it looks at its arguments.
# shellcheck disable=SC2034 # ./dev uses them.
lint_args=(-D warnings --cfg "checkout_$(printf %s "$root" | cksum | cut -d ' ' -f 1)")
unset CARGO_BUILD_TARGET
plugins=$root/target/backends
reference_plugins=$root/target/backends-reference
export HEARTH_TEST_BACKENDS=$plugins HEARTH_TEST_REFERENCE=$reference_plugins
HEARTH_TEST_SMOLLM2=$(model_file smollm2)
HEARTH_TEST_GEMMA3=$(model_file gemma3)
HEARTH_TEST_MINILM=$(model_file minilm)
export HEARTH_TEST_SMOLLM2 HEARTH_TEST_GEMMA3 HEARTH_TEST_MINILM

locked=()
if [ "${CI:-}" = true ]; then
    locked=(--locked)
    export CARGO_INCREMENTAL=0
fi

# The stamp is as old as the start of the last release build: a source or a folder newer than it may
# not be in that build.
stamp=target/dev/built
release_is_fresh() {
    [ -e "$stamp" ] && [ -x target/release/hearthd ] && [ -x target/release/ctl ] && [ -e "$plugins/libhearth_cpu.so" ] \
        && [ -z "$(find dev tests/tools Cargo.toml Cargo.lock .cargo backends ctl daemon -newer "$stamp" -print -quit)" ]
}

build_release() {
    mkdir -p target/dev
    touch "$stamp.new"
    build_plugins
    say 'building the daemon and ctl'
    cargo build "${locked[@]}" --release -p hearthd -p hearth-ctl
    mv "$stamp.new" "$stamp"
}

build_plugins() {
    local messages engine library libraries modules
    if ! compgen -G "$CARGO_BUILD_BUILD_DIR/release/build/llama-cpp-sys-2-*/out/lib/libllama.so" >/dev/null; then
        say 'building llama.cpp: about 10 minutes on 2 cores, once'
    fi
    # Crates of checkouts that are no longer built.
    find "$CARGO_BUILD_BUILD_DIR" -mindepth 3 -maxdepth 3 \( -name 'hearth*' -o -name 'libhearth*' -o -name 'ctl-*' \) \
        -mtime +30 -exec rm -rf {} + 2>/dev/null || true
    # llama-cpp-sys-2 hangs links to its libraries into the build folder, and stops at one that leads nowhere any more.
    [ ! -d "$CARGO_BUILD_BUILD_DIR/release" ] \
        || find "$CARGO_BUILD_BUILD_DIR/release" -maxdepth 2 -name 'lib*.so*' -xtype l -delete
    # Alone: with other packages beside it cargo would unite the features of the build scripts' own
    # dependencies, see a new llama-cpp-sys-2 in that, and compile llama.cpp a second time.
    messages=$(cargo build "${locked[@]}" --release -p hearth-cpu --message-format=json-render-diagnostics)
    engine=$(sed -n \
        's/^{"reason":"build-script-executed","package_id":"[^"]*#llama-cpp-sys-2@.*"out_dir":"\([^"]*\)".*/\1/p' <<<"$messages")
    [ -d "$engine/backends" ] || die "cargo did not say where it built llama.cpp (\`$engine\`)"
    mkdir -p "$CARGO_TARGET_DIR/dev"
    printf '%s\n' "$engine" >"$CARGO_TARGET_DIR/dev/engine"

    modules=("$engine"/backends/libggml-*.so)
    mapfile -t libraries < <(engine_libraries "$engine/lib" "$CARGO_TARGET_DIR/release/libhearth_cpu.so" "${modules[@]}" | sort -u)
    stage "$plugins" "${libraries[@]}" "${modules[@]}" "$CARGO_TARGET_DIR/release/libhearth_cpu.so"
    for library in "$plugins"/*; do
        readelf -d "$library" | grep -q 'PATH.*\[[$]ORIGIN[]:]' || die "\`$library\` does not look for its libraries beside it" \
            "its RUNPATH must be \$ORIGIN: see CMAKE_INSTALL_RPATH in .cargo/config.toml and backends/cpu/build.rs"
    done
}

# Of the plugin as a static library, and of llama.cpp's objects of the same build.
build_onefile() {
    local texts=$CARGO_TARGET_DIR/dev/licences.gz
    ensure_tools build licences
    build_plugins
    # With those of the libraries that only a static program has in it.
    { licences hearth hearth-cpu && cat packaging/onefile/libraries.txt packaging/onefile/lgpl-2.1.txt LICENSE; } \
        | gzip -9n >"$texts.new"
    cmp -s "$texts.new" "$texts" || mv "$texts.new" "$texts"
    # Without a dynamic linker, `getrandom` is not found by its name. Packed relocations take a C library of 2.36 or later.
    HEARTH_LINKED_PLUGIN=$CARGO_TARGET_DIR/release/libhearth_cpu.a HEARTH_LINKED_ENGINE=$(cat "$CARGO_TARGET_DIR/dev/engine") \
        HEARTH_LINKED_LICENCES=$texts RUSTFLAGS="${RUSTFLAGS:-} --cfg getrandom_backend=\"linux_getrandom\"" \
        cargo rustc "${locked[@]}" --profile onefile -p hearth --bin hearth -- -C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs
}

build_test_programs() {
    # With the tests themselves: without them the dependencies have fewer features, and many crates are built twice.
    cargo build "${locked[@]}" --all-targets
    stage "$reference_plugins" target/debug/libhearth_reference.so
}

# What can be told of macOS without one: that our Rust compiles for it. The C of dependencies is not looked at.
lint_for_macos() {
    local target=aarch64-apple-darwin
    [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ] || rustup target add "$target"
    CC_aarch64_apple_darwin=$root/tests/tools/no-cc AR_aarch64_apple_darwin=true cargo clippy "${locked[@]}" \
        --target "$target" -p hearthd -p hearth-ctl -p hearth-reference -- "${lint_args[@]}"
}

# engine_libraries FOLDER FILE...: the libraries of FOLDER that the FILEs need, directly or not, by SONAME.
engine_libraries() {
    local folder=$1 file name
    shift
    for file in "$@"; do
        for name in $(readelf -d "$file" | sed -n 's/.*(NEEDED).*\[\(.*\)\]$/\1/p'); do
            if [ -e "$folder/$name" ]; then
                printf '%s\n' "$folder/$name"
                engine_libraries "$folder" "$folder/$name"
            fi
        done
    done
}

# stage FOLDER FILE...: FOLDER holds copies of exactly these files, none of them ever half written.
# The daemon refuses plugins that others can write to.
stage() {
    local folder=$1 file name names=' '
    shift
    mkdir -p "$folder"
    for file in "$@"; do
        name=${file##*/}
        names+="$name "
        if [ -L "$folder/$name" ] || ! cmp -s "$file" "$folder/$name"; then
            cp "$file" "$folder/.$name.new"
            mv -f "$folder/.$name.new" "$folder/$name"
        fi
    done
    for file in "$folder"/* "$folder"/.[!.]*; do
        case $names in *" ${file##*/} "*) ;; *) rm -rf "$file" ;; esac
    done
    chmod 755 "$folder" "$folder"/*
}
