"""A result in other people's programs, beside the same in transformers: token ids, predictions, greedy replies.

`--llama-cpp FOLDER`: a folder with node-llama-cpp (`npm install node-llama-cpp`), which reads `--gguf`.
`--vllm PYTHON`: a Python that has vLLM. An adapter's folder is served on its base there.
"""

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path

import numpy
import torch

from afterword.models import base_of_adapter, is_adapter, load_adapted, load_tokenizer, model_folder
from afterword.serving.samples import CONVERSATIONS, rendered

_REPLY_TOKENS = 24
_VLLM = """
import json, os, sys
if __name__ == "__main__":
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest
    told = json.load(open(sys.argv[1]))
    llm = LLM(told["base"], dtype=told["dtype"], max_model_len=1024, enforce_eager=True, enable_lora=bool(told["lora"]),
              max_logprobs=20, disable_log_stats=True)
    lora = LoRARequest("adapter", 1, told["lora"]) if told["lora"] else None
    params = SamplingParams(temperature=0, max_tokens=told["most"], prompt_logprobs=1, skip_special_tokens=False)
    found = []
    for messages, text in zip(told["conversations"], told["texts"]):
        chat = llm.chat(messages, params, lora_request=lora, use_tqdm=False)[0]
        ids = chat.prompt_token_ids
        gold = [row[token].logprob for token, row in zip(ids[1:], chat.prompt_logprobs[1:])]
        found.append({"ids": list(ids), "gold": gold, "reply": list(chat.outputs[0].token_ids),
                      "text": chat.outputs[0].text})
    json.dump(found, open(sys.argv[2], "w"))
"""


def main() -> None:
    """Ask every program that is there the same, and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--llama-cpp", type=Path)
    parser.add_argument("--vllm")
    parser.add_argument("--dtype", default="float32", help="Precision of vLLM's products.")
    given = parser.parse_args()
    folder = model_folder(given.model)
    tokenizer, model = load_tokenizer(folder), load_adapted(folder).eval()
    texts = [rendered(tokenizer, each) for each in CONVERSATIONS]
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    with torch.no_grad():
        logits = [model(input_ids=torch.tensor([each])).logits[0].float() for each in ids]
        replies = [reply_of(model, each) for each in ids]
    print(f"transformers: {tokenizer.decode(replies[0])!r}")
    if given.llama_cpp:
        in_llama_cpp(given.llama_cpp, given.gguf.resolve(), tokenizer, texts, ids, logits, replies)
    if given.vllm:
        in_vllm(given.vllm, folder, given.dtype, texts, ids, logits, replies)


def reply_of(model: torch.nn.Module, ids: list[int]) -> list[int]:
    """The greedy reply to a text."""
    written = model.generate(torch.tensor([ids]), max_new_tokens=_REPLY_TOKENS, do_sample=False)[0, len(ids) :].tolist()
    ends = model.generation_config.eos_token_id
    return [token for token in written if token not in (ends if isinstance(ends, list) else [ends])]


def in_llama_cpp(where: Path, gguf: Path, tokenizer, texts, ids, logits, replies) -> None:
    """The GGUF file in llama.cpp: ids, logits at every position, replies."""
    script = Path(__file__).with_suffix(".mjs").resolve()
    with tempfile.TemporaryDirectory() as out:
        asked = Path(out) / "texts.json"
        asked.write_text(json.dumps(texts))
        subprocess.run(["node", script, gguf, asked, out, str(_REPLY_TOKENS)], cwd=where, check=True)
        found = json.loads((Path(out) / "said.json").read_text())
        kl, apart, top = [], [], []
        for place, said in enumerate(found["said"]):
            theirs = torch.from_numpy(numpy.fromfile(Path(out) / f"{place}.f32", dtype="<f4")).view(-1, said["width"])
            first, second = logits[place].log_softmax(-1), theirs.log_softmax(-1)
            kl.append((first.exp() * (first - second)).sum(-1))
            apart.append((logits[place] - theirs).abs().flatten())
            top.append((first.argmax(-1) == second.argmax(-1)).float())
    same = sum(said["ids"] == own for said, own in zip(found["said"], ids, strict=True))
    replied = sum(said["reply"] == own for said, own in zip(found["said"], replies, strict=True))
    kl, apart, top = torch.cat(kl), torch.cat(apart), torch.cat(top)
    print(
        f"llama.cpp {gguf.name}: ids equal {same}/{len(ids)}; KL {kl.mean():.2g} nats (largest {kl.max():.2g}), "
        f"logits {apart.mean():.2g} apart (largest {apart.max():.2g}), same top {100 * top.mean():.1f} % of {len(kl)}; "
        f"replies equal {replied}/{len(ids)}; template equal {found['template'] == tokenizer.chat_template}; "
        f"{found['said'][0]['text']!r}"
    )


def in_vllm(python: str, folder: str, dtype: str, texts, ids, logits, replies) -> None:
    """The folder in vLLM, asked by its chat interface: ids, loss of every token, replies."""
    lora = folder if is_adapter(folder) else ""
    told = {"base": base_of_adapter(folder) if lora else folder, "lora": lora, "dtype": dtype, "texts": texts}
    told |= {"most": _REPLY_TOKENS, "conversations": CONVERSATIONS}
    with tempfile.TemporaryDirectory() as scratch:
        files = [Path(scratch) / name for name in ("vllm_program.py", "told.json", "found.json")]
        files[0].write_text(_VLLM)
        files[1].write_text(json.dumps(told))
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        environment |= {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "TORCHDYNAMO_DISABLE": "1"}
        # Kernels may be compiled in the first request, and a busy machine takes longer than the usual five minutes.
        environment |= {"VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": "3600"}
        subprocess.run([python, *files], check=True, env=environment)
        found = json.loads(files[2].read_text())
    apart = []
    for place, said in enumerate(found):
        own = logits[place][:-1].log_softmax(-1).gather(-1, torch.tensor(ids[place][1:])[:, None])[:, 0]
        apart.append((own - torch.tensor(said["gold"])).abs())
    apart, kind = torch.cat(apart), "adapter on its base" if lora else "folder"
    same = sum(said["ids"] == own for said, own in zip(found, ids, strict=True))
    replied = sum(said["reply"][: len(own)] == own for said, own in zip(found, replies, strict=True))
    print(
        f"vLLM ({kind}, {dtype}): ids of its chat equal {same}/{len(ids)}; log-probability of each token "
        f"{apart.mean():.2g} nats apart (largest {apart.max():.2g}, n = {len(apart)}); "
        f"replies equal {replied}/{len(ids)}; {found[0]['text']!r}"
    )


if __name__ == "__main__":
    main()
