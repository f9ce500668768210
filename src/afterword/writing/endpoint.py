"""An endpoint writes: any program that takes the chat and text completions of OpenAI's interface.

The one rule: the key is read from the environment and sent to the endpoint. It is in no message, record or file.
"""

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from afterword.errors import ConfigError, TrainingError
from afterword.storage.hashes import json_sha256
from afterword.types import Request, Written
from afterword.writing.replies import unmixed, without_thoughts

KEYS = ("AFTERWORD_API_KEY", "OPENAI_API_KEY")
"""Variables of the environment, the first of which that is there is the key."""
_PER_BATCH = 8
"""Requests of a batch for each that runs at once: what one that takes long holds up is little."""
_TRIES = 7
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0
"""Seconds; doubled from try to try."""
_CONNECT_SECONDS, _REPLY_SECONDS = 10.0, 600.0
_SHOWN = 300
"""Characters of what an endpoint says that are passed on."""
_THINKING_OFF = {"chat_template_kwargs": {"enable_thinking": False}}
"""As servers of open models understand it."""


@dataclass(eq=False)
class EndpointGenerator:
    """A model behind an address, several requests at once."""

    url: str
    """Up to where `/chat/completions` follows: `http://localhost:8000/v1`."""
    model_name: str
    tokenizer: Any
    """Of the model that is taught, to count prompt tokens with; the endpoint has its own."""
    at_once: int = 8
    _first_way: int = 0
    """The first way of asking that the endpoint has not refused."""
    _stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.username or parts.password or parts.query:
            remedy = f"Give the address alone, and the key in the environment ({KEYS[0]})"
            raise ConfigError(f"generator: the address has more in it than host and path. {remedy}.")

    @property
    def name(self) -> str:
        """Host, path and model."""
        parts = urlsplit(self.url)
        return f"endpoint {parts.netloc}{parts.path.rstrip('/')} {self.model_name}"

    def prompt_of(self, request: Request) -> str:
        """The turns as JSON, which the endpoint's own template writes; or the text. ConfigError for two of them."""
        if request.other_turns:
            raise unmixed(self.url)
        return json.dumps(request.turns, ensure_ascii=False) if request.turns else request.text

    def tokens(self, requests: Sequence[Request]) -> int:
        """About: as the tokenizer of the model that is taught counts them."""
        texts = [text for each in requests for text in ([said for _, said in each.turns] or [each.text])]
        return sum(map(len, self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]))

    def batches(self, requests: Sequence[Request]) -> list[list[int]]:
        """In their order."""
        size = _PER_BATCH * self.at_once
        return [list(range(len(requests)))[at : at + size] for at in range(0, len(requests), size)]

    def write(
        self, requests: Sequence[Request], advance: Callable[[int], object]
    ) -> Iterator[dict[int, tuple[Written, int]]]:
        """Each text as soon as it is there. What is under way when one fails is still given, and then the failure."""
        import requests as http

        failed: BaseException | None = None
        pool = ThreadPoolExecutor(self.at_once)
        with http.Session() as session:
            # As an object of its own: else an entry in .netrc would be sent in its place.
            session.auth = _signed
            asked = {pool.submit(self._asked, session, request): n for n, request in enumerate(requests)}
            try:
                for future in as_completed(asked):
                    if error := _failure_of(future):
                        failed = failed or error
                        pool.shutdown(wait=False, cancel_futures=True)
                    elif not future.cancelled():
                        yield {asked[future]: future.result()}
                        advance(1)
                if failed:
                    raise failed
            finally:
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                self._stop = threading.Event()

    def _asked(self, session: Any, request: Request) -> tuple[Written, int]:
        """One text, and its new tokens."""
        reply = self._reply(session, request)
        try:
            choice = reply["choices"][0]
            text = choice["message"]["content"] if request.turns else choice["text"]
            text, ended = str(text or ""), choice.get("finish_reason") == "stop"
            tokens = int((reply.get("usage") or {}).get("completion_tokens") or 0)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            shown = self._hidden(json.dumps(reply))
            raise TrainingError(f"generator: {self.url} replies with no completion: {shown}") from error
        return Written(without_thoughts(text).strip() if request.turns else text, ended), tokens

    def _reply(self, session: Any, request: Request) -> Any:
        """What the endpoint replies, asked in the first way that it takes."""
        ways, kind = self._ways(request), "chat/completions" if request.turns else "completions"
        while True:
            way = min(self._first_way, len(ways) - 1)
            status, text = self._posted(session, f"{self.url.rstrip('/')}/{kind}", ways[way])
            if status in (400, 422) and way + 1 < len(ways):
                self._first_way = way + 1
                continue
            if status == 200:
                with suppress(ValueError):
                    return json.loads(text)
            raise self._refused(status, kind, text)

    def _ways(self, request: Request) -> list[dict[str, Any]]:
        """Bodies of a request, the one first that asks for the most: servers differ in what they take."""
        sampling = request.sampling
        seed = int(json_sha256([self.prompt_of(request), request.seed])[:8], 16) % 2**31
        body = {"model": self.model_name, "temperature": sampling.temperature, "top_p": sampling.top_p, "seed": seed}
        if not request.turns:
            return [{**body, "prompt": request.text, "max_tokens": sampling.max_new_tokens}]
        body["messages"] = [{"role": role, "content": content} for role, content in request.turns]
        most = {"max_tokens": sampling.max_new_tokens}
        newer = {"max_completion_tokens": sampling.max_new_tokens}
        return [{**body, **most, **_THINKING_OFF}, {**body, **most}, {**body, **newer}]

    def _posted(self, session: Any, url: str, body: Mapping[str, Any]) -> tuple[int, str]:
        """Status and text of a reply; tried again while the endpoint is busy, or does not answer."""
        import requests as http

        wait, problem = _FIRST_WAIT, ""
        for tries in range(_TRIES):
            if self._stop.is_set():
                break
            try:
                timeout = (_CONNECT_SECONDS, _REPLY_SECONDS)
                reply = session.post(url, json=body, timeout=timeout, allow_redirects=False)
            except (http.ConnectionError, http.Timeout) as error:
                problem, asked = f"does not answer ({type(error).__name__})", None
            except http.RequestException as error:
                raise ConfigError(f"generator: {url} cannot be asked ({self._hidden(str(error))}).") from None
            else:
                if reply.status_code != 429 and reply.status_code < 500:
                    return reply.status_code, reply.text
                problem, asked = f"is busy or broken (status {reply.status_code})", reply.headers.get("Retry-After")
            if tries + 1 < _TRIES:
                pause = min(_LONGEST_WAIT, max(wait, _seconds(asked)))
                logging.getLogger("afterword").info("%s %s: again in %.0f s", url, problem, pause)
                self._stop.wait(pause)
                wait *= 2
        again = "What it wrote is stored: start it, and give the same command again"
        raise TrainingError(f"generator: {url} {problem}, {_TRIES} times. {again}.") from None

    def _refused(self, status: int, kind: str, text: str) -> ConfigError:
        if status in (401, 403):
            known = next((name for name in KEYS if os.environ.get(name)), None)
            how = f"refuses the key in {known}" if known else "asks for a key"
            return ConfigError(f"generator: {self.url} {how}. Give one that it takes in {KEYS[0]}.")
        if status == 404:
            problem = f"{self.url} has no {kind}, or no model {self.model_name!r}"
            return ConfigError(f"generator: {problem}. Check address (it often ends in /v1) and generator_model.")
        said = self._hidden(text)
        return ConfigError(f"generator: {self.url} refuses a request (status {status}): {said}. Check its settings.")

    def _hidden(self, text: str) -> str:
        """What an endpoint says, on one line and without the key."""
        for key in filter(None, map(os.environ.get, KEYS)):
            text = text.replace(key, "…")
        return " ".join(text.split())[:_SHOWN]


def _signed(request: Any) -> Any:
    """The request with the key, where there is one."""
    if key := next(filter(None, map(os.environ.get, KEYS)), None):
        request.headers["Authorization"] = f"Bearer {key}"
    return request


def _failure_of(future: "Future[Any]") -> BaseException | None:
    return None if future.cancelled() else future.exception()


def _seconds(asked: str | None) -> float:
    """What an endpoint asks to wait; 0 where it says a date or nothing."""
    try:
        return float(asked or 0)
    except ValueError:
        return 0.0
