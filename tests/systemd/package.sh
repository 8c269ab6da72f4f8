#!/bin/bash
# Runs inside, as a unit of its own, in a Debian that has never seen Hearth: installs the package, uses it as its users do,
# upgrades it under load and purges it. Figures go to the file `figures`; the test keeps both.
# shellcheck disable=SC2016 # The backticks are hearth's.
set -euxo pipefail
say() { printf '\n== %s\n' "$*"; }
now_ms() { echo $(($(date +%s%N) / 1000000)); }
figure() { printf '%s: %s\n' "$1" "$2" >>figures; }
show() { systemctl show --value -p "$1" "${2:-hearth.service}"; }
# But for what others keep of it, dpkg, systemd and useradd, and folders that were empty before.
everything() {
    find /etc /usr /var/lib /var/cache /run ! -path '/run/*/*' ! -path '/var/lib/dpkg/*' ! -path '/var/lib/systemd/*' \
        ! -path '/var/cache/ldconfig/*' ! -path '/var/*/private' ! -path '/etc/*-' ! -path /etc/.pwd.lock ! -name '*.wants' | sort
}
settle() { printf '%s\n' "$@" >/etc/hearth/hearth.toml; }
reference='backend = "reference"
backends = ["/var/ci/backends"]'

say install
everything >before
dpkg -i hearth.deb
systemctl is-active hearth.socket hearth.service
systemctl is-enabled hearth.socket hearth.service
[ "$(stat -c '%U:%G %a' /run/hearth/hearth.sock)" = 'root:hearth 660' ]
[ "$(readlink /usr/bin/hearthctl)" = ctl ]
hearthctl status
useradd --create-home --groups hearth alice
useradd bob

say start
systemctl stop hearth.socket hearth.service
start=$(now_ms)
systemctl start hearth.service
figure 'systemctl start to active, ms' $(($(now_ms) - start))
[ "$(show StatusText)" = 'Listening on /run/hearth/hearth.sock' ]
systemctl is-active hearth.socket

say activation
systemctl stop hearth.service
systemctl is-active hearth.socket
start=$(now_ms)
ctl status
figure 'first connection answered, ms' $(($(now_ms) - start))

say 'the processor, for a member and for nobody else'
systemd-analyze security --no-pager --threshold=15 hearth.service | tee security
figure exposure "$(sed -n 's/.*exposure level for hearth.service: \([0-9.]*\).*/\1/p' security)"
useradd --create-home --groups hearth,hearth-admin carol
install -m 600 -o carol smollm2.gguf /home/carol/
runuser -u carol -- ctl import /home/carol/smollm2.gguf smollm2 | tee imported
grep 'sent to the daemon' imported
ctl backend list
runuser -u alice -- ctl run smollm2 --temperature 0 --max-tokens 24 'Name three colours.' >smollm2.answer
ctl ps
[ "$(cat "/proc/$(ctl ps | awk 'NR == 2 { print $NF }')/oom_score_adj")" = 500 ]
status=0
runuser -u bob -- ctl ls 2>refused || status=$?
[ "$status" = 3 ]
grep 'add yourself to group `hearth`' refused
if runuser -u alice -- ctl rm smollm2 2>refused; then exit 1; fi
grep 'hearth-admin' refused

say 'one by hand beside it'
if runuser -u hearth -- hearthd --socket /run/hearth/hearth.sock 2>refused; then exit 1; fi
grep 'a service manager listens on `/run/hearth/hearth.sock`' refused
ctl status

say reload
settle 'keep_alife = 3'
if systemctl reload hearth.service; then exit 1; fi
ctl status
journalctl --sync
journalctl -u hearth | grep 'did you mean `keep_alive`'
settle "$reference"
systemctl reload hearth.service
until ctl backend list | grep '^reference *chosen'; do sleep 0.05; done
ctl import quick.gguf quick
ctl import slow.gguf slow
runuser -u alice -- ctl run quick --temperature 0 'the prompt is xyzzy' >quick.answer

