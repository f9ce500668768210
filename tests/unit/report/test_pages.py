"""What must be true of any page, whatever it looks like."""

import json
import os
import re
from html.parser import HTMLParser

import pytest
import yaml
from commands import run_python

from afterword.errors import CheckpointError
from afterword.report import write_model_card, write_report
from afterword.report.pages import printed_settings

VOID = {"meta", "br", "hr", "img", "input", "link"}


class _Checked(HTMLParser):
    """Collects what is wrong: unbalanced tags, duplicate ids, dead local links, anything from outside."""

    def __init__(self):
        super().__init__()
        self.open, self.wrong, self.ids, self.links, self.tags = [], [], [], set(), set()

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href"):
                self.links.add(value)
            if name in ("aria-labelledby", "aria-describedby"):
                self.links.add(f"#{value}")
            if name.startswith("on"):
                self.wrong.append(f"{tag} {name}")

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> at {self.getpos()}")


def _check(html):
    page = _Checked()
    page.feed(html)
    page.close()
    return page


@pytest.mark.parametrize("fixture", ["run", "unmeasured_run"])
def test_the_page_is_well_formed_and_needs_nothing_from_outside(fixture, request):
    html = write_report(request.getfixturevalue(fixture))[0].read_text()
    page = _check(html)
    assert page.wrong == []
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert page.links <= {f"#{name}" for name in page.ids}
    assert not page.tags & {"script", "link", "img", "iframe", "object"}
    assert not re.search(r"https?://|@import|url\((?!#)", html)


def test_text_of_documents_and_models_is_escaped(run):
    html, markdown = (file.read_text() for file in write_report(run))
    card = write_model_card(run).read_text()
    for text in (html, markdown, card):
        assert "<script" not in text
        assert "&lt;script&gt;" in text
    for text in (markdown, card):
        assert "| `a` *b*" not in text  # a pipe would end the cell


def test_a_hostile_folder_name_and_settings_are_escaped(run):
    hostile = run.rename(run.parent / "<script>alert(1)<")
    settings = {"model_name_or_path": "</title><script>", "method": "<script>", "output_dir": "```\n<b>"}
    (hostile / "config.yaml").write_text(yaml.safe_dump(settings))
    html = write_report(hostile)[0].read_text()
    assert "<script" not in html
    assert _check(html).wrong == []
    card = write_model_card(hostile).read_text()
    assert yaml.safe_load(card.split("---")[1])["base_model"] == "</title><script>"
    assert "<script" not in card.split("---", 2)[2]


def test_table_rows_of_the_markdown_have_as_many_cells_as_their_header(run):
    for file in (write_report(run)[1], write_model_card(run)):
        width = None
        for line in file.read_text().splitlines():
            cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else None
            assert width is None or cells is None or cells == width, line
            width = cells


def test_the_same_folder_gives_the_same_bytes(run):
    first = [file.read_bytes() for file in (*write_report(run), write_model_card(run))]
    second = [file.read_bytes() for file in (*write_report(run), write_model_card(run))]
    assert first == second


def test_a_run_without_scores_says_so_and_how_to_measure(unmeasured_run):
    card = write_model_card(unmeasured_run)
    for file in (*write_report(unmeasured_run), card):
        text = file.read_text()
        assert "Nothing has been measured yet" in text
        assert f"afterword evaluate {unmeasured_run}" in text
        assert "All scores" not in text


def test_before_it_is_measured_a_first_look_is_the_verdict(unmeasured_run):
    e = {"value": 0.02, "interval_95": [0.01, 0.03]}
    share = {
        "task": "learning/trained",
        "metric": "share_of_context_gain_frac",
        "n": 9,
        "better": "higher",
        "details": {},
    }
    share |= {"before": None, "after": e, "change": None}
    (unmeasured_run / "learned.json").write_text(json.dumps({"scores": [share]}))
    for file in (*write_report(unmeasured_run), write_model_card(unmeasured_run)):
        text = file.read_text()
        assert "Practically nothing of the text was learned: 2.0 % of what reading the document gives" in text
        assert "This is a first look" in text
        assert "Nothing has been measured yet" not in text


