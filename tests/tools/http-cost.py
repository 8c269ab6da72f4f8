#!/usr/bin/env python3
"""What HTTP costs: memory of connections that stay open, and tokens per second beside the raw socket.

    hearthd --config FILE --socket SOCKET ... &    # with `listen` under [http], `speculate = false`, and a model named `m`
    tests/tools/http-cost.py SOCKET HOST:PORT PID

Eight streams at once, on the Unix socket and over TCP by turns, each with prompts of its own.
"""

import json
import socket
import statistics
import sys
import threading
import time

path, address, pid = sys.argv[1:]
host, port = address.rsplit(":", 1)
N_CONNECTIONS, N_PAIRS, N_STREAMS, N_TOKENS = 1000, 9, 8, 160


def connect():
    return socket.create_connection((host, int(port)))


def rss_kib():
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def kept():
    before, connections = rss_kib(), []
    for _ in range(N_CONNECTIONS):
        connections.append(connect())
        connections[-1].sendall(b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connections[-1].recv(4096)
    return (rss_kib() - before) / N_CONNECTIONS


def raw(prompt):
    options = {"temperature": 0, "max_tokens": N_TOKENS}
    params = {"model": "m", "prompt": prompt, "raw": True, "options": options}
    call = {"jsonrpc": "2.0", "id": 1, "method": "generate.stream", "params": params}
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(path)
    stream.sendall(json.dumps(call).encode() + b"\n")
    last = next(line for line in stream.makefile("rb") if b'"type":"done"' in line)
    return json.loads(last)["params"]["result"]["reply"]["usage"]["completion_tokens"]


def http(prompt):
    options = {"temperature": 0, "num_predict": N_TOKENS}
    body = json.dumps({"model": "m", "prompt": prompt, "raw": True, "options": options}).encode()
    head = f"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    stream = connect()
    stream.sendall(head.encode() + body)
    last = next(line for line in stream.makefile("rb") if b'"done":true' in line)
    return json.loads(last)["eval_count"]


def rate(ask, first):
    counts, start = [], time.monotonic()
    prompts = [f"Once upon a time number {first + n} there was" for n in range(N_STREAMS)]
    threads = [threading.Thread(target=lambda p=p: counts.append(ask(p))) for p in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.monotonic() - start)


rate(raw, 900)
pairs = []
for n in range(N_PAIRS):
    turns = [(raw, 20 * n), (http, 20 * n + 10)]
    rates = {ask: rate(ask, first) for ask, first in (turns if n % 2 else reversed(turns))}
    pairs.append(rates[http] / rates[raw])
print(f"tokens per second by HTTP beside raw: {statistics.median(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f})")
print(f"a connection that stays open: {kept():.1f} KiB")
