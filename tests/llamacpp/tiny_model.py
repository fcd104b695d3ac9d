"""Writes a tiny random Llama with a token for each byte: half a megabyte, no download. The same one each time.

Runs in the environment that ``install.sh`` makes, not in ours: ``python tiny_model.py FILE``.
"""

import sys

import gguf  # type: ignore[import-not-found]
import numpy as np  # type: ignore[import-not-found,unused-ignore]

CONTEXT = 8192
WIDTH = 64
FEED_FORWARD = 128
LAYERS = 2
HEADS = 4
SPECIAL = (b"<unk>", b"<s>", b"</s>")
VOCABULARY = len(SPECIAL) + 256


def main(file: str) -> None:
    writer = gguf.GGUFWriter(file, "llama")
    _describe(writer)
    random = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> None:
        writer.add_tensor(f"{name}.weight", (random.standard_normal(shape) * 0.02).astype(np.float32))

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))

    weight("token_embd", VOCABULARY, WIDTH)
    weight("output", VOCABULARY, WIDTH)
    norm("output_norm")
    for block in (f"blk.{n}" for n in range(LAYERS)):
        norm(f"{block}.attn_norm")
        norm(f"{block}.ffn_norm")
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            weight(f"{block}.{name}", WIDTH, WIDTH)
        weight(f"{block}.ffn_gate", FEED_FORWARD, WIDTH)
        weight(f"{block}.ffn_up", FEED_FORWARD, WIDTH)
        weight(f"{block}.ffn_down", WIDTH, FEED_FORWARD)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: gguf.GGUFWriter) -> None:
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*SPECIAL, *(b"<0x%02X>" % n for n in range(256))])
    writer.add_token_scores([0.0] * VOCABULARY)
    kinds = gguf.TokenType
    writer.add_token_types([kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL] + [kinds.BYTE] * 256)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)


if __name__ == "__main__":
    main(sys.argv[1])
