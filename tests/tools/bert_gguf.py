"""Writes the BERT model in a folder of safetensors as GGUF, in 32-bit floats: bert_gguf.py FOLDER OUTPUT

For the one embedding model of the tests, whose package has no GGUF. The same input gives the same bytes.
"""

import json
import struct
import sys
from pathlib import Path

ALIGNMENT = 32
NAMES = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.LayerNorm": "token_embd_norm",
}
LAYER_NAMES = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
# Value types of GGUF: number, how struct packs one.
U32, I32, F32, BOOL, STRING, ARRAY = (4, "<I"), (5, "<i"), (6, "<f"), (7, "<?"), (8, None), 9


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def packed(kind, value):
    return text(value) if kind is STRING else struct.pack(kind[1], value)


def pair(key, kind, value):
    if isinstance(value, list):
        items = b"".join(packed(kind, item) for item in value)
        return text(key) + struct.pack("<IIQ", ARRAY, kind[0], len(value)) + items
    return text(key) + struct.pack("<I", kind[0]) + packed(kind, value)


def piece(token):
    """As llama.cpp wants WordPiece: the start of a word is marked, not its continuation."""
    if token.startswith("[") and token.endswith("]"):
        return token
    return token[2:] if token.startswith("##") else "\u2581" + token


def metadata(config, vocabulary):
    yield pair("general.architecture", STRING, "bert")
    yield pair("general.type", STRING, "model")
    yield pair("general.name", STRING, "all-MiniLM-L6-v2")
    yield pair("general.size_label", STRING, "22M")
    yield pair("general.file_type", U32, 0)
    for key, name in (
        ("context_length", "max_position_embeddings"),
        ("embedding_length", "hidden_size"),
        ("feed_forward_length", "intermediate_size"),
        ("block_count", "num_hidden_layers"),
        ("attention.head_count", "num_attention_heads"),
    ):
        yield pair("bert." + key, U32, config[name])
    yield pair("bert.attention.layer_norm_epsilon", F32, config["layer_norm_eps"])
    yield pair("bert.attention.causal", BOOL, False)
    yield pair("bert.pooling_type", U32, 1)  # mean
    yield pair("tokenizer.ggml.model", STRING, "bert")
    yield pair("tokenizer.ggml.token_type_count", U32, config["type_vocab_size"])
    yield pair("tokenizer.ggml.tokens", STRING, [piece(token) for token in vocabulary])
    control = {name: vocabulary.index(f"[{name}]") for name in ("PAD", "UNK", "CLS", "SEP", "MASK")}
    kinds = [3 if number in control.values() else 1 for number in range(len(vocabulary))]
    yield pair("tokenizer.ggml.token_type", I32, kinds)
    for key, name in (
        ("bos", "CLS"),
        ("eos", "SEP"),
        ("seperator", "SEP"),  # GGUF spells it so.
        ("unknown", "UNK"),
        ("padding", "PAD"),
        ("cls", "CLS"),
        ("mask", "MASK"),
    ):
        yield pair(f"tokenizer.ggml.{key}_token_id", U32, control[name])


def name_in_gguf(name):
    stem, suffix = name.rsplit(".", 1)
    if stem in NAMES:
        return f"{NAMES[stem]}.{suffix}"
    _encoder, _layer, number, part = stem.split(".", 3)
    return f"blk.{number}.{LAYER_NAMES[part]}.{suffix}"


def tensors(path):
    """Name, shape and bytes of each tensor that llama.cpp uses."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    start = 8 + length
    for name, entry in json.loads(data[8:start]).items():
        if name == "__metadata__" or name.startswith("pooler.") or name.endswith("position_ids"):
            continue
        assert entry["dtype"] == "F32", name
        begin, end = entry["data_offsets"]
        yield name_in_gguf(name), entry["shape"], data[start + begin : start + end]


def padding(length):
    return b"\0" * (-length % ALIGNMENT)


def main(folder, output):
    config = json.loads((folder / "config.json").read_text())
    vocabulary = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
    pairs = list(metadata(config, vocabulary[: config["vocab_size"]]))
    weights = list(tensors(folder / "model.safetensors"))
    header = struct.pack("<4sIQQ", b"GGUF", 3, len(weights), len(pairs)) + b"".join(pairs)
    offset = 0
    for name, shape, data in weights:
        # GGUF counts dimensions from the fastest; type 0 is F32.
        dimensions = b"".join(struct.pack("<Q", size) for size in reversed(shape))
        header += text(name) + struct.pack("<I", len(shape)) + dimensions + struct.pack("<IQ", 0, offset)
        offset += len(data) + len(padding(len(data)))
    with open(output, "wb") as file:
        file.write(header + padding(len(header)))
        for _name, _shape, data in weights:
            file.write(data + padding(len(data)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
