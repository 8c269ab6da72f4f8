#!/usr/bin/env bash
# How fast `ctl pull` is beside curl, for the same bytes from the same docker-registry on loopback.
#
#   tests/tools/pull-speed.sh HEARTHD CTL [MIB] [ROUNDS]
#
# The first curl writes to a file and is done; a pull also hashes, and waits until the disk has everything, and the others do
# some of that. Every round has a store of its own, and everything is written under $TMPDIR.
set -euo pipefail
hearthd=$(realpath "$1") ctl=$(realpath "$2") mib=${3:-1024} rounds=${4:-2}
dir=$(mktemp -d)
cd "$dir"
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$dir"' EXIT

cat > registry.json <<END
{"version": "0.1", "log": {"accesslog": {"disabled": true}},
 "storage": {"filesystem": {"rootdirectory": "$dir/registry"}}, "http": {"addr": "127.0.0.1:0"}}
END
docker-registry serve registry.json > registry.log 2>&1 &
until host=$(grep -om1 'listening on [0-9.:]*' registry.log); do sleep 0.05; done
host=${host##* }

push_blob() { # FILE; prints what a manifest says of it
    local digest location
    digest=sha256:$(sha256sum < "$1" | cut -d ' ' -f 1)
    location=$(curl -sSfi -X POST "http://$host/v2/m/m/blobs/uploads/" | tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
    curl -sSf -X PUT -H 'Content-Type: application/octet-stream' -T "$1" "$location&digest=$digest" > /dev/null
    printf '"digest": "%s", "size": %s' "$digest" "$(stat -c %s "$1")"
}
head -c "${mib}M" /dev/urandom > model
echo '{"model_format":"gguf"}' > config
model=$(push_blob model) config=$(push_blob config)
type=application/vnd.docker.distribution.manifest.v2+json
cat > manifest <<END
{"schemaVersion": 2, "mediaType": "$type",
 "config": {"mediaType": "application/vnd.docker.container.image.v1+json", $config},
 "layers": [{"mediaType": "application/vnd.ollama.image.model", $model}]}
END
curl -sSf -X PUT -H "Content-Type: $type" --data-binary @manifest "http://$host/v2/m/m/manifests/latest"
digest=$(cut -d '"' -f 4 <<< "$model")

speed() { # WHAT COMMAND...; prints MB/s
    local what=$1 start end
    shift
    start=$(date +%s%N)
    "$@" > out 2>&1 || { cat out >&2; exit 1; }
    end=$(date +%s%N)
    awk -v what="$what" -v ns=$((end - start)) -v mib="$mib" \
        'BEGIN { printf "%-28s %6.0f MB/s\n", what, mib * 1048576 * 1000 / ns }'
}
for _ in $(seq "$rounds"); do
    rm -rf fetched models
    sync
    speed curl curl -sSf -o fetched "http://$host/v2/m/m/blobs/$digest"
    rm -f fetched
    sync
    speed 'curl, and on disk' sh -c "curl -sSf -o fetched http://$host/v2/m/m/blobs/$digest && sync fetched"
    rm -f fetched
    sync
    speed 'curl, hashed and on disk' bash -c "curl -sSf http://$host/v2/m/m/blobs/$digest | tee fetched | openssl dgst -sha256 && sync fetched"
    rm -f fetched
    "$hearthd" --socket sock --models models --state-dir state > hearthd.log 2>&1 &
    daemon=$!
    until [ -S sock ]; do sleep 0.05; done
    sync
    speed 'ctl pull' "$ctl" --socket sock pull "http://$host/m/m" speed
    kill $daemon
    wait $daemon || true
    rm -f sock
done
