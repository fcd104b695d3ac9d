"""Writes a tiny random Llama with a byte-level BPE tokenizer trained on the spot: a second's work, 5 MB, no download.

Runs in the environment that ``install.sh`` makes, not in ours: ``python tiny_model.py DIRECTORY``.
"""

import sys

from tokenizers import ByteLevelBPETokenizer  # type: ignore[import-not-found]
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed  # type: ignore[import-not-found]

VOCABULARY = 512
TEXT = [f"the meter counts every token once and joule {n} buys {n * 7 % 101} of them, idle or busy" for n in range(2000)]


def main(directory: str) -> None:
    set_seed(0)
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(TEXT, vocab_size=VOCABULARY, special_tokens=["<s>", "</s>"], show_progress=False)
    PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(directory)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(directory)


if __name__ == "__main__":
    main(sys.argv[1])
