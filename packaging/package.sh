# shellcheck shell=bash
# Makes the packages; sourced by ./dev.
#
# target/packages/root is what they install, file by file; the .deb, the .rpm and the tarball are all made of it, and with the
# time of the commit, so that the same commit gives the same bytes, whatever the checkout's folder and its cache are called.
# So does the one file, which is built as they are.

packages=${root:?}/target/packages
packed=$packages/root
packagers=${cache:?}/tools
cargo_home=${CARGO_HOME:-${HOME:-}/.cargo}
export HEARTH_TEST_PACKAGES=$packages/test HEARTH_TEST_DEBIAN=$cache/debian-12-rpm

package() {
    local onefile
    ensure_tools build package licences
    ensure_packagers
    build_for_packages
    stage_packages "$CARGO_TARGET_DIR/release"
    rm -f "$packages"/hearth*.*
    onefile=$packages/hearth-$(version)-linux-$(uname -m)
    cp "$CARGO_TARGET_DIR/onefile/hearth" "$onefile"
    # The last is what compilers write for `__DATE__`.
    ! grep -rlF -e "$root" -e "$cargo_home" -e "$cache" -e "$(LC_ALL=C date '+%b %e %Y')" "$packed" "$onefile" >&2 \
        || die 'these name folders of this machine, or the day of the build'
    make_packages "$packages" zstd
    formula
    say 'made:'
    (cd "$packages" && sha256sum hearth*.* >&2)
}

# A build of its own, in which no path of this machine is left.
build_for_packages() {
    local from
    # Its path is a part of the names of what is built.
    unset RUSTC_WORKSPACE_WRAPPER
    export CARGO_BUILD_BUILD_DIR=$packages/build CARGO_TARGET_DIR=$packages/build
    # By the linker: afterwards a program's build id would still be one of its symbols' names too, which depend on the folder.
    export CARGO_PROFILE_RELEASE_DEBUG=none CARGO_PROFILE_RELEASE_STRIP=symbols
    # Otherwise CMake leaves room for the build's own path in what it installs.
    export CMAKE_BUILD_WITH_INSTALL_RPATH=ON
    export RUSTFLAGS='' CFLAGS='' CXXFLAGS=''
    for from in "$cargo_home=/cargo" "$root=/hearth"; do
        RUSTFLAGS+=" --remap-path-prefix=$from"
        CFLAGS+=" -ffile-prefix-map=$from"
    done
    # Where ggml would look for modules, unlike us: in the build's folder.
    CXXFLAGS="$CFLAGS -UGGML_BACKEND_DIR"
    plugins=$packages/backends
    build_plugins
    cargo build "${locked[@]}" --release -p hearthd -p hearth-ctl
    build_onefile
}

# For the tests: of the debug build, which is there already.
package_for_tests() {
    ensure_packagers
    stage_packages target/debug
    rm -rf "$HEARTH_TEST_PACKAGES"
    mkdir -p "$HEARTH_TEST_PACKAGES"
    make_packages "$HEARTH_TEST_PACKAGES" none --fast
    [ -e "$HEARTH_TEST_DEBIAN/made" ] || make_debian
}

# make_packages FOLDER COMPRESSION-OF-RPM [OPTIONS-OF-DEB...]
make_packages() {
    local folder=$1 compression=$2 name
    shift 2
    "$packagers/bin/cargo-deb" deb --no-build --no-strip -q -p hearthd -o "$folder/" "$@"
    # Debian alone calls it otherwise.
    mv "$packed/usr/share/zsh/vendor-completions" "$packed/usr/share/zsh/site-functions"
    "$packagers/bin/cargo-generate-rpm" generate-rpm -p daemon --auto-req builtin --payload-compress "$compression" \
        --source-date "$SOURCE_DATE_EPOCH" -o "$folder/"
    name=hearth-$(version)-linux-$(uname -m)
    tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --transform "s,^,$name/,S" \
        -C "$packages" -cf - root -C "$root/packaging" install.sh | gzip -9n >"$folder/$name.tar.gz"
}

