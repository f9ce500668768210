"""An endpoint writes: any program that takes the chat and text completions of OpenAI's interface.

The one rule: the key is read from the environment and sent to the endpoint. It is in no message, record or file.
"""

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import urlsplit

from afterword.errors import ConfigError, TrainingError
from afterword.storage.hashes import json_sha256
from afterword.types import Request, Written
from afterword.writing.replies import unmixed, without_thoughts

KEYS = ("AFTERWORD_API_KEY", "OPENAI_API_KEY")
"""Variables of the environment, the first of which that is there is the key."""
_KINDS = ("chat/completions", "completions")
_PER_BATCH = 8
"""Requests of a batch for each that runs at once: what one that takes long holds up is little."""
_TRIES = 7
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0
"""Seconds; doubled from try to try."""
_CONNECT_SECONDS, _REPLY_SECONDS = 10.0, 600.0
_SHOWN = 300
"""Characters of what an endpoint says that are passed on."""
_EXAMPLE = "Give one like http://localhost:8000/v1."
_THINKING_OFF = {"chat_template_kwargs": {"enable_thinking": False}}
"""As servers of open models understand it."""

_Found = tuple[Written, int]
"""A text, and its new tokens."""


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
    _said: set[str] = field(default_factory=set[str])
    """What it was asked again for."""
    _stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise ConfigError(f"generator: {self.url!r} is no address ({error}). {_EXAMPLE}") from error
        if not host:
            raise ConfigError(f"generator: {self.url!r} has no host. {_EXAMPLE}")
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
        with http.Session() as session:
            # As an object of its own: else an entry in .netrc would be sent in its place.
            session.auth = _signed
            work = _Work(requests, lambda request: self._asked(session, request), self.at_once)
            try:
                for number, found in work.results():
                    if isinstance(found, BaseException):
                        failed = failed or found
                    else:
                        yield {number: found}
                        advance(1)
                if failed:
                    raise failed
            finally:
                work.closed.set()
                self._stop.set()
                self._stop = threading.Event()

    def _asked(self, session: Any, request: Request) -> tuple[Written, int]:
        """One text, and its new tokens."""
        reply = self._reply(session, request)
        try:
            choice = reply["choices"][0]
            text = choice["message"]["content"] if request.turns else choice["text"]
            if not isinstance(text, str | None):
                raise TypeError("a completion is a string")
            # Half of a surrogate pair, which JSON may have, is in no file of UTF-8.
            text, ended = (text or "").encode(errors="replace").decode(), choice.get("finish_reason") == "stop"
            tokens = int((reply.get("usage") or {}).get("completion_tokens") or 0)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise self._no_completion(json.dumps(reply)) from error
        return Written(without_thoughts(text).strip() if request.turns else text, ended), tokens

    def _reply(self, session: Any, request: Request) -> Any:
        """What the endpoint replies, asked in the first way that it takes."""
        ways, kind = self._ways(request), _KINDS[0] if request.turns else _KINDS[1]
        while True:
            way = min(self._first_way, len(ways) - 1)
            status, text = self._posted(session, f"{self.url.rstrip('/')}/{kind}", ways[way])
            if status in (400, 422) and way + 1 < len(ways):
                self._first_way = way + 1
                continue
            if status == 200:
                try:
                    return json.loads(text)
                except ValueError:
                    raise self._no_completion(text) from None
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
        stop = self._stop
        for tries in range(_TRIES):
            if stop.is_set():
                break
            try:
                timeout = (_CONNECT_SECONDS, _REPLY_SECONDS)
                reply = session.post(url, json=body, timeout=timeout, allow_redirects=False)
            except http.exceptions.SSLError as error:
                problem = f"{self.url} does not speak https, or has no certificate that is trusted here"
                remedy = "Give http:// for the one, and name its authority in REQUESTS_CA_BUNDLE for the other"
                raise ConfigError(f"generator: {problem} ({self._hidden(str(error))}). {remedy}.") from None
            except UnicodeError:
                raise ConfigError(f"{_key_name()}: no key has such characters. Give one without them.") from None
            except (http.ConnectionError, http.Timeout, http.exceptions.ChunkedEncodingError) as error:
                problem, asked = f"does not answer ({type(error).__name__})", None
            except http.RequestException as error:
                raise ConfigError(f"generator: {url} cannot be asked ({self._hidden(str(error))}).") from None
            else:
                if reply.status_code != 429 and reply.status_code < 500:
                    return reply.status_code, reply.content.decode("utf-8", "replace")
                problem, asked = f"is busy or broken (status {reply.status_code})", reply.headers.get("Retry-After")
            if tries + 1 < _TRIES:
                pause = min(_LONGEST_WAIT, max(wait, _seconds(asked)))
                self._say_again(f"{url} {problem}", pause)
                stop.wait(pause)
                wait *= 2
        again = "What it wrote is stored: start it, and give the same command again"
        raise TrainingError(f"generator: {url} {problem}, {_TRIES} times. {again}.") from None

    def _say_again(self, problem: str, pause: float) -> None:
        """That there are pauses, once for each reason: else the first minute looks as if nothing happened."""
        level = logging.INFO if problem in self._said else logging.WARNING
        self._said.add(problem)
        logging.getLogger("afterword").log(level, "generator: %s. It is asked again in %.0f s.", problem, pause)

    def _refused(self, status: int, kind: str, text: str) -> ConfigError:
        if status in (401, 403):
            how = f"refuses the key in {known}" if (known := _key_name()) else "asks for a key"
            return ConfigError(f"generator: {self.url} {how}. Give one that it takes in {KEYS[0]}.")
        if status == 404:
            problem = f"{self.url} has no {kind}, or no model {self.model_name!r}"
            return ConfigError(f"generator: {problem}. Check address (it often ends in /v1) and generator_model.")
        if 300 <= status < 400:
            problem = f"{self.url} sends requests to another address (status {status})"
            return ConfigError(f"generator: {problem}. Give that one: the key is sent to no other.")
        said = self._hidden(text)
        return ConfigError(f"generator: {self.url} refuses a request (status {status}): {said}. Check its settings.")

    def _no_completion(self, reply: str) -> TrainingError:
        remedy = f"Check that the address is that of {' and '.join(_KINDS)}, up to where these begin"
        return TrainingError(f"generator: {self.url} replies with no completion: {self._hidden(reply)}. {remedy}.")

    def _hidden(self, text: str) -> str:
        """What an endpoint says, on one line and without the key."""
        for key in filter(None, map(os.environ.get, KEYS)):
            text = text.replace(key, "…")
        return " ".join(text.split())[:_SHOWN]


