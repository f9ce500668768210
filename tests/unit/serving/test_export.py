"""`afterword export`: converted by the program that is given, read back, and there only if it says the same."""

import copy
import json
import shutil

import pytest
import torch
from tokenizers import normalizers

from afterword.errors import CheckpointError
from afterword.models import load_model, load_tokenizer, written_as_folder
from afterword.serving.converter import SCRIPT
from afterword.serving.read_back import BOUND_NATS, Agreement, read_back, refuse_apart

TEMPLATE = "{% for m in messages %}{{ m['content'] }}</s>{% endfor %}"
"""That of the tests' GGUF files."""


@pytest.fixture
def model(build_model):
    return build_model("llama")


@pytest.fixture
def folder(tmp_path, model, tokenizer):
    """The model as an ordinary folder, in float32."""
    model.save_pretrained(tmp_path / "my docs")
    spoken = copy.deepcopy(tokenizer)
    spoken.chat_template = TEMPLATE
    spoken.save_pretrained(tmp_path / "my docs")
    return tmp_path / "my docs"


@pytest.fixture
def converter(tmp_path, write_gguf, model):
    """`converter(model, kind=…)`: a script that gives such a file whatever it is asked for."""

    def make(other=model, **how):
        ready = write_gguf(tmp_path / "ready.gguf", other, **how)
        script = tmp_path / SCRIPT
        script.write_text(f"import shutil, sys\nshutil.copy({str(ready)!r}, sys.argv[sys.argv.index('--outfile') + 1])")
        return script

    return make


def test_a_file_is_there_with_its_modelfile_and_what_was_measured(afterword, folder, converter, tmp_path):
    out = tmp_path / "served"
    said = afterword("export", str(folder), "-o", str(out), "--converter", str(converter()))
    assert said.code == 0, said.err
    assert sorted(file.name for file in out.iterdir()) == ["Modelfile", "my-docs-f32.gguf", "my-docs-f32.json"]
    found = json.loads((out / "my-docs-f32.json").read_text())
    assert found["read_back"]["kl_mean_nats"] <= 1e-6
    assert found["read_back"]["same_top_frac"] == 1
    assert found["read_back"]["same_template"]
    assert found["read_back"]["other_tokens"] == []
    assert found["read_back"]["texts"] == 14
    assert "FROM ./my-docs-f32.gguf\n" in (out / "Modelfile").read_text()
    assert "the same likeliest token in 100.0 %" in said.out
    assert f"ollama create my-docs -f {out}/Modelfile" in said.out


def test_eight_bits_are_near_and_within_their_bound(folder, converter, tmp_path):
    converter(kind="Q8_0")
    found = read_back(tmp_path / "ready.gguf", str(folder), tmp_path)
    assert 0 < found.kl_mean_nats < BOUND_NATS["q8_0"]
    assert found.logit_mean < found.logit_largest
    refuse_apart(found, "q8_0")
    with pytest.raises(CheckpointError, match="nats per token away, and 1e-06 is the most"):
        refuse_apart(found, "f32")


def test_the_figures_are_those_of_the_logits(folder, converter, perturb, build_model, tmp_path, tokenizer):
    moved = perturb(build_model("llama"), scale=0.02)
    converter(moved)
    found = read_back(tmp_path / "ready.gguf", str(folder), tmp_path)
    from afterword.serving.read_back import sample_texts

    first, second = load_model(str(folder)), moved
    kl, apart, same = [], [], []
    for text in sample_texts(load_tokenizer(str(folder))):
        ids = torch.tensor([tokenizer(text, add_special_tokens=False).input_ids[:512]])
        with torch.no_grad():
            a, b = (each(input_ids=ids).logits[0].double() for each in (first, second))
        p, q = a.softmax(-1), b.softmax(-1)
        kl += (p * (p.log() - q.log())).sum(-1).tolist()
        apart += (a - b).abs().flatten().tolist()
        same += (a.argmax(-1) == b.argmax(-1)).tolist()
    assert found.tokens == len(kl)
    assert found.kl_mean_nats == pytest.approx(sum(kl) / len(kl), rel=1e-3)
    assert found.kl_largest_nats == pytest.approx(max(kl), rel=1e-3)
    assert found.logit_mean == pytest.approx(sum(apart) / len(apart), rel=1e-3)
    assert found.logit_largest == pytest.approx(max(apart), rel=1e-3)
    assert found.same_top_frac == pytest.approx(sum(same) / len(same))


