"""Converts the tests' tiny models with llama.cpp's own converter, and prints the hashes of the files.

    convert_reference.py SOURCES MODELS OUT > daemon/convert/tests/convert/llama_cpp.sha256

SOURCES is the llama.cpp folder of the PyPI package in tests/tools/peers.sh; MODELS is what the example
`tiny-models` of daemon/convert wrote; OUT gets the converted files. Python needs what SOURCES says in
requirements/requirements-convert_hf_to_gguf.txt.
"""

import hashlib
import runpy
import subprocess
import sys
from pathlib import Path

TYPES = ("f32", "f16", "bf16", "q8_0")
# The converter knows tokenizers by hashes over vocabularies that it was told of.
PRE = {"llama": "llama-bpe", "qwen2": "qwen2", "qwen3": "qwen2", "bert": "jina-v2-en", "nomic-bert": "jina-v2-en"}


def convert(script, model, arguments):
    sys.path.insert(0, str(script.parent))
    from conversion.base import TextModel

    TextModel.get_vocab_base_pre = lambda _self, _tokenizer: PRE[model]
    sys.argv = [str(script), *arguments]
    runpy.run_path(str(script), run_name="__main__")


def main(sources, models, out):
    out.mkdir(parents=True, exist_ok=True)
    for folder in sorted(models.iterdir()):
        for kind in TYPES:
            file = out / f"{folder.name}.{kind}.gguf"
            arguments = ["--outtype", kind, "--outfile", str(file), str(folder)]
            if folder.name == "adapter":
                script = sources / "convert_lora_to_gguf.py"
                arguments += ["--base", str(models / "llama")]
            else:
                script = sources / "convert_hf_to_gguf.py"
                arguments += ["--model-name", "Tiny"]
            command = [sys.executable, __file__, "--one", str(script), folder.name, *arguments]
            result = subprocess.run(command, capture_output=True, text=True)
            if result.returncode != 0:
                sys.exit(f"{file.name}:\n{result.stderr}")
            print(hashlib.sha256(file.read_bytes()).hexdigest(), f"{folder.name}.{kind}", sep="  ", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        convert(Path(sys.argv[2]), sys.argv[3], sys.argv[4:])
    else:
        main(*map(Path, sys.argv[1:]))
