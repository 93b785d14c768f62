"""The page in a real browser, as a person uses it."""

from __future__ import annotations

import itertools
import shutil

import pytest

selenium = pytest.importorskip("selenium")

from selenium import webdriver  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support import expected_conditions  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium with its driver here")
PHONE = {"width": 375, "height": 812, "deviceScaleFactor": 1, "mobile": True}


@pytest.fixture
def browser(tmp_path):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--user-data-dir={tmp_path}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(DRIVER))
    browser.set_page_load_timeout(60)
    yield browser
    browser.quit()


def _follow(browser, element):
    """Clicks, and waits until this page has gone."""
    page = browser.find_element(By.TAG_NAME, "html")
    element.click()
    WebDriverWait(browser, 60).until(expected_conditions.staleness_of(page))


def _search(browser, user, query):
    for name, text in (("user", user), ("query", query)):
        field = browser.find_element(By.ID, name)
        field.clear()
        field.send_keys(text)
    _follow(browser, browser.find_element(By.CSS_SELECTOR, "form button"))


def _places(browser, system):
    return [one.text for one in browser.find_elements(By.CSS_SELECTOR, f"#list-{system} .place")]


def _messages(browser):
    return browser.find_element(By.CSS_SELECTOR, "[role=status][aria-live]").text


def _too_wide(browser):
    """Elements that reach beyond the right edge."""
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    return browser.execute_script(
        "return [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1 "
        "&& !e.closest('.unseen, datalist, .because')).map(e => e.outerHTML.slice(0, 80))"
    )


def test_a_person_searches(browser, site, answers):
    browser.get(f"http://127.0.0.1:{site.port}/")
    person, query = answers.people[0], answers.queries[0]
    _follow(browser, browser.find_element(By.CSS_SELECTOR, f'.start a[href*="user={person.user}&"]'))
    assert _places(browser, "base") == _places(browser, "pr2") == [str(n) for n in range(1, 11)]
    _search(browser, str(person.user), query)
    assert f"user={person.user}" in browser.current_url
    assert query in browser.find_element(By.ID, "found").text
    assert _messages(browser) == ""
    for system in ("base", "pr2"):
        cards = browser.find_elements(By.CSS_SELECTOR, f"#list-{system} .result")
        assert len(cards) == 10
        assert all("click" in card.text and "score" in card.text for card in cards)
    bars = browser.find_elements(By.CSS_SELECTOR, "#list-pr2 .bar .fill")
    widths = [bar.rect["width"] for bar in bars]
    assert max(widths) > 20, "bars are drawn, whatever the policy forbids"
    assert f"Person {person.user}" in browser.find_element(By.CSS_SELECTOR, ".person").text

    _search(browser, "987654321", "zzqqxx")
    assert "Person 987654321 is not in the log" in _messages(browser)
    assert "zzqqxx" in _messages(browser)
    assert _places(browser, "pr2")

    _search(browser, "", "<b>zz</b>")
    assert "Nobody in particular" in _messages(browser)
    assert "b, zz, b" in _messages(browser)  # the words, and no mark-up

    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    for path in ("/", f"/?user={person.user}", f"/?user={person.user}&query={query}", f"/?query={'w' * 200}"):
        browser.get(f"http://127.0.0.1:{site.port}{path}")
        assert _too_wide(browser) == []
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    browser.get(f"http://127.0.0.1:{site.port}/?user=Bob&query=a")
    assert "'Bob' is not a raw user id" in _messages(browser)


def test_what_assistive_technology_is_told(browser, site, answers):
    browser.get(f"http://127.0.0.1:{site.port}/?user={answers.people[0].user}&query={answers.queries[0]}")
    assert browser.find_element(By.TAG_NAME, "html").get_attribute("lang") == "en"
    for name, role in (("user", "combobox"), ("query", "combobox"), ("k", "combobox")):
        field = browser.find_element(By.ID, name)
        assert field.accessible_name
        assert field.aria_role == role
    levels = [int(one.tag_name[1]) for one in browser.find_elements(By.CSS_SELECTOR, "h1, h2, h3")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    ids = [one.get_attribute("id") for one in browser.find_elements(By.CSS_SELECTOR, "[id]")]
    assert len(ids) == len(set(ids))
    for link in browser.find_elements(By.CSS_SELECTOR, 'a[href*="#"]'):
        assert link.get_attribute("href").split("#")[1] in ids
    browser.find_element(By.TAG_NAME, "body").send_keys("\ue004")
    assert browser.switch_to.active_element.text == "Skip to the results"
