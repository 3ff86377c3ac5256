"""A site where something goes wrong: a sentence on the page, and a page that still works."""

from __future__ import annotations

import json
import re

import pytest
from explorer_page import NEEDS_PAGE, hosted

pytestmark = NEEDS_PAGE
REST = "What was computed when the page was made is shown."


@pytest.fixture
def address(tiny_site):
    """The address of a site with the model that ships."""
    with hosted(tiny_site) as address:
        yield address


def first_board(page, address):
    """Opens the site; its first board needs no model."""
    page.goto(address)
    page.get_by_test_id("difference").wait_for()
    assert page.get_by_test_id("text").input_value() == "Anna met Peter"


def said(page, sentence):
    """Waits until the page says a sentence."""
    page.get_by_role("alert").get_by_text(sentence).wait_for()


def types(page, text, tokens):
    """Types a text, and waits until the model has read it."""
    page.get_by_test_id("text").fill(text)
    page.get_by_test_id("model").get_by_text(re.compile(rf"tokens: {tokens}\b")).wait_for()


def test_a_browser_without_simd(address, browser):
    page = browser.new_page()
    page.add_init_script("WebAssembly.validate = () => false")
    loaded = []
    page.on("request", lambda one: loaded.append(one.url))
    first_board(page, address)
    said(
        page, "This browser has no WebAssembly with SIMD, which the model needs; use a current browser, or 'onnxlens ex"
    )
    page.get_by_test_id("text").fill("a dog")
    said(page, REST)
    assert not [url for url in loaded if "model.onnx_data" in url]
    page.close()


def test_a_device_with_too_little_memory(address, browser, tiny_site):
    site = tiny_site / "models/0/model.json"
    facts = json.loads(site.read_text())
    facts["weights"].append({"name": "large", "shape": [1_000_000_000]})
    site.write_text(json.dumps(facts))
    page = browser.new_page()
    page.add_init_script("Object.defineProperty(navigator, 'deviceMemory', { value: 4 })")
    first_board(page, address)
    said(page, f"This model needs about 8.3 GB of memory in the browser, and this device has 4 GB in all. {REST}")
    page.get_by_test_id("text").fill("a dog")
    said(page, REST)
    page.close()


def test_memory_is_refused_half_way(address, launch):
    browser = launch("--js-flags=--wasm-max-mem-pages=400")  # 26 MB
    page = browser.new_page()
    first_board(page, address)
    sentence = "The browser has no more memory for this model; close other tabs, or use a shorter text."
    said(page, sentence)
    page.get_by_test_id("text").fill("a dog")
    said(page, sentence)
    browser.close()


def test_no_connection_while_the_model_is_loaded(address, browser):
    context = browser.new_context(service_workers="block")
    page = context.new_page()
    context.route("**/model.onnx_data", lambda route: route.abort())
    first_board(page, address)
    said(page, "model.onnx_data could not be loaded: there is no connection to the site, or the browser refused it.")
    context.unroute("**/model.onnx_data")
    types(page, "a dog", 2)
    assert page.get_by_role("alert").text_content() == ""
    context.close()


def test_a_file_is_missing_on_the_server(address, browser, tiny_site):
    (tiny_site / "models/0/explorer.onnx").unlink()
    page = browser.new_page()
    first_board(page, address)
    said(page, "explorer.onnx could not be loaded: the site answered 404.")
    page.close()


@pytest.mark.parametrize("quota", [0, 1_000_000])
def test_storage_is_full(address, browser, quota):
    context = browser.new_context()
    page = context.new_page()
    session = context.new_cdp_session(page)
    session.send("Storage.overrideQuotaForOrigin", {"origin": address.rstrip("/"), "quotaSize": quota})
    first_board(page, address)
    types(page, "a dog", 2)
    page.reload()
    types(page, "a cat", 2)
    context.close()


def test_storage_is_blocked(address, browser):
    # As where cookies are blocked: in the page and in its worker, which has no init script.
    context = browser.new_context(service_workers="block")
    broken = "Object.defineProperty(globalThis, 'caches', { get() { throw new DOMException('no', 'SecurityError') } });"

    def answer(route):
        route.fulfill(response=(found := route.fetch()), body=broken + found.text())

    context.route("**/assets/*.js", answer)
    page = context.new_page()
    first_board(page, address)
    types(page, "a dog", 2)
    assert page.evaluate("(() => { try { return !!caches } catch { return false } })()") is False
    context.close()


def test_two_tabs(address, browser):
    context = browser.new_context()
    tabs = [context.new_page(), context.new_page()]
    for tab in tabs:
        tab.goto(address)
    for tab, text in zip(tabs, ["a dog", "the cat sat"], strict=True):
        types(tab, text, len(text.split()))
    tabs[0].close()
    types(tabs[1], "a dog and a cat", 5)
    context.close()


def test_a_tab_that_slept(address, browser):
    context = browser.new_context()
    page = context.new_page()
    first_board(page, address)
    types(page, "a dog", 2)
    session = context.new_cdp_session(page)
    for state in ("frozen", "active"):
        session.send("Page.setWebLifecycleState", {"state": state})
    types(page, "the cat sat", 3)
    context.close()
