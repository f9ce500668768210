"""Tiny models and a tokenizer made on the spot: no test needs a network, a GPU or weights."""

from __future__ import annotations

import gc
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Models this small are slower on two threads than on one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Ended, run_python
from forked import Forking, open_forking

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared" / "data"

REAL_MODEL = "smollm2-135m-instruct"
_USERS_CACHE = os.environ.get("AFTERWORD_CACHE")
"""As it was before the tests got a cache of their own."""

TEXT = (
    "Mara Lind was born in Oslo. She moved to Bergen in 2019. There she founded a small bakery. "
    "The bakery sells bread, cakes and coffee. It opens at six every morning. People like it very much. "
)


def pytest_configure() -> None:
    """Examples of hypothesis are the same ones in every run, and a slow machine is no failure."""
    try:
        from hypothesis import HealthCheck, settings
    except ModuleNotFoundError:
        return
    slow = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    settings.register_profile(
        "suite", deadline=None, derandomize=True, database=None, max_examples=100, suppress_health_check=slow
    )
    settings.load_profile("suite")


_MODULES = 100
"""So many new ones make what they brought worth setting aside."""
_imported = 0


def pytest_collection_finish() -> None:
    """Runs free memory several times, and each time Python would look through all that was imported: 0.3 s."""
    global _imported
    gc.collect()
    gc.freeze()
    _imported = len(sys.modules)


def pytest_runtest_teardown() -> None:
    """The same of libraries that only a test has imported."""
    if len(sys.modules) > _imported + _MODULES:
        pytest_collection_finish()


_FORKING = ("parity/test_processes.py", "parity/test_sharded.py", "parity/test_several_processes_measure.py")
_FORKING += ("parity/test_several_processes_rewrite.py", "resume/test_killed.py", "unit/training/test_memory.py")
_FORKING += ("unit/almanac/test_build.py", "cli/test_bad_input.py", "test_architecture.py")
_POOLS = ("unit/comparison/test_run.py", "unit/writing/test_writer.py")
_TOGETHER = {**{f"tests/{file}": "forking" for file in _FORKING}, **{f"tests/{file}": "pools" for file in _POOLS}}
_TOGETHER |= {"tests/unit/almanac/": "almanac"}
"""Files that share what takes seconds to make: the world and its texts; the process that others are forked from."""
_SECONDS_OF_A_TEST = 0.1
_SECONDS = {"forking": 200, "almanac": 75, "pools": 45}
_SECONDS |= {
    f"tests/{file}.py": seconds
    for file, seconds in {
        "cli/test_readme": 40,
        "resume/test_stop_and_resume": 35,
        "parity/test_cached_teacher": 25,
        "unit/training/test_teacher_caches": 25,
        "unit/benchmarks/test_card": 20,
        "unit/comparison/test_teacher_caches": 15,
        "unit/sequence/test_run": 15,
        "unit/test_demo": 15,
        "unit/budget/test_run": 10,
        "unit/training/test_compiled": 10,
        "unit/models/test_heap": 10,
    }.items()
}
"""About how long what lies together takes, where the number of its tests does not tell: it is begun in time."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadfile`, a file is run by one process, and so are all that share something."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class BySharing(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return next((name for start, name in _TOGETHER.items() if file.startswith(start)), file)

        def _assign_work_unit(self, node: Any) -> None:
            """The longest that is left."""
            self.workqueue.move_to_end(max(self.workqueue, key=self._seconds), last=False)
            super()._assign_work_unit(node)

        def _seconds(self, scope: str) -> float:
            return _SECONDS.get(scope, _SECONDS_OF_A_TEST * len(self.workqueue[scope]))

    return BySharing(config, log)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests prepare is kept for other tests, in this process and in those it starts, and for no one else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AFTERWORD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_race() -> Iterator[None]:
    """`precision: auto` is float32 in this process, whatever a busy machine makes of the race. Its tests run it."""
    from afterword.models import precision

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "_seconds", lambda *_, half: 1.0)
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data beside the project; tests that need it skip where it is missing."""
    if not SHARED.is_dir():
        pytest.skip("the data beside the project is not here")
    return SHARED


