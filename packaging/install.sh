#!/bin/sh
# install.sh [--prefix DIR] [--remove]: puts Hearth on this machine from the unpacked tarball, as root, or takes it away. The models,
# the configuration and the user stay when it is taken away.
set -eu
prefix=/usr/local
remove=
while [ $# -gt 0 ]; do
    case $1 in
        --prefix) prefix=$2 && shift 2 ;;
        --remove) remove=yes && shift ;;
        *) echo "usage: install.sh [--prefix DIR] [--remove]" >&2 && exit 2 ;;
    esac
done
cd "$(dirname "$0")"
[ "$(id -u)" -eq 0 ] || { echo 'error: this takes root' >&2 && exit 1; }
booted() { [ -d /run/systemd/system ]; }

if [ -n "$remove" ]; then
    if booted; then systemctl disable --now hearth-http.socket hearth.socket hearth.service || true; fi
    (cd root/usr && find . ! -type d) | while read -r file; do
        case $file in
            ./lib/systemd/* | ./lib/sysusers.d/* | ./lib/tmpfiles.d/*) rm -f "/etc/${file#./lib/}" ;;
            *) rm -f "$prefix/$file" ;;
        esac
    done
    for folder in lib/hearth/backends lib/hearth share/doc/hearth/examples share/doc/hearth; do
        rmdir "$prefix/$folder" 2>/dev/null || true
    done
    if booted; then systemctl daemon-reload; fi
    exit 0
fi

mkdir -p "$prefix" /etc/systemd /etc/hearth
(cd root/usr && tar -cf - --exclude ./lib/systemd --exclude ./lib/sysusers.d --exclude ./lib/tmpfiles.d .) | tar -xf - -C "$prefix" --no-same-owner
[ -e /etc/hearth/hearth.toml ] || install -m 644 root/etc/hearth/hearth.toml /etc/hearth/hearth.toml
# An administrator's units go before a distribution's.
for folder in systemd/system systemd/user sysusers.d tmpfiles.d; do
    mkdir -p "/etc/$folder"
    for file in root/usr/lib/"$folder"/*; do
        sed "s|/usr/bin/|$prefix/bin/|" "$file" >"/etc/$folder/${file##*/}"
    done
done
if command -v systemd-sysusers >/dev/null; then
    systemd-sysusers /etc/sysusers.d/hearth.conf
else
    getent group hearth-admin >/dev/null || groupadd --system hearth-admin
    getent passwd hearth >/dev/null || useradd --system --home-dir /var/lib/hearth --shell /usr/sbin/nologin --user-group hearth
fi
if booted; then
    systemd-tmpfiles --create /etc/tmpfiles.d/hearth.conf
    systemctl daemon-reload
    systemctl enable --now hearth.socket
    systemctl enable hearth.service
    systemctl restart hearth.service
else
    echo "no systemd runs here: start it as the user hearth, with hearthd --daemonize"
fi
