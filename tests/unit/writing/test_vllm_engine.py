"""vLLM writes: asked as vLLM 0.32 takes it, the same texts as of the model in this process, each stored as it ends."""

import importlib
import inspect
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from afterword.errors import ConfigError
from afterword.models import load_model, load_tokenizer
from afterword.types import Request, Sampling, Written
from afterword.writing import GeneratorChoice, LocalGenerator, open_writer
from afterword.writing.replies import prompt_tokens
from afterword.writing.vllm_engine import VllmGenerator

DOCUMENTS = ["The ferry of Orrin leaves at noon. ", "A tax on salt was raised in the north. ", "Short."]


def asked(temperature: float, most: int = 12) -> list[Request]:
    """Two texts about each document."""
    how = Sampling(max_new_tokens=most, temperature=temperature)
    return [Request(text=document, sampling=how, seed=seed) for document in DOCUMENTS for seed in (0, 1)]


@dataclass(kw_only=True)
class SamplingParams:
    """What of vllm.SamplingParams is used here, as it is declared there; any other name is refused."""

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop_token_ids: list[int] | None = None
    max_tokens: int | None = 16
    detokenize: bool = True


@dataclass
class Engine:
    """vllm.LLM.llm_engine: a step is a token of every request, and each comes back when it has ended."""

    model: Any
    running: dict[str, tuple[list[int], SamplingParams, list[int]]] = field(default_factory=dict)
    steps: int = 0
    was_shut_down: bool = False

    @property
    def engine_core(self) -> Any:
        return SimpleNamespace(shutdown=self.shutdown)

    def shutdown(self, timeout: float | None = None) -> None:
        self.was_shut_down = True

    def has_unfinished_requests(self) -> bool:
        return bool(self.running)

    def step(self) -> list[Any]:
        self.steps += 1
        found = list[Any]()
        for name, (prompt, how, new) in list(self.running.items()):
            with torch.inference_mode():
                logits = self.model(torch.tensor([prompt + new])).logits[0, -1].float()
            new.append(self.chosen(logits, how, len(new)))
            stopped = new[-1] in (how.stop_token_ids or ())
            finished = stopped or len(new) == how.max_tokens
            reason = "stop" if stopped else "length" if finished else None
            output = SimpleNamespace(token_ids=new, finish_reason=reason)
            found.append(SimpleNamespace(request_id=name, finished=finished, outputs=[output]))
            if finished:
                del self.running[name]
        # The last that was asked for comes back first: the order is not that of the requests.
        return found[::-1]

    @staticmethod
    def chosen(logits: torch.Tensor, how: SamplingParams, number: int) -> int:
        if not how.temperature:
            return int(logits.argmax())
        drawn = torch.Generator().manual_seed((how.seed or 0) + number)
        return int(torch.multinomial((logits / how.temperature).softmax(-1), 1, generator=drawn))


@dataclass
class Vllm:
    """The module, as far as it is used."""

    began: list[dict[str, Any]] = field(default_factory=list)
    engines: list[Engine] = field(default_factory=list)
    prompts: list[list[int]] = field(default_factory=list)
    hows: list[SamplingParams] = field(default_factory=list)
    SamplingParams: type = SamplingParams

    def LLM(  # noqa: N802  (its name there)
        self,
        model: str,
        *,
        dtype: str = "auto",
        enforce_eager: bool = False,
        enable_chunked_prefill: bool | None = None,
        enable_prefix_caching: bool | None = None,
        distributed_executor_backend: str | None = None,
        use_tqdm_on_load: bool = True,
    ) -> Any:
        how = {"prefixes": enable_prefix_caching, "eager": enforce_eager, "parts": enable_chunked_prefill}
        self.began.append({"model": model, "dtype": dtype, **how})
        engine, numbers = Engine(load_model(model, dtype=getattr(torch, dtype)).eval()), count()
        self.engines.append(engine)

        def enqueue(
            prompts: Sequence[dict[str, list[int]]], sampling_params: Sequence[SamplingParams], *, use_tqdm: bool = True
        ) -> list[str]:
            given = list[str]()
            for prompt, how in zip(prompts, sampling_params, strict=True):
                number = next(numbers)
                self.prompts.append(prompt["prompt_token_ids"])
                self.hows.append(how)
                engine.running[str(number)] = (prompt["prompt_token_ids"], how, [])
                given.append(f"{number}-0f{number:06x}")
            return given

        return SimpleNamespace(llm_engine=engine, enqueue=enqueue)


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Vllm]:
    """It stands where vLLM would be imported."""
    for name in [name for name in os.environ if name.startswith("VLLM_")] + ["VLLM_LOGGING_LEVEL"]:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    module, real = Vllm(), importlib.import_module

    def instead(name: str, package: str | None = None) -> Any:
        return module if name == "vllm" else real(name, package)

    before = dict(os.environ)
    monkeypatch.setattr("afterword.writing.vllm_engine.importlib.import_module", instead)
    yield module
    for name in set(os.environ) - set(before):
        del os.environ[name]