@pytest.fixture(scope="session")
def real_model() -> Path:
    """Folder of a real post-trained model, SmolLM2-135M-Instruct, from the user's cache. For tests marked `real`.

    They skip where it is missing; with AFTERWORD_FETCH_REAL=1 it is fetched.
    """
    from afterword.storage.paths import cache_folder

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AFTERWORD_CACHE", _USERS_CACHE or "")
        models = cache_folder("models")
        if os.environ.get("AFTERWORD_FETCH_REAL") == "1":
            from afterword.models import model_folder as found

            return Path(found(REAL_MODEL))
    folder = models and models / REAL_MODEL
    if not folder or not (folder / "model.safetensors").is_file():
        pytest.skip(f"the real model is not in the cache: `afterword fetch {REAL_MODEL}` puts it there")
    return folder


@pytest.fixture
def afterword(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """`afterword("adapt", …)`: the command line in this process, with its exit code and what it printed."""
    from afterword.cli import main

    def run(*words: str) -> Any:
        monkeypatch.setattr(sys, "argv", ["afterword", *words])
        monkeypatch.setenv("COLUMNS", "200")
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0
        said = capsys.readouterr()
        return Ended(code, said.out, said.err)

    return run


@pytest.fixture
def afterword_process() -> Callable[..., Any]:
    """As `afterword`, in a process of its own."""

    def run(*words: str) -> Any:
        return run_python("-m", "afterword", *words, environment={"COLUMNS": "200"}, check=False)

    return run


@pytest.fixture(scope="session")
def forking() -> Iterator[Forking]:
    """Starts processes of ours, several that compute together too, without the seconds that imports take."""
    with open_forking() as forking:
        yield forking


@pytest.fixture
def imported_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of a pool begin with the imports done, once for all. New ones are those of `tests/unit/pool`."""
    import multiprocessing

    start = "forkserver"
    multiprocessing.get_context(start).set_forkserver_preload(
        ["afterword.comparison.run", "afterword.evaluation", "afterword.report", "accelerate"]
    )
    monkeypatch.setattr("afterword.pool.processes.START", start)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """A byte-level BPE of 300 tokens with BOS and EOS, BOS added by itself."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator([TEXT] * 4, trainer)
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")


def _config(kind: str) -> Any:
    import transformers as hf

    size = {
        "vocab_size": 300,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": None,
    }
    grouped = {**size, "num_key_value_heads": 2}
    return {
        "llama": lambda: hf.LlamaConfig(**grouped),
        "qwen2": lambda: hf.Qwen2Config(**grouped),
        "qwen3": lambda: hf.Qwen3Config(**grouped, head_dim=8),
        "gemma3": lambda: hf.Gemma3TextConfig(
            **{**grouped, "pad_token_id": 0},
            head_dim=8,
            query_pre_attn_scalar=8,
            sliding_window=64,
            final_logit_softcapping=5.0,
        ),
        "olmo2": lambda: hf.Olmo2Config(**grouped),
        "mistral": lambda: hf.MistralConfig(**grouped, head_dim=8),
        "phi3": lambda: hf.Phi3Config(**grouped),
        "gpt_neox": lambda: hf.GPTNeoXConfig(**size),
        # Heads of other kinds: a logit scale, its inverse, a bias.
        "cohere": lambda: hf.CohereConfig(**{**grouped, "pad_token_id": 0}, logit_scale=0.3),
        "granite": lambda: hf.GraniteConfig(**grouped, logits_scaling=4.0),
        "phi": lambda: hf.PhiConfig(**size),
    }[kind]()


ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3", "olmo2", "mistral", "phi3", "gpt_neox")


@pytest.fixture(scope="session")
def build_model() -> Callable[..., Any]:
    """`build_model("llama", seed=0)`: a random float32 model with 300 tokens and 256 positions."""

    def build(kind: str = "llama", *, seed: int = 0, **changes: Any) -> Any:
        import torch
        from transformers import AutoModelForCausalLM

        config = _config(kind)
        for name, value in changes.items():
            setattr(config, name, value)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(config)
            # Random models of the library's own initialisation are nearly constant; this makes them say something.
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    torch.nn.init.normal_(parameter, std=0.15)
        return model.float()

    return build


@pytest.fixture(scope="session")
def perturb() -> Callable[..., Any]:
    """Move a model's weights in place, so that student and teacher differ (METHODS §6)."""

    def move(model: Any, *, scale: float = 0.05, seed: int = 1) -> Any:
        import torch

        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)
        return model

    return move


