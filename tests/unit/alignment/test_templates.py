"""Templates by name and by file, where a response begins, and every template that is refused by its name."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoTokenizer

from afterword.alignment.templates import TEMPLATES, chat_tokens, plain_tokens, use_template
from afterword.corpus import Dialogue
from afterword.errors import ConfigError
from afterword.models import load_tokenizer

WHERE, BERGEN = {"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Bergen."}
SYSTEM = {"role": "system", "content": "Be kind."}


def texts(tokenizer: Any, name: str, prompt: Any, response: str = "Oslo.") -> tuple[str, str]:
    tokens = chat_tokens(tokenizer, name, prompt, response)
    return tokenizer.decode(tokens.ids[: tokens.start]), tokenizer.decode(tokens.ids[tokens.start :])


@pytest.mark.parametrize(
    ("name", "prompt", "response"),
    [
        ("plain", "<s>Be kind.\n\nQuestion: Where?\nAnswer: Bergen.</s>\nQuestion: Where?\nAnswer:", " Oslo.</s>"),
        (
            "chatml",
            "<s><|im_start|>system\nBe kind.</s>\n<|im_start|>user\nWhere?</s>\n<|im_start|>assistant\nBergen.</s>"
            "\n<|im_start|>user\nWhere?</s>\n<|im_start|>assistant\n",
            "Oslo.</s>",
        ),
    ],
)
def test_templates_with_a_name(model_folder, tmp_path, name, prompt, response):
    tokenizer = load_tokenizer(str(model_folder))
    assert use_template(tokenizer, name) == name
    assert texts(tokenizer, name, (SYSTEM, WHERE, BERGEN, WHERE)) == (prompt, response)
    # What is saved with the tokenizer writes the same.
    tokenizer.save_pretrained(tmp_path)
    saved = AutoTokenizer.from_pretrained(tmp_path)
    assert texts(saved, name, (SYSTEM, WHERE, BERGEN, WHERE)) == (prompt, response)


def test_a_bos_is_written_only_where_texts_begin_with_one(model_folder):
    from tokenizers import processors

    tokenizer = load_tokenizer(str(model_folder))
    # The tokenizer has a BOS, and adds none.
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    assert tokenizer("Where?")["input_ids"][0] != tokenizer.bos_token_id
    use_template(tokenizer, "plain")
    assert texts(tokenizer, "plain", (WHERE,))[0] == "Question: Where?\nAnswer:"


def test_a_template_from_a_file_and_the_tokenizers_own(chat_tokenizer, model_folder, tmp_path):
    (tmp_path / "mine.jinja").write_text(chat_tokenizer.chat_template, encoding="utf-8")
    bare = load_tokenizer(str(model_folder))
    assert use_template(bare, str(tmp_path / "mine.jinja")) == str(tmp_path / "mine.jinja")
    assert bare.chat_template == chat_tokenizer.chat_template
    assert use_template(chat_tokenizer, None) == "the tokenizer's own"
    assert texts(chat_tokenizer, "own", (WHERE,)) == ("<s>Q:Where?\nA:", "Oslo.</s>")


def test_a_tokenizer_without_a_template_is_told_what_there_is(model_folder):
    with pytest.raises(ConfigError, match=r"chat_template: missing.*plain, chatml, or a file"):
        use_template(load_tokenizer(str(model_folder)), None)
    with pytest.raises(ConfigError, match=r"'plian' is no template and no file. Did you mean plain"):
        use_template(load_tokenizer(str(model_folder)), "plian")


ALWAYS = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{% for m in messages %}{{ m['content'] }}", "cannot write a dialogue"),
        ("{{ raise_exception('no such role') }}", "cannot write a dialogue .no such role."),
        # The response is not there: the mask would be empty.
        ("{{ 'Q:' + messages[0]['content'] + 'A:' }}", "writes nothing for the response"),
        ("Q:{{ messages[0]['content'] }}{% if not add_generation_prompt %}{{ eos_token }}{% endif %}", "assistant's"),
        ("{% for m in messages %}{{ m['role'] + 'x' * loop.index }}{% endfor %}", "writes no user's words"),
        # The prompt is written otherwise where a response follows.
        ("{% if add_generation_prompt %}<think>{% endif %}" + ALWAYS, "writes the prompt .* in another way"),
        ("{{ messages | length }}" + ALWAYS, "writes the prompt .* in another way"),
    ],
)
def test_templates_that_are_refused_by_their_name(model_folder, tmp_path, template, says):
    (tmp_path / "wrong.jinja").write_text(template, encoding="utf-8")
    with pytest.raises(ConfigError, match=f"chat_template: '.*wrong.jinja' .*{says}"):
        use_template(load_tokenizer(str(model_folder)), str(tmp_path / "wrong.jinja"))


def test_a_sample_that_its_template_empties_is_refused_with_the_templates_name(chat_tokenizer):
    shy = "{% for m in messages %}{% if m['content'] != 'Secret.' %}{{ m['content'] }}{% endif %}{% endfor %}"
    chat_tokenizer.chat_template = shy
    use_template(chat_tokenizer, None)
    with pytest.raises(ConfigError, match=r"'shy.jinja' writes nothing for the response 'Secret.'"):
        chat_tokens(chat_tokenizer, "shy.jinja", (WHERE,), "Secret.")


def test_a_response_that_shares_a_token_with_the_prompt_is_joined(chat_tokenizer):
    chat_tokenizer.chat_template = ALWAYS
    # Only "bakery" as a whole is in the text that the tokenizer was trained on.
    prompt = ({"role": "user", "content": "bake"},)
    assert chat_tokens(chat_tokenizer, "own", prompt, "ry").joined
    assert not chat_tokens(chat_tokenizer, "own", ({"role": "user", "content": "x "},), "!").joined


def test_the_plain_form_is_what_stage_one_reads(chat_tokenizer):
    tokens = plain_tokens(chat_tokenizer, Dialogue((SYSTEM, WHERE, BERGEN), "Oslo."))
    assert chat_tokenizer.decode(tokens.ids) == "<s>Be kind.\n\nWhere?\n\nBergen."
    assert chat_tokenizer.decode(tokens.ids[tokens.start :]) == "Bergen."


def test_templates_are_shipped_with_names_that_are_not_files():
    assert set(TEMPLATES) == {"plain", "chatml"}