def written(generator: Any, requests: Sequence[Request]) -> list[Written]:
    """In the order of what is asked."""
    found = dict[int, Written]()
    for batch in generator.batches(requests):
        for part in generator.write([requests[i] for i in batch], lambda _: None):
            found |= {batch[place]: text for place, (text, _) in part.items()}
    return [found[i] for i in range(len(requests))]


def test_the_likeliest_texts_are_those_of_the_model_in_this_process(vllm: Vllm, model_folder: Path):
    tokenizer = load_tokenizer(str(model_folder))
    local = LocalGenerator(load_model(str(model_folder)).eval(), tokenizer)
    requests = asked(0.0, most=40)
    expected = written(local, requests)
    assert len(set(expected)) == len(DOCUMENTS)
    generator = VllmGenerator(str(model_folder), tokenizer)
    assert written(generator, requests) == expected
    # A second batch: the engine goes on counting its requests.
    assert written(generator, requests[:2]) == expected[:2]
    how = {"prefixes": True, "eager": True, "parts": False}
    assert vllm.began == [{"model": str(model_folder), "dtype": "float32", **how}]
    assert generator.name == f"vllm {local.name.split()[1]} float32"


def test_every_token_that_ends_a_text_of_the_model_ends_it_here(vllm: Vllm, model_folder: Path, tmp_path: Path):
    tokenizer = load_tokenizer(str(model_folder))
    model = load_model(str(model_folder)).eval()
    (plain,) = written(LocalGenerator(model, tokenizer), [asked(0.0)[0]])
    read = torch.tensor([prompt_tokens(tokenizer, asked(0.0)[0])])
    third = int(model.generate(read, do_sample=False, max_new_tokens=3)[0, -1])
    # The model's own list of ends, which its tokenizer does not know.
    model.generation_config.eos_token_id = [third]
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (ended,) = written(VllmGenerator(str(tmp_path), tokenizer), [asked(0.0)[0]])
    assert ended.ended
    assert not plain.ended
    assert plain.text.startswith(ended.text)
    assert len(ended.text) < len(plain.text)


def test_drawn_texts_differ_by_their_seed_alone(vllm: Vllm, model_folder: Path):
    tokenizer, requests = load_tokenizer(str(model_folder)), asked(1.0)
    found = written(VllmGenerator(str(model_folder), tokenizer), requests)
    assert len(set(found)) == len(requests)
    # Not those of the requests: two documents would be drawn with the same random numbers.
    assert len({how.seed for how in vllm.hows}) == len(requests)
    again = written(VllmGenerator(str(model_folder), tokenizer), requests[::-1])
    assert again[::-1] == found


