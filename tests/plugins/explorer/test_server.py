"""The server answers its own page only, within bounds, and every error is a sentence."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxlens.plugins.explorer._requests import Answer, RunRequest
from onnxlens.plugins.explorer._server import free_socket, openapi
from onnxlens.runtime.errors import OutputError

TEXT = "When Mary and John went to the shop, John gave a drink to"


def test_the_api_answers_as_the_engine_does(served):
    server = served()
    (model,) = server.ask("api/models").json["models"]
    assert model == {"name": "tiny", "isOpen": True}
    assert server.ask("api/model", {}).json["cfg"]["n_layers"] == 5
    assert [one["label"] for one in server.ask("api/tokenize", {"text": "a cat"}).json["tokens"]] == ["a", " cat"]
    reply = server.ask("api/run", {"text": TEXT, "reads": ["next", "sources"]})
    expected = server.engine.run(RunRequest(text=TEXT, reads=["next", "sources"]))
    assert reply.facts == json.loads(json.dumps(expected.facts))
    assert set(reply.arrays) == set(expected.arrays)
    assert all(np.array_equal(reply.arrays[name], value) for name, value in expected.arrays.items())
    lines = server.ask("api/continue", {"text": TEXT, "max_new_tokens": 3, "seed": 1}).body.splitlines()
    assert len([json.loads(line)["id"] for line in lines]) == 3
    assert server.ask("api/sweep", {"text": "a cat", "token": 5}).arrays["effects"].shape == (5, 4)


@pytest.mark.parametrize(
    ("path", "body", "status", "expected"),
    [
        ("api/run", b"{", 400, "The request cannot be used: Input data was truncated."),
        (
            "api/run",
            {"text": "a", "reeds": []},
            400,
            "The request cannot be used: Object contains unknown field",
        ),
        ("api/run", {"text": 5}, 400, "The request cannot be used: Expected `str | null`, got `int`"),
        ("api/run", {"text": "a", "reads": ["nothing"]}, 400, "Unknown hook point or weight 'nothing'"),
        ("api/continue", {"text": "a", "temperature": -1}, 400, "temperature"),
        ("api/nothing", None, 404, "Not Found"),
        ("api/run", None, 405, "Method Not Allowed"),
    ],
)
def test_errors_are_sentences(served, path, body, status, expected):
    reply = served().ask(path, body)
    assert reply.status == status
    assert reply.json["error"].startswith(expected)


def test_a_body_that_is_too_large_is_refused_before_it_is_read(served):
    connection = http.client.HTTPConnection(served().address.removeprefix("http://").rstrip("/"), timeout=30)
    connection.putrequest("POST", "/api/run")
    connection.putheader("content-length", "1000001")
    connection.endheaders()
    response = connection.getresponse()
    assert (response.status, json.load(response)) == (413, {"error": "A request has at most 1000000 bytes."})
    connection.close()


def test_other_sites_and_other_names_are_refused(served):
    server = served()
    assert server.ask("api/models", host="evil.example").status == 403
    assert server.ask("api/models", origin="http://evil.example").status == 403
    assert server.ask("api/models", origin=server.address.rstrip("/")).status == 200


def test_every_reply_has_the_policy(served):
    for path in ("api/models", "api/nothing"):
        headers = served().ask(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert headers["x-content-type-options"] == "nosniff"


def test_a_server_that_others_can_reach_wants_its_token(served):
    server = served(None, "secret")
    for headers in ({}, {"x_onnxlens_token": "wrong"}):
        assert server.ask("api/models", **headers).status == 401
    assert server.ask("api/models", x_onnxlens_token="secret").status == 200


def test_a_newer_request_of_a_tab_replaces_the_one_that_waits(served, monkeypatch):
    server = served()
    begun, go_on = threading.Event(), threading.Event()

    def slow(request):
        begun.set()
        assert go_on.wait(30)
        return Answer({"text": request.text})

    # The routes hold the method of the served engine, whose lens is the same object.
    monkeypatch.setattr(type(server.engine), "_ids", lambda self, lens, request: slow(request) and [5])
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(server.ask, "api/run", {"text": "a"}, x_onnxlens_tab="one")
        assert begun.wait(30)
        second = pool.submit(server.ask, "api/run", {"text": "b"}, x_onnxlens_tab="one")
        threading.Event().wait(0.3)  # the second one waits for its turn
        third = pool.submit(server.ask, "api/run", {"text": "c"}, x_onnxlens_tab="one")
        threading.Event().wait(0.3)
        go_on.set()
        assert [one.result(60).status for one in (first, second, third)] == [200, 409, 200]


def test_many_clients_get_answers_or_are_told_that_the_server_is_busy(served):
    server = served()
    with ThreadPoolExecutor(50) as pool:
        asked = [pool.submit(server.ask, "api/run", {"text": "a cat", "reads": ["next"]}) for _ in range(50)]
        replies = [one.result(120) for one in asked]
    assert {one.status for one in replies} <= {200, 503} and any(one.status == 200 for one in replies)
    assert all("busy" in one.json["error"] for one in replies if one.status == 503)


def test_fifty_clients_that_type_at_once_get_answers_or_are_told_why_not(served):
    server = served()

    def type_text(client):
        replies = []
        for end in range(1, 9):
            asked = {"text": f"{client} {TEXT[: 6 * end]}", "reads": ["next", "guesses", "effects", "sources"]}
            replies.append(server.ask("api/run", asked, x_onnxlens_tab=f"tab-{client}"))
        return replies

    with ThreadPoolExecutor(50) as pool:
        replies = [one for client in pool.map(type_text, range(50)) for one in client]
    assert {one.status for one in replies} <= {200, 409, 503}
    assert sum(one.status == 200 for one in replies) >= 50
    assert all(one.json["error"] for one in replies if one.status != 200)
    assert server.ask("api/run", {"text": TEXT, "reads": ["next"]}).status == 200  # and then it is free again


def test_a_client_that_goes_away_frees_its_place(served):
    server = served()
    host = server.address.removeprefix("http://").rstrip("/")
    for _ in range(1000):
        connection = http.client.HTTPConnection(host, timeout=30)
        body = json.dumps({"text": "a cat", "max_new_tokens": 200, "temperature": 1.0})
        connection.request("POST", "/api/continue", body, {"content-type": "application/json"})
        connection.close()  # without reading the answer
    deadline = time.monotonic() + 60
    while (status := server.ask("api/run", {"text": "a dog", "reads": ["next"]}).status) != 200:
        assert status == 503 and time.monotonic() < deadline
        time.sleep(0.1)
    deadline = time.monotonic() + 60
    while len(threading.enumerate()) > 60 or open_sockets() > 40:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def runs_without_end(self, lens, request):
    """Runs the model again and again, in place of reading the request."""
    while True:
        lens.run(np.array([[1, 2, 3]]))


def test_a_run_that_takes_too_long_is_stopped(served, monkeypatch):
    server = served(longest=0.3)
    with monkeypatch.context() as patched:
        patched.setattr(type(server.engine), "_ids", runs_without_end)
        reply = server.ask("api/run", {"text": "a cat", "reads": ["next"]})
    assert reply.status == 503
    assert reply.json["error"].startswith("Stopped after 0.3 seconds; ask for less")
    assert server.ask("api/run", {"text": "a cow", "reads": ["next"]}).status == 200


def test_a_client_that_goes_away_stops_its_run(served, monkeypatch):
    server = served()
    connection = http.client.HTTPConnection(server.address.removeprefix("http://").rstrip("/"), timeout=30)
    with monkeypatch.context() as patched:
        begun = threading.Event()
        patched.setattr(type(server.engine), "_ids", lambda *asked: begun.set() or runs_without_end(*asked))
        connection.request("POST", "/api/run", '{"text": "a cat"}', {"content-type": "application/json"})
        assert begun.wait(30)
    connection.close()
    assert server.ask("api/run", {"text": "a sow", "reads": ["next"]}).status == 200  # its turn came


def test_fractions_come_as_float16_where_they_fit(served, monkeypatch):
    server = served()
    asked = {"text": TEXT, "reads": ["blocks.1.attn.hook_pattern", "next"]}
    whole, half = (server.ask("api/run", {**asked, "dtype": dtype}).arrays for dtype in ("float32", "float16"))
    for name, array in whole.items():
        assert half[name].dtype == (np.float16 if array.dtype == np.float32 else array.dtype)
        assert np.array_equal(half[name], array.astype(half[name].dtype))
    edit = {"hook": "blocks.0.mlp.hook_post", "operation": "scale", "factor": 1e6}
    reply = server.ask("api/run", {**asked, "reads": ["blocks.0.mlp.hook_post"], "dtype": "float16", "edits": [edit]})
    assert reply.status == 400
    assert "which float16 cannot hold; ask for float32" in reply.json["error"]


def open_sockets():
    """How many sockets this process has open; 0 where that cannot be told."""
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        return 0
    found = 0
    for one in folder.iterdir():
        with contextlib.suppress(OSError):
            found += one.readlink().name.startswith("socket:")
    return found


def values(schema, components):
    """Values that a JSON schema allows, of the kinds that the description has."""
    if "$ref" in schema:
        return values(components["schemas"][schema["$ref"].rpartition("/")[2]], components)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema:
        return st.one_of([values(one, components) for one in schema["anyOf"]])
    if schema.get("type") == "array":
        return st.lists(values(schema.get("items", {}), components), max_size=4)
    if schema.get("type") == "object":
        required = {name: values(schema["properties"][name], components) for name in schema.get("required", ())}
        others = {name: values(one, components) for name, one in schema.get("properties", {}).items()}
        return st.fixed_dictionaries(required, optional={k: v for k, v in others.items() if k not in required})
    words = st.sampled_from(
        ["a cat", "", "next", "blocks.*", "hook_embed[0]", "hook_embed[0,0,0]", "top_k=3", "x|", "tiny"]
    )
    kinds = {
        "string": words | st.text(max_size=20),
        "integer": st.integers(-3, 300) | st.integers(-(2**70), 2**70),
        "number": st.floats(allow_nan=False, allow_infinity=False),
        "boolean": st.booleans(),
        "null": st.none(),
    }
    return kinds.get(schema.get("type"), st.none() | st.integers() | st.text(max_size=5))


@pytest.mark.parametrize("path", ["model", "tokenize", "run", "sweep", "continue", "view"])
def test_requests_made_from_the_description_never_break_the_server(served, path):
    server = served()
    described = openapi()
    content = described["paths"][f"/api/{path}"]["post"]["requestBody"]["content"]["application/json"]["schema"]

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(values(content, described["components"]))
    def check(body):
        body.pop("max_new_tokens", None)  # which takes as long as it says
        reply = server.ask(f"api/{path}", body)
        assert reply.status in (200, 400, 503), (body, reply.status, reply.body[:300])
        if reply.status != 200:
            assert reply.json["error"].strip()

    check()


def test_the_description_is_of_the_requests(served):
    described = openapi()
    assert served().ask("api/openapi.json").json == json.loads(json.dumps(described))
    schema = {**described["paths"]["/api/run"]["post"]["requestBody"]["content"]["application/json"]["schema"]}
    schema["components"] = described["components"]
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid({"text": "a", "reads": ["next"]})
    assert not validator.is_valid({"text": 5})


def test_a_port_that_is_taken_gives_way_to_the_next():
    first = free_socket("127.0.0.1", 0)
    port = first.getsockname()[1]
    second = free_socket("127.0.0.1", port)
    assert port < second.getsockname()[1] <= port + 20
    first.close()
    second.close()
    with pytest.raises(OutputError, match=r"^Cannot listen on 203\.0\.113\.7, port 8642"):
        free_socket("203.0.113.7", 8642)
