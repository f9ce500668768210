"""An endpoint is asked as its interface says; what it refuses is one sentence with what helps; its key stays hidden."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tiny_models import byte_tokenizer

from afterword.errors import AfterwordError, ConfigError, TrainingError
from afterword.types import Request, Sampling, Written
from afterword.writing import GeneratorChoice, endpoint, open_writer

KEY = "sk-this-is-the-secret"
SAMPLING = Sampling(max_new_tokens=7, temperature=0.5, top_p=0.9)


def asking(*words, **how):
    return [Request(turns=(("user", each),), sampling=SAMPLING, **how) for each in words]


def reply(text, reason="stop"):
    return 200, {
        "choices": [{"message": {"content": text}, "finish_reason": reason}],
        "usage": {"completion_tokens": 3},
    }


class Server(ThreadingHTTPServer):
    """Answers what `answer(path, body, number of the request)` gives: a status and JSON."""

    daemon_threads = True

    def __init__(self, answer):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer, self.seen, self.lock = answer, [], threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    """Keeps what it was asked."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.seen.append((self.path, dict(self.headers), body))
            number = len(self.server.seen)
        status, content = self.server.answer(self.path, body, number)
        sent = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *_):
        """Nothing."""


@pytest.fixture
def serve(monkeypatch):
    """Starts a server with an answer; no pause between tries is long."""
    started = []
    monkeypatch.setenv("AFTERWORD_API_KEY", KEY)
    monkeypatch.setattr(endpoint, "_FIRST_WAIT", 0.001)

    def start(answer):
        server = Server(answer)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def written(server, requests, folder, at_once=4):
    choice = GeneratorChoice(
        generator=server.url, generator_model="m", generator_requests=at_once, written_folder=str(folder)
    )

    def load():
        raise AssertionError("no model is needed")

    with open_writer(load, byte_tokenizer(), choice, record=folder / "run" / "written.jsonl") as writer:
        return writer.write(requests, "answers")


def test_turns_and_texts_are_asked_and_each_reply_is_for_its_request(serve, tmp_path, monkeypatch):
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")

    def answer(path, body, _):
        if path == "/v1/completions":
            return 200, {"choices": [{"text": f" after {body['prompt']}", "finish_reason": "length"}]}
        return reply(f"<think>Hm.</think> To {body['messages'][-1]['content']} ")

    server = serve(answer)
    requests = [*asking("a", "b", "c", "a"), Request(text="Once", sampling=SAMPLING)]
    found = written(server, requests, tmp_path)
    assert found == [Written(f"To {each}", ended=True) for each in "abca"] + [Written(" after Once", ended=False)]
    assert len(server.seen) == 4, "the same request is asked once"
    assert {headers["Authorization"] for _, headers, _ in server.seen} == {f"Bearer {KEY}"}
    body = next(body for path, _, body in server.seen if path == "/v1/chat/completions")
    assert (body["model"], body["max_tokens"], body["temperature"], body["top_p"]) == ("m", 7, 0.5, 0.9)
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert written(server, requests, tmp_path) == found
    assert len(server.seen) == 4
    assert not any(KEY in path.read_text() for path in tmp_path.rglob("*") if path.is_file())


def test_a_busy_endpoint_is_asked_again(serve, tmp_path, caplog):
    server = serve(lambda path, body, number: (429, {}) if number < 3 else (503, {}) if number < 5 else reply("Yes."))
    assert written(server, asking("a"), tmp_path, at_once=1) == [Written("Yes.", ended=True)]
    assert len(server.seen) == 5
    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert [each.partition("is busy or broken ")[2] for each in said] == [
        "(status 429). It is asked again in 0 s.",
        "(status 503). It is asked again in 0 s.",
    ]


def test_what_an_endpoint_does_not_know_is_left_out(serve, tmp_path):
    def answer(path, body, _):
        unknown = {"chat_template_kwargs", "max_tokens"} & body.keys()
        return (400, {"error": f"unknown: {unknown}"}) if unknown else reply("Yes.")

    server = serve(answer)
    assert written(server, asking("a", "b"), tmp_path, at_once=1) == [Written("Yes.", ended=True)] * 2
    assert [sorted(body.keys() & {"max_tokens", "max_completion_tokens"}) for *_, body in server.seen] == [
        ["max_tokens"],
        ["max_tokens"],
        ["max_completion_tokens"],
        ["max_completion_tokens"],
    ]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ((401, {"error": f"wrong key {KEY}"}), "refuses the key in AFTERWORD_API_KEY. Give one that it takes in AFTER"),
        ((404, {"error": "no such model"}), "has no chat/completions, or no model 'm'. Check address"),
        ((400, {"error": f"{KEY} asks too much"}), 'refuses a request (status 400): {"error": "… asks too much"}.'),
        ((200, {"choices": []}), "replies with no completion"),
        ((200, b"<html>Welcome</html>"), "replies with no completion: <html>Welcome</html>. Check that the address"),
        ((200, {"choices": [{"message": {"content": [{"text": "parts"}]}}]}), "replies with no completion"),
        ((302, {}), "sends requests to another address (status 302). Give that one"),
        ((500, {}), "is busy or broken (status 500), 7 times. What it wrote is stored: start it"),
    ],
)
def test_what_an_endpoint_refuses_is_one_sentence_without_the_key(answer, problem, serve, tmp_path):
    server = serve(lambda *_: answer)
    with pytest.raises(AfterwordError) as caught:
        written(server, asking("a"), tmp_path)
    assert problem in str(caught.value)
    assert KEY not in str(caught.value)
    assert "\n" not in str(caught.value).strip()


