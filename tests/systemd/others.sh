#!/bin/bash
# Runs inside, as a unit of its own, in a Debian that has never seen Hearth: the tarball and the .rpm from installation to removal.
set -euxo pipefail
say() { printf '\n== %s\n' "$*"; }
show() { systemctl show --value -p "$1" "${2:-hearth.service}"; }
# But for what others keep of it, and folders that were empty before.
everything() {
    find /etc /usr /var/lib /run ! -type d ! -path '/run/*/*' ! -path '/var/lib/rpm/*' ! -path '/var/lib/systemd/*' ! -path '/etc/*-' \
        ! -path /etc/.pwd.lock | sort
    find /etc /usr -type d -path '*hearth*'
}
# What there is under a prefix, whatever brought it.
all_there() {
    local program
    ctl status
    hearthctl status
    ctl backend list | grep '^cpu *chosen'
    for program in ctl hearthctl; do
        [ -s "$1/share/bash-completion/completions/$program" ]
        [ -s "$1/share/zsh/site-functions/_$program" ]
        [ -s "$1/share/fish/vendor_completions.d/$program.fish" ]
    done
    zcat "$1/share/man/man1/ctl.1.gz" | grep '^.TH ctl 1'
    zcat "$1/share/man/man1/hearthd.1.gz" | grep '^.TH hearthd 1'
    grep -q 'Apache License' "$1/share/doc/hearth/LICENSE"
    grep -q 'ggml' "$1/share/doc/hearth/copyright"
    zcat "$1/share/doc/hearth/third-party-licences.gz" | grep '^tokio '
    zcat "$1/share/doc/hearth/third-party-licences.gz" | grep -F 'The ggml authors'
    [ -s "$1/share/doc/hearth/examples/gpu.conf" ]
    [ -s /etc/hearth/hearth.toml ]
    [ "$(stat -c '%U:%G %a' /run/hearth/hearth.sock)" = 'root:hearth 660' ]
}
# upgraded COMMAND...: the daemon is another one afterwards, the socket the same, and the configuration as it was left.
upgraded() {
    local old socket
    old=$(show MainPID)
    socket=$(show InvocationID hearth.socket)
    printf '# mine\n' >>/etc/hearth/hearth.toml
    "$@"
    [ "$(show MainPID)" != "$old" ]
    [ "$(show InvocationID hearth.socket)" = "$socket" ]
    grep '# mine' /etc/hearth/hearth.toml
    ctl status
}
# What is kept on purpose, and then nothing.
gone() {
    if systemctl is-active hearth.socket; then exit 1; fi
    if systemctl is-active hearth.service; then exit 1; fi
    getent passwd hearth
    [ -d /var/lib/hearth ]
    userdel hearth
    groupdel hearth-admin
    rm -rf /var/lib/hearth /var/cache/hearth /etc/hearth /run/hearth
    everything >after
    diff before after
}

say 'the tarball'
everything >before
mkdir unpacked
tar -xf hearth.tar.gz -C unpacked --strip-components 1
unpacked/install.sh
systemctl is-active hearth.socket hearth.service
systemctl is-enabled hearth.socket hearth.service
[ "$(command -v ctl)" = /usr/local/bin/ctl ]
all_there /usr/local
upgraded unpacked/install.sh
unpacked/install.sh --remove
gone

say 'the .rpm'
mkdir -p /var/lib/rpm
everything >before
# What it needs is here, but Debian's.
rpm -i --nodeps hearth.rpm
systemctl enable --now hearth.socket hearth.service
hash -r
[ "$(command -v ctl)" = /usr/bin/ctl ]
all_there /usr
rpm -V --nodeps hearth
upgraded rpm -U --nodeps --replacepkgs hearth.rpm
rpm -e hearth
# It was changed, and rpm keeps what somebody changed.
[ -s /etc/hearth/hearth.toml.rpmsave ]
gone
