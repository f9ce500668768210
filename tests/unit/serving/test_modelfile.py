"""ollama's Modelfile: a template says what the model's own says, or is left out with the reason."""

import copy
import json
import shutil
from types import SimpleNamespace

import pytest
from commands import run_command

from afterword.serving.chat_pieces import ChatPieces, NotInPieces, chat_pieces
from afterword.serving.modelfile import go_template, modelfile
from afterword.serving.samples import CONVERSATIONS, rendered

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are kind.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start|>' + m['role'] + '<|end|>\n\n' + m['content'] | trim + '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant<|end|>\n\n' }}{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
BRACES = "{% for m in messages %}{{ '{{' + m['role'] + '}}\n' + m['content'] + '\n' }}{% endfor %}"
FIRST_TURN_APART = (
    "{% for m in messages %}{{ ('first: ' if loop.first else '') + m['role'] + ' ' + m['content'] }}{% endfor %}"
)
SYSTEM_IN_USER = (
    "{% if messages[0]['role'] == 'system' %}{% set said = messages[0]['content'] + '\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set said = '' %}{% endif %}"
    "{% for m in messages %}{{ '[' + m['role'] + '] ' + (said if loop.first else '') + m['content'] }}{% endfor %}"
)
NO_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('No system role.') }}{% endif %}"
    "{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
)
DAY = "{{ strftime_now('%d %b') }}" + CHATML
SHAPES = {"chatml": CHATML, "llama3": LLAMA3, "zephyr": ZEPHYR, "braces": BRACES}


@pytest.fixture
def speaking(tokenizer):
    """`speaking(template)`: the tests' tokenizer with the tokens of turns and a chat template."""

    def make(template):
        made = copy.deepcopy(tokenizer)
        made.add_tokens(["<|im_start|>", "<|im_end|>", "<|eot|>"], special_tokens=True)
        made.chat_template = template
        return made

    return make


@pytest.fixture
def generation():
    def make(**values):
        names = ("eos_token_id", "do_sample", "temperature", "top_p", "top_k", "min_p", "repetition_penalty")
        return SimpleNamespace(**dict.fromkeys(names) | values)

    return make


def test_a_modelfile_of_chatml_by_hand(speaking, generation):
    tokenizer = speaking(CHATML)
    ends = [tokenizer.convert_tokens_to_ids("<|im_end|>"), 1]
    made = modelfile("m-q8_0.gguf", tokenizer, generation(eos_token_id=ends, temperature=0.2, top_p=0.9), {})
    assert made.left_out is None
    assert made.text == (
        "FROM ./m-q8_0.gguf\n"
        'TEMPLATE """{{ range .Messages }}'
        '{{ if eq .Role "system" }}<|im_start|>system\n{{ .Content }}<|im_end|>\n'
        '{{ else if eq .Role "user" }}<|im_start|>user\n{{ .Content }}<|im_end|>\n'
        '{{ else if eq .Role "assistant" }}<|im_start|>assistant\n{{ .Content }}<|im_end|>\n'
        '{{ end }}{{ end }}<|im_start|>assistant\n"""\n'
        'SYSTEM "You are kind."\n'
        'PARAMETER stop "<|im_end|>"\n'
        'PARAMETER stop "</s>"\n'
        "PARAMETER temperature 0.2\n"
        "PARAMETER top_p 0.9\n"
    )


def test_the_pieces_of_llama_3_by_hand(speaking):
    user, assistant = ("<|start|>user<|end|>\n\n", "<|eot|>"), ("<|start|>assistant<|end|>\n\n", "<|eot|>")
    assert chat_pieces(speaking(LLAMA3)) == ChatPieces(
        start="<s>",
        system=("<|start|>system<|end|>\n\n", "<|eot|>"),
        user=user,
        assistant=assistant,
        reply="<|start|>assistant<|end|>\n\n",
        default_system=None,
    )


def test_the_token_before_a_text_is_written_once(speaking):
    pieces = chat_pieces(speaking(LLAMA3))
    assert go_template(pieces, adds_bos=False).startswith("<s>{{ range .Messages }}")
    assert go_template(pieces, adds_bos=True).startswith("{{ range .Messages }}")