say 'a hang'
mkdir -p /etc/systemd/system/hearth.service.d
printf '[Service]\nWatchdogSec=2\n' >/etc/systemd/system/hearth.service.d/watchdog.conf
systemctl daemon-reload
systemctl restart hearth.service
hung=$(show MainPID)
kill -STOP "$hung"
until [ "$(show NRestarts)" -ge 1 ]; do sleep 0.05; done
# Waits for the next one.
ctl status
[ "$(show MainPID)" != "$hung" ]
rm /etc/systemd/system/hearth.service.d/watchdog.conf
systemctl daemon-reload

say 'a stop in the middle of an answer'
ctl run slow --temperature 0 'the prompt is xyzzy' >slow.answer &
until [ -s slow.answer ]; do sleep 0.01; done
systemctl stop hearth.service
wait $!
[ "$(show Result)" = success ]
[ -S /run/hearth/hearth.sock ]

say 'an upgrade while 50 clients connect, over the socket, and over TCP of both kinds'
settle "$reference" '[http]' 'listen = ["127.0.0.1:11435"]'
systemctl start hearth-http.socket
systemctl start hearth.service
old=$(show MainPID)
socket=$(show InvocationID hearth.socket)
over_tcp() (
    exec 3<>"/dev/tcp/127.0.0.1/$1"
    printf 'GET /api/version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
    grep -q '"version"' <&3
)
client() {
    local n=0
    until [ -e enough ]; do
        case $(($1 % 5)) in
            0) over_tcp 11434 ;;
            1) over_tcp 11435 ;;
            *) ctl status >/dev/null ;;
        esac || echo "client $1, connection $n" >>failed
        n=$((n + 1))
    done
    echo "$n" >"connections.$1"
} 2>>failed
: >failed
clients=()
set +x
for n in {1..50}; do client "$n" & clients+=($!); done
set -x
ctl run slow --temperature 0 'the prompt is xyzzy' >upgraded.answer &
until [ -s upgraded.answer ]; do sleep 0.01; done
dpkg -i hearth.deb
[ "$(show MainPID)" != "$old" ]
[ "$(show InvocationID hearth.socket)" = "$socket" ]
# Some more at the new one.
ctl status
touch enough
wait "${clients[@]}"
figure 'connections during an upgrade' "$(cat connections.* | awk '{ n += $1 } END { print n }')"
figure 'of these failed' "$(wc -l <failed)"
cat failed
[ ! -s failed ]

say 'drop-ins'
examples=/usr/share/doc/hearth/examples
for example in gpu dynamic-user; do
    cp "$examples/$example.conf" /etc/systemd/system/hearth.service.d/
    systemctl daemon-reload
    systemctl restart hearth.service
    ctl run quick --temperature 0 'the prompt is xyzzy' >"$example.answer"
    rm "/etc/systemd/system/hearth.service.d/$example.conf"
done
systemctl daemon-reload
rmdir /etc/systemd/system/hearth.service.d
systemctl restart hearth.service

say 'a daemon of her own'
uid=$(id -u alice)
systemctl start "user@$uid.service"
hers() { runuser -u alice -- env HOME=/home/alice XDG_RUNTIME_DIR="/run/user/$uid" "$@"; }
# Without one she would get the system's, and its port is taken.
hers install -D /dev/null /home/alice/.config/hearth/hearth.toml
hers systemctl --user start hearth.socket
hers ctl status | grep '/home/alice/.ollama/models'
hers systemctl --user reload hearth.service
hers systemctl --user restart hearth.service
hers ctl status
systemctl stop "user@$uid.service"

say purge
userdel --remove alice
userdel --remove carol
userdel bob
dpkg -P hearth
if getent passwd hearth || getent group hearth hearth-admin; then exit 1; fi
everything >after
diff before after