def test_a_text_is_stored_as_soon_as_it_ends_and_not_asked_for_again(
    vllm: Vllm, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tokenizer = load_tokenizer(str(model_folder))
    requests = [Request(text=f"{n} ", sampling=Sampling(max_new_tokens=3 + n)) for n in range(4)]
    choice = GeneratorChoice(generator="vllm", generator_model=str(model_folder), written_folder=str(tmp_path))

    def write() -> list[Written]:
        with open_writer(lambda: pytest.fail("the model that is taught is not asked"), tokenizer, choice) as writer:
            return writer.write(requests, "texts")

    real = Engine.step

    def stopped(self: Engine) -> list[Any]:
        if self.steps == 4:
            raise KeyboardInterrupt
        return real(self)

    monkeypatch.setattr(Engine, "step", stopped)
    with pytest.raises(KeyboardInterrupt):
        write()
    assert vllm.engines[0].was_shut_down
    (store,) = tmp_path.glob("vllm-*.jsonl")
    there = [json.loads(line) for line in store.read_text().splitlines()]
    assert [row["prompt"] for row in there] == ["0 ", "1 "]
    vllm.prompts.clear()
    monkeypatch.setattr(Engine, "step", real)
    texts = write()
    assert len(vllm.prompts) == 2
    assert [text.text for text in texts[:2]] == [row["text"] for row in there]
    assert write() == texts
    assert len(vllm.engines) == 2, "an engine is not begun for texts that are there"


def test_what_does_not_fit_the_context_is_empty_and_not_asked(vllm: Vllm, model_folder: Path):
    tokenizer = load_tokenizer(str(model_folder))
    long = Request(text="word " * 400, sampling=Sampling(max_new_tokens=8))
    found = written(VllmGenerator(str(model_folder), tokenizer), [long, asked(0.0)[0]])
    assert found[0] == Written("", ended=False)
    assert found[1].text
    assert len(vllm.prompts) == 1


def test_the_environment_says_what_is_not_set_already(vllm: Vllm, model_folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "INFO")
    written(VllmGenerator(str(model_folder), load_tokenizer(str(model_folder))), asked(0.0)[:1])
    assert os.environ["VLLM_LOGGING_LEVEL"] == "INFO"
    assert os.environ["VLLM_LOGGING_STREAM"] == "ext://sys.stderr"
    assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"


def test_two_conversations_are_refused(vllm: Vllm, model_folder: Path):
    generator = VllmGenerator(str(model_folder), load_tokenizer(str(model_folder)))
    turns = (("user", "a"),)
    with pytest.raises(ConfigError, match="vllm writes whole texts"):
        generator.prompt_of(Request(turns=turns, other_turns=turns, sampling=Sampling(max_new_tokens=2)))


def test_an_adapter_is_refused_before_anything_is_read(vllm: Vllm, model_folder: Path, tmp_path: Path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(model_folder)}))
    choice = GeneratorChoice(generator="vllm", generator_model=str(tmp_path))
    with (
        pytest.raises(ConfigError, match=r"generator_model: .* is an adapter, .* Give the merged model"),
        open_writer(lambda: None, load_tokenizer(str(model_folder)), choice),
    ):
        pass


def test_vllm_that_is_not_there_is_said(model_folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "vllm", None)
    generator = VllmGenerator(str(model_folder), load_tokenizer(str(model_folder)))
    with pytest.raises(ConfigError, match=r"generator: vllm cannot be imported here .* leave generator out"):
        written(generator, asked(0.0)[:1])


def test_the_stand_in_is_true_to_vllm():
    """Where vLLM is installed: every name that is used here is one of its own, with the same default."""
    there = pytest.importorskip("vllm")
    assert inspect.signature(there.LLM.enqueue).parameters.keys() >= {"prompts", "sampling_params", "use_tqdm"}
    arguments = (
        inspect.signature(there.LLM.__init__).parameters.keys()
        | inspect.signature(importlib.import_module("vllm.engine.arg_utils").EngineArgs).parameters.keys()
    )
    assert inspect.signature(Vllm.LLM).parameters.keys() - {"self"} <= arguments
    own, theirs = inspect.signature(SamplingParams).parameters, inspect.signature(there.SamplingParams).parameters
    assert {name: each.default for name, each in own.items()} == {name: theirs[name].default for name in own}


@pytest.mark.real
@pytest.mark.timeout(600)
def test_vllm_itself_writes_the_likeliest_text_of_the_real_model(real_model: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("vllm")
    monkeypatch.setattr("afterword.writing.vllm_engine.evaluation_dtype", lambda names: torch.float32)
    tokenizer = load_tokenizer(str(real_model))
    turns = (("user", "Name three rivers of France."),)
    requests = [Request(turns=turns, sampling=Sampling(max_new_tokens=24, temperature=0))]
    generator = VllmGenerator(str(real_model), tokenizer)
    try:
        found = written(generator, requests)
    finally:
        generator.close()
    assert found == written(LocalGenerator(load_model(str(real_model)).eval(), tokenizer), requests)
