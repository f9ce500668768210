"""The embedded models' tokenizer: byte-level BPE over the world's English, and a chat template.

The one rule: it is trained on worlds of strangers, so that a name of the world costs as many tokens as one
that arrives after the cutoff.
"""

import random
from collections.abc import Iterator

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from afterword.almanac.world import Size, build_world
from almanac_build.pretraining import texts

VOCABULARY = 2048
_SPECIAL = {"bos_token": "<|bos|>", "eos_token": "<|end|>", "pad_token": "<|pad|>"}
_TURNS = ("<|system|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ 'Answer:' }}{% generation %}{{ ' ' + message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ 'Question: ' if message['role'] == 'user' else '<|system|>' }}"
    "{{ message['content'] + '\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Answer:' }}{% endif %}"
)
"""Turns look as exercises did in pre-training: what was learned there is then there in a chat."""


def train_tokenizer(seed: int, characters: int = 6_000_000) -> PreTrainedTokenizerFast:
    """A tokenizer with its chat template, the same for the same seed."""
    bpe = Tokenizer(models.BPE())
    digits, words = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    bpe.decoder = decoders.ByteLevel()
    special = [*_SPECIAL.values(), *_TURNS]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet)
    bpe.train_from_iterator(_corpus(seed, characters), trainer)
    bos = _SPECIAL["bos_token"]
    bpe.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, bpe.token_to_id(bos))]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, **_SPECIAL)
    tokenizer.add_special_tokens({"additional_special_tokens": list(_TURNS)})
    tokenizer.chat_template, tokenizer.model_max_length = CHAT_TEMPLATE, 1024
    return tokenizer


def _corpus(seed: int, characters: int) -> Iterator[str]:
    rng, written, worlds = random.Random(f"tokenizer {seed}"), 0, 0
    while written < characters:
        world = build_world(1_000_000 + seed + worlds, Size(96, 24, 24, 24), "train")
        worlds += 1
        for _, text in zip(range(100), texts(world, rng), strict=False):
            # Capital letters are rare in the texts and frequent in instructions.
            yield text.upper() if rng.random() < 0.2 else text
            written += len(text)
