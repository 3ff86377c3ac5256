"""The panels of the drawer in Chromium: every number is the runner's, and every arithmetic adds up."""

from __future__ import annotations

import re

import numpy as np
import pytest
from explorer_page import NEEDS_PAGE, number

from onnxlens.plugins.explorer._requests import RunRequest, SweepRequest, TokenizeRequest

pytestmark = NEEDS_PAGE

TEXTS = {None: "When Mary and John went to the shop, John gave a drink to", "llama": "the cat sat on the mat"}
MODELS = [None, "llama"]
EDIT = '&edits=[{"hook":"blocks.0.attn.hook_z","operation":"zero","heads":1}]'


def lens_of(engine):
    """The model behind an engine."""
    return engine._models.first


def states(lens, random):
    """Selections of all kinds, at places chosen by seed."""
    config = lens.config
    length = len(lens.tokenizer.encode(TEXTS["llama" if config.gated_mlp else None]))

    def place(size):
        return int(random.integers(size))

    query = 1 + place(length - 1)
    return {
        "token": f"token:{place(length)}",
        "cell": f"cell:{1 + place(config.n_layers)},{place(length)}",
        "block": f"block:{place(config.n_layers)},{place(length)}",
        "norm": f"norm:blocks.{place(config.n_layers)}.ln{1 + place(2)},{place(length)}",
        "final norm": f"norm:ln_final,{place(length)}",
        "head": f"head:{place(config.n_layers)},{place(config.n_heads)}",
        "pair": f"head:{place(config.n_layers)},{place(config.n_heads)},{query},{place(query + 1)}",
        "mlp": f"mlp:{place(config.n_layers)},{place(length)}",
        "neuron": f"neuron:{place(config.n_layers)},{place(config.d_mlp)},{place(length)}",
    }


def opened(page, text, state, more=""):
    """Selects something, and waits until the drawer has all of it."""
    page.evaluate("hash => { location.hash = hash; }", f"text={text}&at={state}{more}")
    page.locator(".drawer [data-address]").first.wait_for()
    page.wait_for_function(
        """() => !document.querySelector('.drawer [aria-busy="true"]')""",
    )
    return page.locator(".drawer")


def shown_numbers(drawer):
    """The numbers that open their arithmetic: addresses and texts."""
    return drawer.locator("button[data-address]").evaluate_all(
        "all => all.map(one => [one.dataset.address, one.querySelector('.digits').textContent])"
    )


def true_numbers(engine, text, addresses, edits=()):
    """The runner's numbers at addresses; those that no hook point has, from the ones that they come from."""
    lens = lens_of(engine)
    norms = lens.runner.bundle.description.normalizations
    wanted: dict[str, list[str]] = {}
    for address in addresses:
        name, places = re.fullmatch(r"(.+)\[(.+)\]", address).groups()
        if name in norms:
            entry = places.split(",")[1]
            weights = [f"{name}.{one}[{entry}]" for one in "wb" if f"{name}.{one}" in lens.weights]
            wanted[address] = [f"{name}.hook_normalized[{places}]", *weights]
        elif name == "probabilities":
            wanted[address] = [f"logits[{places.split(',')[0]}]"]
        else:
            wanted[address] = [address]
    reads = list(dict.fromkeys(one for each in wanted.values() for one in each))
    arrays = engine.run(RunRequest(text=text, reads=reads, edits=list(edits))).arrays
    found = {}
    for address, parts in wanted.items():
        values = [arrays[one].astype(np.float64).ravel() for one in parts]
        if address.startswith("probabilities"):
            logits = values[0]
            entry = int(address.rstrip("]").split(",")[1])
            found[address] = float(np.exp(logits[entry] - logits.max()) / np.exp(logits - logits.max()).sum())
        elif parts == [address]:
            found[address] = values[0].item()
        else:
            found[address] = (values[0] * (values[1] if len(values) > 1 else 1) + sum(values[2:])).item()
    return found


def agrees(text, true):
    """Whether a number as it is written is this number, rounded."""
    text = text.replace("−", "-").replace("∞", "inf")
    if "inf" in text:
        return float(text) == true
    fraction, power = re.search(r"\d+(?:\.(\d+))?(?:e(-?\d+))?", text).groups()
    last = 10.0 ** (int(power or 0) - len(fraction or "")) / (100 if "%" in text else 1)  # the unit of the last digit
    shown = number(text) / (100 if "%" in text else 1)
    return abs(shown - true) <= 0.501 * last + 1e-7 * abs(true)


