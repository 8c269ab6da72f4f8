#!/bin/sh
# Runs inside, as a unit of its own. Everything it checks here, the test cannot see from outside.
set -eux
cp /var/ci/*.service /etc/systemd/system/
systemctl daemon-reload
ctl() { /var/ci/ctl --socket /run/hearth/hearth.sock "$@"; }

# Without a word from it, this would wait for TimeoutStartSec and fail. No waiting after it: the socket listens.
systemctl start hearth
ctl status
[ "$(systemctl show --value -p StatusText hearth)" = 'Listening on /run/hearth/hearth.sock' ]

ctl import /var/ci/quick.gguf quick
ctl import /var/ci/slow.gguf slow
ctl run quick --temperature 0 'the prompt is xyzzy' >quick.answer

# Stopping in the middle of an answer.
ctl run slow --temperature 0 'the prompt is xyzzy' >slow.answer &
until [ -s slow.answer ]; do sleep 0.01; done
systemctl stop hearth
wait $!
[ "$(systemctl show --value -p Result hearth)" = success ]
[ ! -e /run/hearth/hearth.sock ]

# One that cannot listen does not start.
if systemctl start hearth-nowhere; then exit 1; fi

systemctl start hearth-to-file
systemctl stop hearth-to-file