def test_braces_of_a_template_are_text_to_ollama(speaking):
    made = go_template(chat_pieces(speaking(BRACES)), adds_bos=False)
    assert '{{ if eq .Role "system" }}{{ "{{" }}system}}\n{{ .Content }}\n{{ else if' in made


def test_what_ends_a_turn_stops_it_although_generation_does_not_say_so(speaking):
    made = modelfile("m.gguf", speaking(LLAMA3), None, {})
    assert made.stops == ("</s>", "<|eot|>")


def test_a_model_that_does_not_draw_leaves_ollamas_own(speaking, generation):
    made = modelfile("m.gguf", speaking(CHATML), generation(do_sample=False, temperature=0.2, eos_token_id=1), {})
    assert "temperature" not in made.text


@pytest.mark.parametrize("shape", SHAPES)
def test_pieces_are_the_text_of_the_template(speaking, shape):
    tokenizer = speaking(SHAPES[shape])
    pieces = chat_pieces(tokenizer)
    assert [pieces.compose(each) for each in CONVERSATIONS] == [rendered(tokenizer, each) for each in CONVERSATIONS]


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (None, "the model has no chat template"),
        (DAY, "its chat template writes the day on which it is asked"),
        (SYSTEM_IN_USER, "its chat template writes a message in other ways at other places"),
        (FIRST_TURN_APART, "its chat template"),
        (NO_SYSTEM, "its chat template refuses a plain conversation (No system role.)"),
        ("{{ messages | length }}", "its chat template does not show each message once, as it stands"),
        (CHATML.replace("message['content']", "message['content'] | upper"), "its chat template does not show"),
        # Only a conversation of two rounds shows it.
        (CHATML.replace("{% endfor %}", "{% if loop.index > 3 %}!{% endif %}{% endfor %}"), "4 of 6"),
    ],
)
def test_a_template_that_is_more_than_pieces_is_left_out_and_it_is_said(speaking, template, reason):
    tokenizer = speaking(template)
    if reason == "4 of 6":
        reason = "its chat template is more than a text before and after each message"
    with pytest.raises(NotInPieces) as caught:
        chat_pieces(tokenizer)
    assert str(caught.value).startswith(reason)
    made = modelfile("m.gguf", tokenizer, None, {})
    assert "TEMPLATE " not in made.text
    assert f"# No TEMPLATE: {made.left_out}" in made.text


GO = """
package main
import ("encoding/json"; "os"; "text/template")
type message struct { Role, Content string }
func main() {
  var given struct { Template string; Conversations [][]*message }
  if err := json.NewDecoder(os.Stdin).Decode(&given); err != nil { panic(err) }
  made := template.Must(template.New("").Parse(given.Template))
  for _, each := range given.Conversations {
    if err := made.Execute(os.Stdout, map[string]any{"Messages": each}); err != nil { panic(err) }
    os.Stdout.WriteString("\\x00")
  }
}
"""


@pytest.mark.skipif(not shutil.which("go"), reason="needs Go, whose templates ollama reads")
def test_go_makes_the_text_of_the_chat_template(tmp_path, speaking):
    (tmp_path / "main.go").write_text(GO)
    run_command(["go", "build", "-o", str(tmp_path / "render"), str(tmp_path / "main.go")])
    for shape, template in SHAPES.items():
        tokenizer = speaking(template)
        pieces = chat_pieces(tokenizer)
        told = [pieces.default_system] if pieces.default_system else []
        asked = [
            [{"role": "system", "content": text} for text in told if each[0]["role"] != "system"] + list(each)
            for each in CONVERSATIONS
        ]
        given = {"Template": go_template(pieces, adds_bos=False), "Conversations": asked}
        (tmp_path / "given.json").write_text(json.dumps(given))
        made = run_command(["sh", "-c", f"{tmp_path}/render < {tmp_path}/given.json"]).out.split("\0")[:-1]
        assert made == [rendered(tokenizer, each) for each in CONVERSATIONS], shape