def test_key_scores_stand_in_the_headline_with_interval_and_n(run):
    html, markdown = (file.read_text() for file in write_report(run))
    column = html[html.index("What was learned") : html.index("What was lost")]
    for part in ("5.0% →", "41.2%", "+36.2 points", "[30.2, 42.2]", "n = 240", "Rises, which is better"):
        assert part in column
    assert "1.873 with the document in context" in column
    assert "2.512 → 2.104 nats per token; change −0.408, 95 % interval [−0.448, −0.368], n = 240" in markdown


def test_the_headline_is_counted_in_words(run):
    for file in write_report(run):
        text = file.read_text()
        assert "Of 4 measures: 4 better." in text
        assert "Of 7 measures: 1 better, 1 too little to notice, 2 without clear change, 3 not judged." in text
        assert "1 more in the table of all scores" in text


def test_the_verdict_heads_the_page_and_the_card(run):
    html, markdown = (file.read_text() for file in write_report(run))
    learned = "A part was learned: 42.2 % of what reading the document gives"
    for text in (html, markdown, write_model_card(run).read_text()):
        assert text.index(learned) < text.index("What was learned")
        assert "Nothing noticeable was lost: changed by +4.2 points (2 benchmarks" in text
    assert "More passes may teach the rest" in html
    assert "More passes may teach the rest" in markdown


def test_settings_that_are_not_set_are_left_out(run):
    (run / "config.yaml").write_text("a: null\nb: ''\nc: []\nd: {e: {}}\nshown_0: 0\nshown_no: false\n")
    settings = write_report(run)[1].read_text().split("## Settings")[1].split("### Evaluation")[0]
    assert [line.split("`")[1] for line in settings.splitlines() if line.startswith("| `")] == ["shown_0", "shown_no"]


def test_the_first_forty_questions_are_shown_and_the_rest_counted(run):
    html = write_report(run)[0].read_text()
    # 60 questions: 15 with the document, 45 without, of which 5 are over the limit.
    assert html.count("<b>Before: ") == 15 + 40
    assert "5 more are in scores.json" in html
    for mark in ("newly right", "forgotten", "still right", "still wrong"):
        assert f'">{mark}</span>' in html


def test_an_unfinished_run_is_marked(run):
    (run / "state.json").write_text('{"status": "stopped", "steps": 7}')
    for file in write_report(run):
        assert "not complete (status: stopped)" in file.read_text()


def test_skipped_rows_are_listed_and_the_rest_counted(run):
    data = json.loads((run / "data.json").read_text())
    data["skipped"] = [{"source": "a", "location": f"line {i}", "reason": "empty"} for i in range(60)]
    (run / "data.json").write_text(json.dumps(data | {"skipped_total": 1234}))
    for file in write_report(run):
        text = file.read_text()
        assert "line 49" in text
        assert "line 50" not in text
        assert "1,184 more are not listed" in text


def test_figures_have_words_and_colours_that_follow_the_page(run):
    html = write_report(run)[0].read_text()
    assert html.count('role="img"') == 2
    for name in ("training", "changes"):
        assert f'aria-labelledby="{name}-title"' in html
        assert f'id="{name}-title"' in html
    assert "stroke: var(--better)" in html
    assert "fill: var(--ink)" in html
    drawn = html[html.index("<svg") : html.rindex("</svg>")]
    assert not re.search(r"(stroke|fill): #", drawn)


def test_a_name_with_dollars_is_not_set_as_mathematics(run):
    scores = json.loads((run / "scores.json").read_text())
    scores["scores"][0] |= {"task": r"tasks/$\frac{$", "metric": r"$\frac{$"}
    (run / "scores.json").write_text(json.dumps(scores))
    html = write_report(run)[0].read_text()
    drawn = html[html.index("<svg") : html.index("</svg>")]
    assert r"$\frac{$: $\frac{$" in drawn
    assert r"change in $\frac{$" in drawn


def test_a_long_run_does_not_make_a_long_page(run):
    rows = ({"step": i, "train/loss_nats": 1 / i} for i in range(1, 20_001))
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert write_report(run)[0].stat().st_size < 250_000


def test_a_run_without_any_loss_has_no_training_figure(unmeasured_run):
    (unmeasured_run / "metrics.jsonl").write_text("")
    assert "<svg" not in write_report(unmeasured_run)[0].read_text()


