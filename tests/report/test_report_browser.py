"""The page in a browser, from disk: silent, alone, within a phone's width, and readable in light and in dark."""

from __future__ import annotations

import json
import shutil

import pytest

from pr2_jax.report import build_report

CHROMIUM, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Chromium and its driver")

CONTRAST = """
const rgb = text => text.match(/[\\d.]+/g).map(Number);
const linear = x => x <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4;
const light = c => { const v = c.slice(0, 3).map(x => linear(x / 255));
  return .2126 * v[0] + .7152 * v[1] + .0722 * v[2]; };
const behind = node => { for (; node; node = node.parentElement) {
  const c = rgb(getComputedStyle(node).backgroundColor); if (c.length < 4 || c[3] == 1) return c; } return null; };
const found = [];
document.querySelectorAll('details').forEach(d => d.open = true);
for (const node of document.querySelectorAll('body *')) {
  const own = [...node.childNodes].some(n => n.nodeType == 3 && n.textContent.trim());
  if (!own || ['STYLE', 'SCRIPT', 'title', 'desc'].includes(node.tagName)) continue;
  const style = getComputedStyle(node), back = behind(node);
  const [a, b] = [light(rgb(node instanceof SVGElement ? style.fill : style.color)), light(back)].sort((x, y) => y - x);
  found.push([(a + .05) / (b + .05), node.tagName, node.textContent.slice(0, 40)]);
}
found.sort((x, y) => x[0] - y[0]);
return [found.length, found.slice(0, 5)];
"""
WIDE = """
document.querySelectorAll('details').forEach(d => d.open = true);
const width = document.documentElement.clientWidth;
const boxed = node => { for (; node; node = node.parentElement)
  if (['auto', 'hidden'].includes(getComputedStyle(node).overflowX)) return true; return false; };
return [document.documentElement.scrollWidth, width, [...document.querySelectorAll('body *')].filter(
  n => n.getBoundingClientRect().right > width + 1 && !boxed(n)).map(n => n.outerHTML.slice(0, 90)).slice(0, 3)];
"""


@pytest.fixture(scope="module")
def browser(reported):
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.get((reported / build_report.DIRECTORY / build_report.PAGE).as_uri())
    yield driver
    driver.quit()


def _seen_as(browser, scheme: str, width: int = 1280) -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def test_it_loads_alone_and_says_nothing(browser):
    assert browser.title.startswith("PR² report: ")
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert asked
    assert all(url.startswith(("file:", "data:")) for url in asked)
    assert len([url for url in asked if url.startswith("file:")]) == 1
    assert browser.execute_script("return document.images.length + document.scripts.length") == 0


@pytest.mark.parametrize("width", [375, 768, 1280])
def test_nothing_is_wider_than_the_screen(browser, width):
    _seen_as(browser, "light", width)
    whole, inner, wide = browser.execute_script(WIDE)
    assert wide == []
    assert whole <= inner <= width


@pytest.mark.parametrize(("scheme", "darker"), [("light", False), ("dark", True)])
def test_text_stands_out_in_both_schemes(browser, scheme, darker):
    _seen_as(browser, scheme)
    background = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (int(background.removeprefix("rgb(").split(",")[0]) < 128) == darker
    count, worst = browser.execute_script(CONTRAST)
    assert count > 500
    assert worst[0][0] >= 4.5, worst


def test_contents_stay_in_sight_and_lead_to_sections(browser):
    _seen_as(browser, "light")
    browser.execute_script("document.querySelector('nav a[href=\"#training\"]').click()")
    top = browser.execute_script("return document.getElementById('training').getBoundingClientRect().top")
    assert -2 <= top < 200
    nav = browser.execute_script("return document.querySelector('nav').getBoundingClientRect().top")
    assert nav == pytest.approx(0, abs=1)


def test_probes_see_what_is_wrong(browser):
    """A grey text on white, and a bar of a thousand pixels on a phone."""
    _seen_as(browser, "light", 375)
    style = "color: #8a8a8a; background: #ffffff; width: 1000px; max-width: none"
    plant = (
        f"p.id = 'planted'; p.textContent = 'planted'; p.style = '{style}'; document.querySelector('main').append(p)"
    )
    browser.execute_script(f"const p = document.createElement('p'); {plant}")
    whole, inner, wide = browser.execute_script(WIDE)
    _, worst = browser.execute_script(CONTRAST)
    browser.execute_script("document.getElementById('planted').remove()")
    assert any("planted" in one for one in wide)
    assert worst[0][2] == "planted"
    assert 3 < worst[0][0] < 4.5
    assert whole > inner or wide