@pytest.mark.parametrize("name", MODELS)
def test_the_numbers_of_all_panels_are_the_runners(visit, bundle, name):
    folder = None if name is None else bundle(name)
    text = TEXTS[name]
    page, engine = visit(f"text={text}", folder)
    count = 0
    for seed in range(3):
        for kind, state in states(lens_of(engine), np.random.default_rng(seed)).items():
            shown = shown_numbers(opened(page, text, state))
            true = true_numbers(engine, text, [address for address, _ in shown])
            assert shown, kind
            for address, digits in shown:
                assert agrees(digits, true[address]), (kind, state, address, digits, true[address])
            count += len(shown)
    assert count > 400


def test_numbers_with_edits_are_those_with_edits(visit):
    page, engine = visit(f"{EDIT[1:]}")
    edits = [{"hook": "blocks.0.attn.hook_z", "operation": "zero", "heads": 1}]
    for state in ("cell:3,13", "block:1,13", "head:2,1", "mlp:4,13", "neuron:3,7"):
        shown = shown_numbers(opened(page, TEXTS[None], state, EDIT))
        true = true_numbers(engine, TEXTS[None], [address for address, _ in shown], edits)
        for address, digits in shown:
            assert agrees(digits, true[address]), (state, address, digits, true[address])
    drawer = opened(page, TEXTS[None], "cell:3,13", EDIT)
    assert drawer.get_by_test_id("rank").get_by_text("was").count() == 1