def test_the_card_knows_a_model_from_an_adapter(run):
    front = yaml.safe_load(write_model_card(run).read_text().split("---")[1])
    assert front == {"base_model": "Qwen/Qwen3-1.7B", "library_name": "transformers", "tags": ["afterword", "disc"]}
    (run / "adapter_config.json").write_text("{}")
    card = write_model_card(run).read_text()
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "peft"
    assert "AutoPeftModelForCausalLM" in card
    assert "--lora-modules docs=runs/docs" in card


def test_a_page_is_written_whole_or_not_at_all(run, monkeypatch):
    write_report(run)
    before = (run / "report.html").read_bytes()
    (run / "command.txt").write_text("changed\n")

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    monkeypatch.setattr("pathlib.Path.replace", full_disk)
    with pytest.raises(CheckpointError, match=r"report\.html: cannot be written \(No space left.*afterword report"):
        write_report(run)
    assert (run / "report.html").read_bytes() == before
    assert not list(run.glob(".*.tmp"))


def test_nothing_heavy_is_imported(run):
    code = (
        "import sys; from pathlib import Path; import afterword.report as r\n"
        "early = {'jinja2', 'matplotlib', 'pydantic', 'yaml'} & set(sys.modules)\n"
        f"r.write_report(Path({str(run)!r}))\n"
        "print(sorted(early), 'torch' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    )
    assert run_python("-c", code).out.strip() == "[] False False"


def test_settings_of_an_adapter_are_shown_only_where_there_is_one():
    given = {"seed": 1, "lora_r": 16, "use_dora": False, "merge_adapter": False, "learning_rate": 1e-4}
    whole = printed_settings({**given, "use_peft": False})
    assert whole == {"seed": "1", "learning_rate": "0.0001"}
    assert set(printed_settings({**given, "use_peft": True})) == {*given, "use_peft"}
    assert "lora_r" in printed_settings({"lora_r": 16}), "settings of something else"


def test_the_card_has_the_chat_template_to_the_letter(run):
    template = (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] }}\n```{% endfor %}\n<b>| *x* |</b>  "
    )
    (run / "chat_template.jinja").write_text(template)
    card = write_model_card(run).read_text()
    assert f"````jinja\n{template}\n````\n" in card
    (run / "chat_template.jinja").unlink()
    assert "It has none: it continues texts" in write_model_card(run).read_text()


def test_the_card_says_how_to_serve_it(run):
    card = write_model_card(run).read_text()
    assert "```sh\nvllm serve runs/docs\n```" in card
    assert (
        f"```sh\nafterword export runs/docs -o runs/docs/gguf --file-type q8_0 --name {run.name}\n"
        f"llama-server -m runs/docs/gguf/{run.name}-q8_0.gguf --jinja\n"
        f"ollama create {run.name} -f runs/docs/gguf/Modelfile\n```" in card
    )


@pytest.mark.parametrize(
    ("adapter", "command"),
    [
        ({"r": 16}, "vllm serve org/base --enable-lora --lora-modules NAME=runs/docs"),
        ({"r": 17}, "vllm serve org/base --enable-lora --lora-modules NAME=runs/docs --max-lora-rank 32"),
        ({"r": 8, "rank_pattern": {"q_proj": 100}}, "--lora-modules NAME=runs/docs --max-lora-rank 128"),
        ({"r": 16, "use_dora": True}, "vLLM does not take this adapter"),
        ({"r": 16, "modules_to_save": ["lm_head"]}, "vLLM does not take this adapter"),
    ],
)
def test_how_vllm_takes_an_adapter_and_which_it_does_not(run, adapter, command):
    (run / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/base", **adapter}))
    card = write_model_card(run).read_text()
    assert f"{command.replace('NAME', run.name)}\n" in card or command in card
    assert ("vllm serve" in card) == command.startswith(("vllm serve", "--lora"))


def test_a_merged_model_is_served_whole(run):
    (run / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/base", "use_dora": True}))
    (run / "merged").mkdir()
    card = write_model_card(run).read_text()
    assert "vllm serve runs/docs/merged\n" in card
    assert "afterword export runs/docs/merged -o runs/docs/gguf" in card
