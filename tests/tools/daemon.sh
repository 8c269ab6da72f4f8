# shellcheck shell=bash
# The private daemon of ./dev run: its socket, state, models and log are in target/dev; sourced by ./dev.

home=${root:?}/target/dev
ctl=$root/target/release/ctl
default_model=smollm2:135m

ensure_daemon() {
    mkdir -p "$home"
    chmod 700 "$home"
    choose_socket
    # Two runs at once start one daemon.
    exec 9>"$home/lock"
    flock 9
    if daemon_runs && [ "$(build_id)" != "$(cat "$home/build-id" 2>/dev/null)" ]; then
        say 'the private daemon is of another build: restarting it'
        stop_daemon
    fi
    daemon_runs || start_daemon
    await_daemon
    exec 9>&-
}

start_daemon() {
    [ ! -e "$home/hearthd.log" ] || mv "$home/hearthd.log" "$home/hearthd.log.old"
    build_id >"$home/build-id"
    setsid "$root/target/release/hearthd" --config /dev/null --socket "$socket" --state-dir "$home/state" --models "$home/models" \
        --backends "${plugins:?}" </dev/null >"$home/hearthd.log" 2>&1 9>&- &
    pid=$!
    printf '%s\n' "$pid" >"$home/pid"
}

# The kernel's limit for a socket's path is 108 bytes.
choose_socket() {
    local folder
    socket=$home/hearth.sock
    if [ "$(printf %s "$socket" | wc -c)" -ge 100 ]; then
        folder=$(cat "$home/socket-folder" 2>/dev/null || true)
        if [ ! -O "$folder" ]; then
            folder=$(mktemp -d /tmp/hearth-dev.XXXXXX)
            printf '%s\n' "$folder" >"$home/socket-folder"
        fi
        socket=$folder/hearth.sock
    fi
}

remove_socket_folder() {
    local folder
    if folder=$(cat "$home/socket-folder" 2>/dev/null) && [ -O "$folder" ]; then rm -rf "$folder"; fi
}

await_daemon() {
    local tries
    for tries in {1..200}; do
        if "$ctl" --socket "$socket" status >/dev/null 2>&1; then return; fi
        kill -0 "$pid" 2>/dev/null || break
        [ "$tries" -ne 20 ] || say 'waiting for the daemon to answer'
        sleep 0.05
    done
    tail -n 20 "$home/hearthd.log" >&2 || true
    die 'the private daemon does not answer' "the lines above are from $home/hearthd.log" './dev stop, then try again'
}

ensure_default_model() {
    if ! "$ctl" --socket "$socket" show "$default_model" >/dev/null 2>&1; then
        "$ctl" --socket "$socket" import "$(model_file smollm2)" "$default_model" --link >&2
    fi
}

stop_daemon() {
    local tries
    for tries in {1..200}; do
        daemon_runs || break
        # The first SIGTERM lets answers finish, the second does not.
        case $tries in
            1) kill -TERM "$pid" ;;
            20) say 'waiting for the daemon to stop' ;;
            100) kill -TERM "$pid" ;;
            160) kill -KILL "$pid" ;;
        esac
        sleep 0.05
    done
    ! daemon_runs || die "the private daemon (process $pid) does not stop"
    rm -f "$home/pid" "$home/build-id"
}

# Sets pid. A number that another program has by now is not our daemon.
daemon_runs() {
    pid=$(cat "$home/pid" 2>/dev/null) || return 1
    case $(readlink "/proc/$pid/exe") in "$root/target/release/hearthd"*) ;; *) return 1 ;; esac
}

build_id() { stat -c '%n %i %s %y' "$root/target/release/hearthd" "$plugins"/*; }