# A fresh Debian, once.
make_debian() {
    local new=$HEARTH_TEST_DEBIAN.new
    say 'installing a Debian to test in, once'
    rm -rf "$new"
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,libpam-systemd,libgomp1,libstdc++6,rpm bookworm "$new" >"$HEARTH_TEST_DEBIAN.log" \
        || die "debootstrap failed" "its log is $HEARTH_TEST_DEBIAN.log"
    rm -rf "$new"/var/cache/apt/archives/*.deb "$HEARTH_TEST_DEBIAN"
    touch "$new/made"
    mv "$new" "$HEARTH_TEST_DEBIAN"
}

ensure_packagers() {
    ensure_packager cargo-deb 3.8.0
    ensure_packager cargo-generate-rpm 0.21.1
}
ensure_packager() { # CRATE VERSION
    [ "$(sed -n "s/^\"$1 \([^ ]*\) .*/\1/p" "$packagers/.crates.toml" 2>/dev/null)" = "$2" ] \
        || env -u RUSTC_WORKSPACE_WRAPPER cargo install --locked --root "$packagers" "$1@$2"
}

# stage_packages FOLDER: fills target/packages/root, with the programs in FOLDER.
stage_packages() {
    local programs=$1 program shell page
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
    export SOURCE_DATE_EPOCH
    rm -rf "$packed"
    put 755 usr/bin "$programs/hearthd" "$programs/ctl"
    strip "$packed"/usr/bin/*
    ln -s ctl "$packed/usr/bin/hearthctl"
    put 644 usr/lib/hearth/backends "${plugins:?}"/*
    strip --strip-unneeded "$packed"/usr/lib/hearth/backends/*
    put 644 usr/lib/systemd/system packaging/systemd/*.service packaging/systemd/*.socket
    put 644 usr/lib/systemd/user packaging/systemd/user/*
    put_as 644 usr/lib/sysusers.d/hearth.conf packaging/systemd/sysusers.conf
    put_as 644 usr/lib/tmpfiles.d/hearth.conf packaging/systemd/tmpfiles.conf
    put 644 etc/hearth packaging/hearth.toml
    put 644 usr/share/doc/hearth/examples packaging/systemd/examples/*
    put 644 usr/share/doc/hearth README.md CHANGELOG.md LICENSE docs/operations.md docs/protocol.md

    mkdir -p "$packed/usr/share/man/man1"
    "$programs/ctl" man "$packed/usr/share/man/man1"
    "$programs/hearthd" man "$packed/usr/share/man/man1"
    for page in "$packed"/usr/share/man/man1/*; do gzip -9n "$page"; done
    for program in ctl hearthctl; do
        shell=usr/share/bash-completion/completions/$program
        put_as 644 "$shell" <(completions bash)
        put_as 644 usr/share/zsh/vendor-completions/_$program <(completions zsh)
        put_as 644 usr/share/fish/vendor_completions.d/$program.fish <(completions fish)
    done
    # llama.cpp's licence goes wherever its code goes.
    { cat packaging/deb/copyright.in && sed 's/^$/./; s/^/ /' "$(llama_source)/LICENSE"; } >"$packages/copyright"
    put 644 usr/share/doc/hearth "$packages/copyright"
    put_as 644 usr/share/doc/hearth/third-party-licences.gz \
        <(licences hearthd hearth-ctl hearth-cpu | gzip -9n)
    find "$packed" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
}

licences() { # PACKAGE...
    metadata --filter-platform "$(uname -m)-unknown-linux-gnu" | python3 packaging/licences.py "$@"
}

completions() { "$programs/ctl" completions "$1" | sed "s/\bctl\b/$program/g"; }

# Where cargo keeps the llama.cpp that the plugins are made of.
llama_source() {
    metadata \
        | python3 -c 'import json, os, sys
print(next(os.path.dirname(p["manifest_path"]) for p in json.load(sys.stdin)["packages"] if p["name"] == "llama-cpp-sys-2") + "/llama.cpp")'
}

metadata() { cargo metadata "${locked[@]}" --format-version 1 "$@"; }

put() { # MODE FOLDER FILE...
    local mode=$1 folder=$packed/$2
    shift 2
    mkdir -p "$folder"
    install -m "$mode" -t "$folder" "$@"
}
put_as() { # MODE PATH FILE
    mkdir -p "$packed/${2%/*}"
    cat "$3" >"$packed/$2"
    chmod "$1" "$packed/$2"
}

# For Homebrew, with the source that it builds. HEARTH_RELEASES is the URL of the folder where both are published.
formula() {
    local name
    name=hearth-$(version).tar.gz
    git archive --prefix="${name%.tar.gz}/" HEAD | gzip -9n >"$packages/$name"
    sed -e "s,@URL@,${HEARTH_RELEASES:-file://$packages}/$name," -e "s,@VERSION@,$(version)," \
        -e "s,@SHA256@,$(sha256sum "$packages/$name" | cut -d ' ' -f 1)," packaging/homebrew/hearth.rb >"$packages/hearth.rb"
}

version() { sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1; }
