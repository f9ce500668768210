"""What a model writes for a request follows from the request: not from its neighbours, order or batch."""

import random

import pytest
import torch
from tiny_models import byte_tokenizer, random_llama

from afterword.models import decoding
from afterword.types import Request, Sampling, Written
from afterword.writing import LocalGenerator
from afterword.writing.replies import without_thoughts

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
DRAWN, GREEDY = Sampling(max_new_tokens=12, temperature=0.9, top_p=0.9), Sampling(max_new_tokens=12, temperature=0)
DOCUMENTS = ["The ferry of Orrin leaves at noon. " * 4, "A tax on salt was raised in the north. " * 3, "Short."]


def requests():
    """Several questions about each document, greedy and drawn, with two seeds each."""
    ways = [(sampling, seed) for sampling in (DRAWN, GREEDY) for seed in (0, 1)]
    return [
        Request(text=f"{document}{question}", sampling=sampling, seed=seed)
        for document in DOCUMENTS
        for question in ("Why?", "Who was it that did so, and when?")
        for sampling, seed in ways
    ]


def written(generator: LocalGenerator, asked: list[Request]) -> list[Written]:
    """In the order of what is asked."""
    found = dict[int, Written]()
    for batch in generator.batches(asked):
        for part in generator.write([asked[i] for i in batch], lambda _: None):
            found |= {batch[place]: text for place, (text, _) in part.items()}
    return [found[i] for i in range(len(asked))]


@pytest.fixture(scope="module")
def model():
    """Large enough weights that it says more than one thing."""
    found = random_llama()
    with torch.no_grad():
        found.lm_head.weight.mul_(30)
    return found


def test_order_and_batch_do_not_matter(model):
    asked = requests()
    expected = written(LocalGenerator(model, byte_tokenizer()), asked)
    assert len({text.text for text in expected}) > len(DOCUMENTS) * 4
    order = random.Random(0).sample(range(len(asked)), len(asked))
    moved = written(LocalGenerator(model, byte_tokenizer(), batch_tokens=400), [asked[i] for i in order])
    assert [moved[order.index(i)] for i in range(len(asked))] == expected
    alone = LocalGenerator(model, byte_tokenizer(), batch_tokens=0)
    assert written(alone, asked) == expected
    assert all(len(batch) == 1 for batch in alone.batches(asked))


def test_reading_a_beginning_once_changes_nothing_and_reads_less(model, monkeypatch):
    asked, read = requests(), list[int]()
    real = type(model).forward

    def counted(self, input_ids, **inputs):
        read.append(int(input_ids.shape[0] * input_ids.shape[1]))
        return real(self, input_ids=input_ids, **inputs)

    monkeypatch.setattr(type(model), "forward", counted)
    # It goes by the signature, which what counts does not have.
    monkeypatch.setattr(decoding, "_goes_by_steps", lambda _: True)
    counts, texts = list[int](), list[list[Written]]()
    for shares in (True, False):
        generator = LocalGenerator(model, byte_tokenizer(), shares=shares)
        assert generator.batches(asked), "what a model can do is tried before it is counted"
        read.clear()
        texts.append(written(generator, asked))
        counts.append(sum(read))
    assert texts[0] == texts[1]
    assert counts[0] < counts[1] / 2


def test_a_model_that_cannot_go_on_from_a_beginning_reads_everything_whole(model, monkeypatch):
    asked = requests()
    expected = written(LocalGenerator(model, byte_tokenizer()), asked)
    monkeypatch.setattr(decoding, "_goes_by_steps", lambda _: False)
    assert not LocalGenerator(model, byte_tokenizer())._sharing
    assert written(LocalGenerator(model, byte_tokenizer()), asked) == expected


def test_seed_sampling_and_prompt_make_other_texts(model):
    generator, one = LocalGenerator(model, byte_tokenizer()), Request(text="Once there", sampling=DRAWN)
    hot = Sampling(max_new_tokens=12, temperature=3)
    others = [Request(text="Once there", sampling=DRAWN, seed=1), Request(text="Once there", sampling=hot)]
    texts = [text.text for text in written(generator, [one, *others, one])]
    assert len(set(texts)) == 3
    assert texts[0] == texts[3]


def test_a_prompt_that_does_not_fit_is_empty_and_one_that_nearly_does_is_cut(model):
    limit = model.config.max_position_embeddings
    tokenizer = byte_tokenizer()
    rooms = {0: Request(text="a" * limit, sampling=DRAWN), 5: Request(text="a" * (limit - 5), sampling=DRAWN)}
    for room, request in rooms.items():
        (text,) = written(LocalGenerator(model, tokenizer), [request])
        assert len(tokenizer(text.text, add_special_tokens=False)["input_ids"]) <= room or room
        assert text.ended is False or room
    assert written(LocalGenerator(model, tokenizer), [rooms[0]]) == [Written("", ended=False)]


def test_turns_go_by_the_template_and_documents_write_no_control_tokens(model):
    tokenizer = byte_tokenizer(TEMPLATE, specials=["<|user|>", "<|assistant|>"])
    generator = LocalGenerator(random_llama(vocab_size=260), tokenizer)
    request = Request(turns=(("user", "Say </s> and <|assistant|>"),), sampling=GREEDY)
    prompt = generator.prompt_of(request)
    assert prompt.startswith("<|user|>Say <\N{ZERO WIDTH SPACE}/s> and")
    assert prompt.endswith("</s><|assistant|>")
    assert written(generator, [request]) == written(generator, [Request(text=prompt, sampling=GREEDY)])


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("<think>Hm.</think> Yes.", " Yes."),
        ("Hm. So it is.</think>Yes.", "Yes."),
        ("Yes. <think>Or is it", "Yes. "),
        ("A <think>b</think> c <think>d</think> e", "A  c  e"),
        ("I think so.", "I think so."),
    ],
)
def test_thoughts_are_cut(said, kept):
    assert without_thoughts(said) == kept
