#!/usr/bin/env bash
# boot.sh FOLDER SCRIPT [ROOT]: boots the systemd of ROOT, or the host's own, as process 1 of new namespaces, over a throw-away
# copy of its files, runs FOLDER/SCRIPT there as a unit, and ends with its status; with 137 when it takes too long.
#
# Inside, FOLDER is /var/ci. FOLDER/output gets what the script prints, FOLDER/journal the journal, FOLDER/boot.log what
# went wrong before. Nothing outside FOLDER is changed, and nothing is left over.
#
# It needs root, and a kernel with cgroup2 and overlayfs. Limits of memory and of processes do not hold inside.
set -euo pipefail
folder=$(readlink -f "$1")
script=$2
lower=${3:-/}
limit_s=900
mkdir -p "$folder/journal"
: >"$folder/output"

# shellcheck disable=SC2016 # The quoted programs expand their own variables.
outer='
folder=$1 script=$2 limit_s=$3 lower=$4
top=$(mktemp -d /run/hearth-systemd.XXXXXX)
mount -t tmpfs -o size=2g,mode=755 tmpfs "$top"
mkdir "$top"/{upper,work,root,cgroup}
mount -t cgroup2 cgroup2 "$top/cgroup"
cgroup=$top/cgroup/hearth-systemd-$$
mkdir "$cgroup"
root=$top/root
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$top/upper,workdir=$top/work" "$root"

# Nothing of the host starts by itself.
rm -f "$root"/etc/systemd/system/*.wants/* "$root/etc/machine-id"
systemd-id128 new >"$root/etc/machine-id"
ln -sf /dev/null "$root/etc/systemd/system/console-getty.service"
cat >"$root/etc/systemd/system/ci.service" <<END
[Unit]
After=multi-user.target
SuccessAction=exit
FailureAction=exit
[Service]
Type=exec
WorkingDirectory=/var/ci
ExecStart=/var/ci/$script
ExecStopPost=-/bin/journalctl --sync
StandardOutput=append:/var/ci/output
StandardError=inherit
END
printf "[Unit]\nRequires=multi-user.target ci.service\n" >"$root/etc/systemd/system/ci.target"

status=0
(
    echo "$BASHPID" >"$cgroup/cgroup.procs"
    # unshare does not hear SIGTERM.
    exec timeout -s KILL "$limit_s" unshare --mount --uts --ipc --net --pid --fork --kill-child --cgroup \
        bash -euc "$INNER" inner "$root" "$folder"
) || status=$?
# The last processes may still be leaving it.
for _ in {1..50}; do
    ! find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || break
    sleep 0.1
done
cd /
umount -l "$top"
rmdir "$top"
exit "$status"
'
# shellcheck disable=SC2016
inner='
root=$1 folder=$2
cd "$root"
mount -t proc -o nosuid,nodev,noexec proc proc
mount -t sysfs -o nosuid,nodev,noexec sysfs sys
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 sys/fs/cgroup
mount -o remount,ro,bind sys
mount --bind proc/sys proc/sys
mount -o remount,ro,bind proc/sys
mount -t tmpfs -o mode=755,nosuid tmpfs dev
for device in null zero full random urandom tty; do
    : >"dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
: >dev/console
mount --bind /dev/null dev/console
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mkdir -p var/ci var/log/journal
mount --bind "$folder" var/ci
mount --bind "$folder/journal" var/log/journal
mkdir -p .old
pivot_root . .old
umount -l /.old
rmdir /.old
# Or units with credentials or mounts of their own do not get them.
mount --make-rshared /
exec env -i container=hearth-tests PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb LANG=C.UTF-8 \
    /lib/systemd/systemd --system --unit=ci.target --show-status=0 --log-target=journal
'
export INNER=$inner
exec unshare --mount --propagation private bash -euc "$outer" outer "$folder" "$script" "$limit_s" "$lower" \
    </dev/null 2>"$folder/boot.log"