@pytest.fixture(scope="session")
def general_rows() -> list[dict[str, str]]:
    """Seven general texts of unequal lengths."""
    things = ("Rain", "The bus", "A small dog", "The long road to the sea", "Coffee", "Bread", "A cold winter")
    return [{"id": f"g-{i}", "text": f"{thing} comes at {i + 3}. " * (1 + i % 3)} for i, thing in enumerate(things)]


@pytest.fixture
def unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run changed is not looked at in its end: for tests of something else, a fifth of a tiny run's time."""
    monkeypatch.setattr("afterword.runs._seen", lambda *_: None)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Methods that write get texts at once: a tiny model asks no questions, and its context holds no prompt."""
    from scripted import open_scripted

    monkeypatch.setattr("afterword.training.written_documents.open_writer", open_scripted)


@pytest.fixture(scope="session")
def mixture_of(general_rows: list[dict[str, str]]) -> Callable[[Any], dict[str, Any]]:
    """What a method reads beside documents: general text, where it says what to do with it."""

    def mixture(method: Any) -> dict[str, Any]:
        from afterword.data.mixture import SourceShare
        from afterword.training.sources import MixtureSource

        text = MixtureSource(documents=general_rows, share=SourceShare(tokens=0.4))
        return {"general": text} if method.takes_general_text else {}

    return mixture


@pytest.fixture(scope="session")
def documents() -> list[dict[str, str]]:
    """Ten documents of unequal lengths on purpose."""
    sentences = TEXT.strip().split(". ")
    rows = []
    for i in range(10):
        chosen = [sentences[(i + j) % len(sentences)].rstrip(".") for j in range(2 + i % 5)]
        rows.append({"id": f"doc-{i}", "title": f"Note {i}", "text": ". ".join(chosen) + f". Number {i} ends here."})
    return rows


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any, build_model: Any) -> Path:
    """A tiny Llama with its tokenizer, saved as safetensors."""
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    build_model("llama").save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def write_gguf(tokenizer: Any) -> Callable[..., Path]:
    """`write_gguf(path, model)`: a Llama with the tests' tokenizer as a GGUF file, as llama.cpp lays it out."""
    gguf = pytest.importorskip("gguf")

    def write(path: Path, model: Any, *, kind: str = "F32", architecture: str = "llama", **fields: Any) -> Path:
        config, writer = model.config, gguf.GGUFWriter(path, architecture)
        for name, value in fields.items():
            _adder(writer, value)(name.replace("__", "."), value)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        writer.add_vocab_size(config.vocab_size)
        _add_tokenizer(writer, tokenizer, gguf)
        quantisation = gguf.GGMLQuantizationType[kind]
        for name, value in model.state_dict().items():
            values = _as_llama_cpp(name, value.float().numpy(), config)
            as_is = values.ndim == 1 or values.shape[-1] % 32
            data = values if as_is else gguf.quants.quantize(values, quantisation)
            writer.add_tensor(_gguf_name(name), data, raw_dtype=None if as_is else quantisation)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


def _adder(writer: Any, value: Any) -> Callable[[str, Any], None]:
    return {int: writer.add_uint32, str: writer.add_string, float: writer.add_float32}[type(value)]


def _add_tokenizer(writer: Any, tokenizer: Any, gguf: Any) -> None:
    import json

    core = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])]
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([control if token in ("<s>", "</s>") else normal for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in core["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(False)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}</s>{% endfor %}")


def _gguf_name(name: str) -> str:
    parts = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    layer = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.o_proj": "attn_output"}
    layer |= {f"self_attn.{x}_proj": f"attn_{x}" for x in "qkv"}
    layer |= {f"mlp.{x}_proj": f"ffn_{x}" for x in ("gate", "up", "down")}
    stem = name.removesuffix(".weight")
    if stem in parts:
        return f"{parts[stem]}.weight"
    number, _, rest = stem.removeprefix("model.layers.").partition(".")
    return f"blk.{number}.{layer[rest]}.weight"


def _as_llama_cpp(name: str, values: Any, config: Any) -> Any:
    """Queries and keys have the two halves of every rotated pair side by side."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    kind = next((part for part in heads if f".{part}." in name), None)
    if kind is None:
        return values
    rows, columns = values.shape
    return values.reshape(heads[kind], 2, rows // heads[kind] // 2, columns).swapaxes(1, 2).reshape(rows, columns)
