#!/usr/bin/env python3
"""What HTTP costs beside the raw socket: tokens per second, CPU time, and memory of connections that stay open.

    hearthd --config FILE --socket SOCKET ... &    # with `listen` under [http], `speculate = false`, and a model named `m`
    tests/tools/http-cost.py SOCKET [ROUNDS]

Eight streams at once, by turns raw and by each dialect and way of HTTP: the same prompts, which are in memory from before, so that
all do the same work. All are read alike, in whatever pieces come. CPU time is what Linux counts for the daemon and for the
model's process; a neighbour on the machine moves it less than it moves the time on the clock.
"""

import glob
import json
import re
import socket
import ssl
import statistics
import sys
import threading
import time

PATH, N_ROUNDS = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 9
N_CONNECTIONS, N_STREAMS, N_TOKENS = 1000, 8, 160
unverified = ssl.create_default_context()
unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE


def over_unix():
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(PATH)
    return stream


def over(address):
    def connect():
        stream = socket.create_connection(address.removeprefix("https://").rsplit(":", 1))
        return unverified.wrap_socket(stream) if address.startswith("https") else stream

    return connect


def read(stream, end):
    said = [stream.recv(1 << 16)]
    while end not in said[-1]:
        said.append(stream.recv(1 << 16))
    return b"".join(said)


def call(method, params):
    stream = over_unix()
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    stream.sendall(json.dumps(request).encode() + b"\n")
    return stream


def result(method):
    return json.loads(read(call(method, {}), b"\n"))["result"]


def raw(prompt):
    params = {"model": "m", "prompt": prompt, "raw": True, "options": {"temperature": 0, "max_tokens": N_TOKENS}}
    return re.search(rb'"completion_tokens":(\d+)', read(call("generate.stream", params), b'"type":"done"'))[1]


def post(connect, path, body, end, count):
    text, stream = json.dumps(body).encode(), connect()
    stream.sendall(b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (path, len(text), text))
    return re.search(count, read(stream, end))[1]


def ollama(connect):
    more = {"model": "m", "raw": True, "options": {"temperature": 0, "num_predict": N_TOKENS}}
    return lambda prompt: post(connect, b"/api/generate", {**more, "prompt": prompt}, b'"done":true', rb'"eval_count":(\d+)')


def openai(connect):
    options = {"stream": True, "stream_options": {"include_usage": True}}
    more = {"model": "m", "temperature": 0, "max_tokens": N_TOKENS, **options}
    return lambda prompt: post(connect, b"/v1/completions", {**more, "prompt": prompt}, b"[DONE]", rb'"completion_tokens":(\d+)')


def cpu_us(process):
    """Of all threads that it has now."""
    ns = 0
    for file in glob.glob(f"/proc/{process}/task/*/schedstat"):
        with open(file) as stat:
            ns += int(stat.read().split()[0])
    return ns / 1000


def measure(ask):
    """Tokens per second, and the CPU time of daemon and model for a token."""
    counts, processes = [], (daemon, model)
    before, start = [cpu_us(process) for process in processes], time.monotonic()
    prompts = [f"Once upon a time, in the land of {n} rivers, there was" for n in range(N_STREAMS)]
    threads = [threading.Thread(target=lambda p=p: counts.append(int(ask(p)))) for p in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, n = time.monotonic() - start, sum(counts)
    return n / seconds, *((cpu_us(process) - was) / n for process, was in zip(processes, before))


def kept(connect):
    """KiB of memory for each connection that had an answer and stays open."""
    before, connections = result("daemon.status")["rss_bytes"], []
    for _ in range(N_CONNECTIONS):
        connections.append(connect())
        connections[-1].sendall(b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connections[-1].recv(4096)
    return (result("daemon.status")["rss_bytes"] - before) / N_CONNECTIONS / 1024


status = result("daemon.status")
daemon, addresses = status["pid"], status["http"]
ways = {"raw": raw, "Ollama, Unix socket": ollama(over_unix)}
for address in addresses:
    ways[f"Ollama, {address}"] = ollama(over(address))
    ways[f"OpenAI, {address}"] = openai(over(address))
raw("Once")
model = result("model.ps")["models"][0]["pid"]
measure(raw)
rounds = {way: [] for way in ways}
for n in range(N_ROUNDS):
    names = list(ways)
    for way in names[n % len(names) :] + names[: n % len(names)]:
        rounds[way].append(measure(ways[way]))
for way, measured in rounds.items():
    rate, *cpu = (statistics.median(column) for column in zip(*measured))
    beside = [this[0] / that[0] for this, that in zip(measured, rounds["raw"])]
    low, _, high = statistics.quantiles(beside, n=4)
    print(f"{way:33} {rate:6.1f} tokens/s, beside raw {statistics.median(beside):.3f} (quartiles {low:.3f} and {high:.3f})")
    print(f"{'':33} CPU for a token: daemon {cpu[0]:.1f} µs, model {cpu[1]:.0f} µs")
for address in addresses:
    print(f"a connection to {address} that stays open: {kept(over(address)):.1f} KiB")