def _key_name() -> str | None:
    """The variable that the key is in."""
    return next((name for name in KEYS if os.environ.get(name)), None)


def _signed(request: Any) -> Any:
    """The request with the key, where there is one."""
    if name := _key_name():
        request.headers["Authorization"] = f"Bearer {os.environ[name].strip()}"
    return request


class _Work:
    """Requests that are asked by so many threads, which end with the process: one that hangs does not hold it up."""

    def __init__(self, requests: Sequence[Request], ask: Callable[[Request], _Found], at_once: int):
        self.closed = threading.Event()
        """Set, no further request is asked."""
        self._ask, self._done = ask, SimpleQueue[tuple[int, _Found | BaseException] | None]()
        self._left = SimpleQueue[tuple[int, Request]]()
        for each in enumerate(requests):
            self._left.put(each)
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(min(at_once, len(requests)))]

    def results(self) -> Iterator[tuple[int, _Found | BaseException]]:
        """What became of each request that was asked, by its number, until all are done."""
        for thread in self._threads:
            thread.start()
        for _ in self._threads:
            while done := self._done.get():
                yield done

    def _run(self) -> None:
        try:
            while not self.closed.is_set():
                number, request = self._left.get_nowait()
                self._done.put((number, self._answer(request)))
        except Empty:
            pass
        finally:
            self._done.put(None)

    def _answer(self, request: Request) -> _Found | BaseException:
        try:
            return self._ask(request)
        except BaseException as error:
            # It is raised where the results are read; until then no other is begun.
            self.closed.set()
            return error


def _seconds(asked: str | None) -> float:
    """What an endpoint asks to wait; 0 where it says a date or nothing."""
    try:
        return float(asked or 0)
    except ValueError:
        return 0.0