def addresses(lens, random, count):
    """Addresses of single numbers, of all hook points and of the logits, chosen by seed."""
    length = len(lens.tokenizer.encode(TEXTS["llama" if lens.config.gated_mlp else None]))
    points = {re.sub(r"^blocks\.\d+\.", "blocks.N.", point.name): [] for point in lens.hook_points}
    for point in lens.hook_points:
        points[re.sub(r"^blocks\.\d+\.", "blocks.N.", point.name)].append(point)
    found = []
    for turn in range(-(-count // (len(points) + 1))):
        for choices in points.values():
            point = choices[int(random.integers(len(choices)))]
            places = [int(random.integers(size)) for size in point.shape(lens.config, 1, length)[1:]]
            if point.axes[-2:] == ("query_pos", "key_pos") and turn % 4:
                places[-1] = int(random.integers(places[-2] + 1))  # not masked
            found.append(f"{point.name}[{','.join(map(str, places))}]")
        found.append(f"logits[{int(random.integers(length))},{int(random.integers(lens.config.d_vocab))}]")
    return found


def decimal(text):
    """A number as it is written, in units of its last digit, and its decimals."""
    sign, whole, fraction = re.fullmatch(r"(−?)(\d+)(?:\.(\d+))?", text).groups()
    fraction = fraction or ""
    return (-1 if sign else 1) * int(whole + fraction), len(fraction)


@pytest.mark.parametrize("name", MODELS)
def test_each_arithmetic_adds_up_to_what_it_explains(visit, bundle, name):
    folder = None if name is None else bundle(name)
    text = TEXTS[name]
    page, engine = visit(f"text={text}", folder)
    chosen = addresses(lens_of(engine), np.random.default_rng(5), 100)
    arrays = engine.run(RunRequest(text=text, reads=chosen)).arrays
    for address in chosen:
        page.evaluate("hash => { location.hash = hash; }", f"text={text}&at=value:{address}")
        article = page.locator(f'article[data-address="{address}"]')
        article.wait_for()
        facts = article.evaluate(
            """one => {
              const find = name => one.querySelector(`[data-testid="${name}"]`);
              const tables = [...one.querySelectorAll('table')].filter(all => all.querySelector('tfoot [data-testid]'));
              const sums = tables.map(table => ({
                terms: [...table.querySelectorAll('tbody tr')].map(row => row.querySelector('td.digits').textContent),
                total: table.querySelector('tfoot td.digits').textContent,
              }));
              return { kind: one.dataset.kind, total: find('arithmetic-total').dataset.value, sums,
                       stored: find('arithmetic-stored')?.dataset.value,
                       agrees: find('arithmetic-agrees')?.dataset.agrees };
            }"""
        )
        true = arrays[address].item()
        assert facts["kind"] not in ("unknown", "given"), address
        assert facts["agrees"] == "true", (address, facts)
        assert float(facts["stored"].replace("Infinity", "inf")) == true, address
        for each in facts["sums"]:
            if any("∞" in one for one in [*each["terms"], each["total"]]):
                continue
            written = [decimal(one) for one in [*each["terms"], each["total"]]]
            most = max(decimals for _, decimals in written)
            *terms, total = (units * 10 ** (most - decimals) for units, decimals in written)
            assert sum(terms) == total, (address, each)


@pytest.mark.parametrize("name", MODELS)
def test_a_cell_shows_the_answer_through_depth(visit, bundle, name):
    folder = None if name is None else bundle(name)
    page, engine = visit(f"text={TEXTS[name]}", folder)
    drawer = opened(page, TEXTS[name], "cell:1,2")
    drawer.get_by_text("The numbers in a table").click()
    board = engine.run(RunRequest(text=TEXTS[name], reads=["next"]))
    pair = {"token": board.facts["token"], "against": board.facts["against"]}
    found = engine.run(RunRequest(text=TEXTS[name], reads=["ranks", "norms"], position=2, **pair)).arrays
    for state, rank in enumerate(found["ranks"].tolist()):
        assert int(drawer.get_by_test_id(f"rank-{state}").text_content()) == rank + 1
        assert agrees(drawer.get_by_test_id(f"share-{state}").text_content(), found["ranks.probabilities"][state])
        assert agrees(drawer.get_by_test_id(f"norm-{state}").text_content(), found["norms"][state, 2])


@pytest.mark.parametrize("name", MODELS)
def test_effects_add_up_and_sweeps_are_the_engines(visit, bundle, name):
    folder = None if name is None else bundle(name)
    text = TEXTS[name]
    page, engine = visit(f"text={text}", folder)
    board = engine.run(RunRequest(text=text, reads=["effects", "sources", "neurons"]))
    heads, mlps = board.arrays["effects.heads"], board.arrays["effects.mlps"]
    drawer = opened(page, text, "block:1")
    shown = [number(drawer.get_by_test_id(f"block-effect-{head}").text_content()) for head in range(heads.shape[1])]
    assert np.abs(np.array(shown) - heads[1]).max() <= 0.00501
    assert abs(number(drawer.get_by_test_id("effect-attention").text_content()) - heads[1].sum()) <= 0.00501
    assert abs(number(drawer.get_by_test_id("effect-mlp").text_content()) - mlps[1]) <= 0.00501
    drawer = opened(page, text, "mlp:1")
    for one in drawer.locator("[data-testid^=neuron-effect-]").all():
        neuron = int(one.get_attribute("data-testid").rpartition("-")[2])
        assert abs(number(one.text_content()) - board.arrays["neurons"][1, neuron]) <= 0.00501
    drawer = opened(page, text, "head:1,2")
    # The shares and effects of all tokens add up to the head's.
    assert drawer.get_by_test_id("sum-share").text_content() == "100.0 %"
    assert abs(number(drawer.get_by_test_id("sum-effect").text_content()) - heads[1, 2]) <= 0.00501
    pair = {"token": board.facts["token"], "against": board.facts["against"]}
    swept = engine.sweep(SweepRequest(text=text, kind="ablate_heads", **pair)).arrays["effects"]
    assert abs(number(drawer.get_by_test_id("head-ablated").text_content()) - swept[1, 2]) <= 0.00501
    scores = engine.sweep(SweepRequest(text=text, kind="head_scores")).arrays
    for shown_as, kind in (
        ("previous", "previous_token"),
        ("duplicate", "duplicate_token"),
        ("induction", "induction"),
    ):
        assert agrees(drawer.get_by_test_id(f"score-{shown_as}").text_content(), scores[kind][1, 2])
    promoted = engine.run(
        RunRequest(
            text=text,
            reads=["unembedded"],
            directions=[f"blocks.1.attn.hook_result[{len(board.facts['tokens']) - 1},2]"],
        )
    ).facts["promoted"][0]
    for kind, tokens in (("promotes", promoted["most"]), ("suppresses", promoted["least"])):
        for one in tokens:
            assert abs(number(drawer.get_by_test_id(f"{kind}-{one['id']}").text_content()) - one["logit"]) <= 0.00501


@pytest.mark.parametrize("name", MODELS)
def test_the_stages_of_attention_are_the_models(visit, bundle, name):
    folder = None if name is None else bundle(name)
    text = TEXTS[name]
    page, engine = visit(f"text={text}", folder)
    drawer = opened(page, text, "head:1,2")
    attn = "blocks.1.attn"
    arrays = engine.run(RunRequest(text=text, reads=[f"{attn}.*"])).arrays
    turned = "rot_" if f"{attn}.hook_rot_q" in arrays else ""
    q, k = (arrays[f"{attn}.hook_{turned}{one}"].astype(np.float64) for one in "qk")
    shared = 2 // (q.shape[1] // k.shape[1])
    products = q[:, 2] @ k[:, shared].T
    expected = {
        "products": products,
        "scaled": products / np.sqrt(q.shape[-1]),
        "masked": arrays[f"{attn}.hook_attn_scores"][2].astype(np.float64),
        "shares": arrays[f"{attn}.hook_pattern"][2].astype(np.float64),
    }
    for stage, true in expected.items():
        drawer.get_by_test_id(f"stage-{stage}").check()
        drawer.get_by_text("attention pattern of head 1.2").wait_for()
        page.wait_for_function("""() => !document.querySelector('.drawer [aria-busy="true"]')""")
        page.wait_for_timeout(200)
        for query, key in [(0, 0), (3, 1), (1, 3), (4, 2)]:
            said = drawer.get_by_test_id(f"pattern-{query}-{key}").get_attribute("title").rpartition(": ")[2]
            if key > query and stage in ("masked", "shares"):
                assert said == "hidden by the mask"
            else:
                assert agrees(said, true[query, key]), (stage, query, key)
    drawer.get_by_test_id("numbers").check()
    share = float(drawer.get_by_test_id("pattern-3-1").text_content())
    assert abs(share - 100 * expected["shares"][3, 1]) <= 0.501


def test_letters_of_several_tokens_are_whole(visit):
    text = "Zürich 😀"
    page, engine = visit(f"text={text}")
    found = engine.tokenize(TokenizeRequest(text=text))
    drawer = opened(page, text, "token:1")
    split = drawer.get_by_test_id("split-letter").text_content()
    assert "ü" in split
    assert "c3 bc" in split
    for place in found["words"][0]["tokens"]:
        assert int(drawer.get_by_test_id(f"id-{place}").text_content()) == found["tokens"][place]["id"]
    steps = drawer.get_by_test_id("merges").locator("li")
    assert steps.count() == 1 + len(found["words"][0]["merges"])
    drawer = opened(page, text, "token:8")
    assert "f0 9f 98 80" in drawer.get_by_test_id("split-letter").text_content()


def test_a_model_with_rotary_positions_says_where_they_come_in(visit, bundle):
    page, _ = visit(f"text={TEXTS['llama']}", bundle("llama"))
    drawer = opened(page, TEXTS["llama"], "token:1")
    assert drawer.get_by_test_id("rotary").is_visible()
    assert drawer.get_by_test_id("vector-hook_pos_embed").count() == 0
    drawer = opened(page, TEXTS["llama"], "head:0,4,3,1")
    assert drawer.get_by_test_id("q-plain").is_visible()


ACTIONS = [
    ("token:3", "token-after", "at=token:4"),
    ("token:3", "predict-here", "position=3"),
    ("cell:2,5", "block-before", "at=block:1"),
    ("cell:2,5", "predict-here", "position=5"),
    ("block:2,5", "block-head-3", "at=head:2,3,5"),
    ("block:2,5", "block-mlp", "at=mlp:2,5"),
    ("block:2,5", "token-before", "at=block:2,4"),
    ("head:2,1", "head-after", "at=head:2,2"),
    ("head:2,1", "to-source-4", "at=head:2,1,13,4"),
    ("head:2,1", "to-pair", "at=head:2,1,13"),
    ("head:2,1,6,2", "rival-4", "at=head:2,1,6,4"),
    ("head:2,1,6,2", "to-head", "at=head:2,1,6"),
    ("mlp:2,5", "token-after", "at=mlp:2,6"),
    ("neuron:2,5,5", "neuron-after", "at=neuron:2,6,5"),
]


@pytest.mark.parametrize("way", ["mouse", "keyboard"])
def test_each_panel_opens_from_the_board(visit, way):
    page, _ = visit()

    def press(test_id):
        control = page.get_by_test_id(test_id)
        if way == "mouse":
            control.click()
        else:
            control.focus()
            page.keyboard.press("Enter")

    for test_id, at in [
        ("token-1", "token:1"),
        ("cell-3-2", "cell:3,2"),
        ("block-2", "block:2"),
        ("mlp-4", "mlp:4"),
        ("head-3-1", "head:3,1"),
        ("to-source-1", "head:3,1,13,1"),
    ]:
        press(test_id)
        page.wait_for_timeout(300)
        assert f"at={at}" in page.url
    press("mlp-4")
    page.locator("button[data-testid^=neuron-]").first.click()
    page.wait_for_function("() => location.hash.includes('at=neuron:4,')")
    page.locator("[data-address]").first.click()
    page.get_by_test_id("arithmetic-total").wait_for()


@pytest.mark.parametrize("way", ["mouse", "keyboard"])
def test_each_panel_goes_on_by_mouse_and_keyboard(visit, way):
    page, _ = visit()
    for state, control, expected in ACTIONS:
        drawer = opened(page, TEXTS[None], state)
        button = drawer.get_by_test_id(control)
        if way == "mouse":
            button.click()
        else:
            button.focus()
            page.keyboard.press("Enter")
        page.wait_for_function("part => decodeURIComponent(location.hash).includes(part)", arg=expected)


@pytest.mark.parametrize("way", ["mouse", "keyboard"])
def test_a_number_opens_its_arithmetic_and_back(visit, way):
    page, _ = visit()
    for state in ("token:3", "cell:2,5", "block:2,5", "norm:blocks.2.ln1,5", "head:2,1,6,2", "mlp:2,5", "neuron:2,5,5"):
        drawer = opened(page, TEXTS[None], state)
        stripe = drawer.locator(".stripe [role=slider]").first
        if way == "mouse":
            drawer.locator("button[data-address]").first.click()
        else:
            stripe.focus()
            page.keyboard.press("Home")
            page.keyboard.press("ArrowRight")
            assert stripe.get_attribute("aria-valuenow") == "1"
            page.keyboard.press("Enter")
        article = page.get_by_test_id("arithmetic")
        article.wait_for()
        entry = "[1,5]" if state.startswith("neuron") else ",1]"  # a neuron's weights are a column
        assert way == "mouse" or article.get_attribute("data-address").endswith(entry)
        first = article.get_attribute("data-address")
        operand = article.locator("button.operand").first
        steps = 1 + operand.count()  # a weight has no operands
        if operand.count():
            operand.click() if way == "mouse" else (operand.focus(), page.keyboard.press("Enter"))
            page.wait_for_function(
                "address => document.querySelector('article').dataset.address !== address", arg=first
            )
        for _ in range(steps):
            back = page.get_by_test_id("value-back")
            back.click() if way == "mouse" else (back.focus(), page.keyboard.press("Enter"))
        page.wait_for_function("at => decodeURIComponent(location.hash).includes('at=' + at)", arg=state)


def test_a_pattern_is_walked_with_arrow_keys(visit):
    page, _ = visit()
    drawer = opened(page, TEXTS[None], "head:2,1,")
    drawer.locator('td[tabindex="0"]').focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_function("() => decodeURIComponent(location.hash).includes('at=head:2,1,12,1')")


@pytest.mark.parametrize("text", ["to", " ".join(["the cat and the dog sat on the mat."] * 24)])
def test_panels_of_one_token_and_of_a_long_text(visit, text):
    page, engine = visit(f"text={text}", viewport={"width": 360, "height": 780})
    length = len(lens_of(engine).tokenizer.encode(text))
    for state in ("token:0", "cell:2,0", "block:2", "norm:ln_final", "head:2,1", "head:2,1,0,0", "mlp:2", "neuron:2,5"):
        # A newer board's guesses would replace those that are still loading, which Chromium reports.
        page.wait_for_function(
            "() => ![...document.querySelectorAll('.cell')].some(one => one.textContent.includes('…'))"
        )
        shown = shown_numbers(opened(page, text, state))
        true = true_numbers(engine, text, [address for address, _ in shown])
        for address, digits in shown:
            assert agrees(digits, true[address]), (state, address, digits, true[address])
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, state
    drawer = opened(page, text, "head:2,1")
    assert drawer.get_by_test_id("pattern-canvas").count() == (1 if length > 40 else 0)
    assert drawer.get_by_test_id("sum-share").text_content() == "100.0 %"


def test_what_is_read_for_a_head_is_one_heads(visit):
    page, _ = visit()
    asked = []
    page.on("request", lambda one: one.url.endswith("/run") and asked.append(one.post_data_json["reads"]))
    opened(page, TEXTS[None], "head:3,2")
    reads = [one for each in asked for one in each if "attn." in one]
    assert reads
    assert all("[" in one for one in reads)


def test_panels_speak_chinese(visit):
    page, _ = visit("lang=zh")
    for state, word in [
        ("token:3", "分词"),
        ("block:2", "残差流"),
        ("head:2,1", "谁关注谁"),
        ("mlp:2", "神经元"),
        ("norm:ln_final", "均值"),
    ]:
        drawer = opened(page, TEXTS[None], state, "&lang=zh")
        assert word in drawer.text_content()