def test_what_was_written_before_a_failure_is_stored(serve, tmp_path):
    broken = True

    def answer(path, body, number):
        asked = body["messages"][-1]["content"]
        return (400, {}) if broken and asked == "d" else reply(asked.upper())

    server = serve(answer)
    with pytest.raises(ConfigError):
        written(server, asking(*"abcde"), tmp_path, at_once=1)
    before, broken = len(server.seen), False
    assert [text.text for text in written(server, asking(*"abcde"), tmp_path, at_once=1)] == list("ABCDE")
    assert len(server.seen) - before <= 2


def test_an_endpoint_that_is_not_there_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(endpoint, "_FIRST_WAIT", 0.001)
    choice = GeneratorChoice(generator="http://127.0.0.1:9/v1", generator_model="m", written_folder=str(tmp_path))
    with (
        open_writer(lambda: None, byte_tokenizer(), choice) as writer,
        pytest.raises(TrainingError, match=r"generator: http://127.0.0.1:9/v1/.* does not answer .* the same command"),
    ):
        writer.write(asking("a"), "answers")


def test_a_password_in_the_address_is_refused():
    choice = GeneratorChoice(generator="http://me:secret@host/v1", generator_model="m")
    with pytest.raises(ConfigError, match="more in it than host and path") as caught:
        open_writer(lambda: None, byte_tokenizer(), choice).__enter__()
    assert "secret" not in str(caught.value)


def test_mixed_texts_are_refused_before_anything_is_asked(serve, tmp_path):
    server = serve(lambda *_: reply("A."))
    with pytest.raises(ConfigError, match=r"generator: http.* writes whole texts, .* Leave it out"):
        written(server, asking("a", other_turns=(("user", "b"),), share=0.5), tmp_path)
    assert server.seen == []


def test_a_model_that_is_not_there_is_said_by_the_setting_that_names_it():
    choice = GeneratorChoice(generator="no/such/model")
    with pytest.raises(ConfigError, match=r"^  - generator: 'no/such/model' is no folder"):
        open_writer(lambda: None, byte_tokenizer(), choice).__enter__()


@pytest.mark.parametrize("address", ["http://", "http://[::1", "http://host:99999/v1", "https:///v1"])
def test_an_address_without_a_host_or_with_no_port_is_refused(address):
    choice = GeneratorChoice(generator=address, generator_model="m")
    with pytest.raises(ConfigError, match=r"generator: .* Give one like http://localhost:8000/v1"):
        open_writer(lambda: None, byte_tokenizer(), choice).__enter__()


def test_what_waits_when_one_is_refused_holds_nothing_up(serve, tmp_path):
    server = serve(lambda *_: (401, {}))
    failed = list[str]()

    def write():
        with pytest.raises(ConfigError, match="refuses the key") as caught:
            written(server, asking(*map(str, range(40))), tmp_path, at_once=2)
        failed.append(str(caught.value))

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    thread.join(30)
    assert failed
    assert len(server.seen) <= 4


def test_half_of_a_surrogate_pair_and_utf8_without_its_name_are_read(serve, tmp_path):
    words = {"a": b'"Caf\xc3\xa9"', "b": b'"\\ud800 and \\ud83d\\ude00"'}
    server = serve(lambda _, body, __: (200, b'{"choices": [{"message": {"content": %s}}]}' % words[said(body)]))
    texts = [each.text for each in written(server, asking("a", "b"), tmp_path)]
    assert texts == ["Café", "? and \N{GRINNING FACE}"]


def said(body):
    return body["messages"][-1]["content"]


def test_a_reply_that_breaks_off_is_asked_for_again(serve, tmp_path, monkeypatch):
    class Broken(Handler):
        def do_POST(self):
            if self.server.seen:
                return super().do_POST()
            self.server.seen.append(None)
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"choices"')

    server = serve(lambda *_: reply("Whole."))
    monkeypatch.setattr(server, "RequestHandlerClass", Broken)
    assert [each.text for each in written(server, asking("a"), tmp_path)] == ["Whole."]


def test_a_key_that_no_header_takes_is_refused_without_being_shown(serve, tmp_path, monkeypatch):
    monkeypatch.setenv("AFTERWORD_API_KEY", "sk-ключ")
    with pytest.raises(ConfigError, match="AFTERWORD_API_KEY: no key has such characters") as caught:
        written(serve(lambda *_: reply("Yes.")), asking("a"), tmp_path)
    assert "ключ" not in str(caught.value)


def test_without_a_certificate_that_is_trusted_nothing_is_asked_again(serve, tmp_path):
    plain = serve(lambda *_: reply("Yes."))
    choice = GeneratorChoice(generator=f"https{plain.url[4:]}", generator_model="m", written_folder=str(tmp_path))
    with (
        open_writer(lambda: None, byte_tokenizer(), choice) as writer,
        pytest.raises(ConfigError, match="does not speak https, or has no certificate that is trusted here"),
    ):
        writer.write(asking("a"), "answers")
