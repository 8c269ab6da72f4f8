"""Prints the licences of everything that is linked into the packages: licences.py PACKAGE..., with cargo's metadata on stdin.

Their texts are what stands in the crates themselves. Crates with the same text stand before it together.
"""
import html
import json
import pathlib
import re
import subprocess
import sys

metadata = json.load(sys.stdin)
packages = {package["id"]: package for package in metadata["packages"]}
nodes = {node["id"]: node["deps"] for node in metadata["resolve"]["nodes"]}

linked = set()
todo = [id for id, package in packages.items() if package["name"] in sys.argv[1:]]
while todo:
    id = todo.pop()
    if id in linked:
        continue
    linked.add(id)
    # Neither what only tests use nor what only builds.
    todo += [dep["pkg"] for dep in nodes[id] if any(kind["kind"] is None for kind in dep["dep_kinds"])]

crates_of = {}
for id in linked:
    package = packages[id]
    if package["source"] is None:
        continue
    name = f"{package['name']} {package['version']} ({package['license'] or 'see its files'})"
    # Also of what a crate has in it of others, such as llama.cpp and that of others again.
    files = [
        file for file in sorted(pathlib.Path(package["manifest_path"]).parent.rglob("*"))
        if re.match(r"(LICEN[CS]E|COPYING|COPYRIGHT|NOTICE|UNLICENSE)", file.name, re.I) and file.is_file()
        and file.suffix not in (".rs", ".cmake")
    ]
    texts = [file.read_text(errors="replace").strip() for file in files]
    for text in texts or ["It has no file of its own with its licence's text."]:
        crates_of.setdefault(text, set()).add(name)

# Has its licence in one line of its source.
crates_of.setdefault("The MIT licence, in the words of llama.cpp's.", set()).add("JSON for Modern C++ (MIT), Copyright 2013 - 2025 Niels Lohmann")
sysroot = subprocess.check_output(["rustc", "--print", "sysroot"], text=True).strip()
notices = pathlib.Path(sysroot, "share/doc/rust/COPYRIGHT-library.html").read_text()
notices = html.unescape(re.sub(r"<[^>]+>", "", re.sub(r"(?s)<head>.*</head>", "", notices)))
crates_of[re.sub(r"\n\s*\n", "\n\n", notices).strip()] = {"Rust's standard library (Apache-2.0 OR MIT)"}

for text, crates in sorted(crates_of.items(), key=lambda item: sorted(item[1])):
    print("\n".join(sorted(crates)), "\n\n", text, "\n\n", "-" * 72, "\n", sep="")