@pytest.mark.parametrize("checked", [True, False])
def test_a_file_that_says_something_else_is_refused(
    afterword, folder, converter, perturb, build_model, tmp_path, checked
):
    script, out = converter(perturb(build_model("llama"))), tmp_path / "served"
    words = ["--converter", str(script), *([] if checked else ["--no-check"])]
    said = afterword("export", str(folder), "-o", str(out), *words)
    if not checked:
        assert said.code == 0
        assert "not (--no-check)" in said.out
        assert json.loads((out / "my-docs-f32.json").read_text())["read_back"] is None
        return
    assert said.code == 1
    assert "f32 file: read back, it is not the model: its predictions are" in said.err
    assert list(out.iterdir()) == []


def test_another_chat_template_or_tokenizer_is_refused(folder, converter, tmp_path):
    converter()
    found = read_back(tmp_path / "ready.gguf", str(folder), tmp_path)
    assert found.same_template
    tokenizer = load_tokenizer(str(folder))
    tokenizer.chat_template = TEMPLATE + " "
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("committee", "board")
    tokenizer.save_pretrained(folder)
    found = read_back(tmp_path / "ready.gguf", str(folder), tmp_path)
    assert not found.same_template
    assert [text[:13] for text in found.other_tokens] == ["The committee"]
    with pytest.raises(CheckpointError, match="takes 1 of 14 texts apart in another way; its chat template is another"):
        refuse_apart(found, "f32")


def test_what_is_not_a_number_is_refused():
    found = Agreement(
        texts=1,
        tokens=1,
        kl_mean_nats=float("nan"),
        kl_largest_nats=0.0,
        logit_mean=0.0,
        logit_largest=0.0,
        same_top_frac=1.0,
        other_tokens=(),
        same_template=True,
    )
    with pytest.raises(CheckpointError):
        refuse_apart(found, "q8_0")


def test_an_adapter_is_merged_first(afterword, folder, build_model, converter, tmp_path):
    import peft

    torch.manual_seed(0)
    adapted = peft.get_peft_model(load_model(str(folder)), peft.LoraConfig(r=2, target_modules="all-linear"))
    for name, value in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.05)
    adapted.save_pretrained(tmp_path / "lora")
    load_tokenizer(str(folder)).save_pretrained(tmp_path / "lora")
    whole = adapted.merge_and_unload()
    said = afterword(
        "export", str(tmp_path / "lora"), "-o", str(tmp_path / "out"), "--converter", str(converter(whole))
    )
    assert said.code == 0, said.err
    assert "Merging the adapter into its base" in said.err
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["Modelfile", "lora-f32.gguf", "lora-f32.json"]


def test_the_type_is_the_models_own(afterword, folder, converter, tmp_path):
    load_model(str(folder)).to(torch.bfloat16).save_pretrained(folder)
    said = afterword("export", str(folder), "-o", str(tmp_path / "out"), "--converter", str(converter()), "--no-check")
    assert said.code == 0, said.err
    assert (tmp_path / "out" / "my-docs-bf16.gguf").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--file-type", "q4_k"], "file_type"),
        (["--name", "a/b"], "name: 'a/b' cannot be"),
        (["--converter", "nowhere"], "converter: 'nowhere' is not there"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(afterword, folder, tmp_path, words, said):
    ended = afterword("export", str(folder), "-o", str(tmp_path / "out"), *words)
    assert ended.code == 2
    assert said in ended.err
    assert not (tmp_path / "out").exists()


@pytest.mark.real
@pytest.mark.timeout(900)
@pytest.mark.skipif(not shutil.which(SCRIPT), reason="needs llama.cpp's converter on PATH")
@pytest.mark.parametrize("file_type", ["bf16", "q8_0"])
def test_llama_cpps_converter_on_a_real_model(afterword, real_model, tmp_path, file_type):
    said = afterword("export", str(real_model), "-o", str(tmp_path / "out"), "--file-type", file_type)
    assert said.code == 0, said.err
    found = json.loads(next((tmp_path / "out").glob("*.json")).read_text())
    assert found["template_left_out"] is None
    assert found["read_back"]["kl_mean_nats"] <= (1e-6 if file_type == "bf16" else BOUND_NATS["q8_0"])
    written_as_folder(next((tmp_path / "out").glob("*.gguf")), tmp_path / "again", name="again", about={})
    assert load_model(str(tmp_path / "again")).config.vocab_size == 49152
