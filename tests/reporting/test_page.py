"""The page: what is in it, and that a browser shows it and its controls work."""

import io
import json
import pathlib
import re
import shutil
import urllib.parse

import pytest
from made_runs import TRAIN, config, run, write
from test_findings import EARLY

from tf_pruneinit.reporting import page, report, series
from tf_pruneinit.reporting.collect import Gap
from tf_pruneinit.runtime.console import Console

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))


def data_of(text):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The page of two datasets, one of which has a note and two recipes."""
    workdir, out = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("out")
    longer = type(TRAIN)(epochs=20)
    for seed in range(2):
        write(workdir, config("dense", seed=seed), 0.9 + 0.01 * seed)
        for method in ("random", *EARLY):
            write(workdir, config(method, 0.5, seed), 0.9)
            write(workdir, config(method, 0.9, seed), 0.8)
        write(workdir, config("snip", 0.9, seed, ablation="invert"), 0.1)
        write(workdir, config("snip", 0.9, seed, prune_at="20"), 0.85)
        write(workdir, config("snip", 0.5, seed, dataset="cifar10", model="resnet20"), 0.7, "a JPEG copy")
        write(workdir, config("snip", 0.5, seed, dataset="cifar10", model="resnet20", train=longer), 0.75, "a JPEG copy")
        write(workdir, config("snip", 0.5, seed, dataset="cifar10", model="vgg16"), 0.6, "a JPEG copy")
    (write(workdir, config("snip", 0.95)) / "result.json").unlink()
    rows = out / "references.csv"
    rows.write_text(
        "source,network,dataset,method,variant,sparsity_percent,accuracy_mean,accuracy_std,seeds,recipe\n"
        "A paper,convnet,digits,snip,init,90,70,1,5,its own recipe\n"
    )
    report.write([str(workdir)], str(out), references=str(rows), console=Console(io.StringIO()))
    return out / "report.html"


def test_configurations_have_the_note_of_the_dataset():
    assert "dataset note" in page.configurations([run(0.8, note="a copy")])["names"]


def test_configurations_are_whole():
    runs = [run(0.9, "dense"), run(0.8, "snip", 0.5, ablation="shuffle")]
    found = page.configurations(runs)
    at = {name: found["values"][k][found["rows"][1][k + 2]] for k, name in enumerate(found["names"])}
    assert (at["method"], at["ablation"], at["epochs"]) == ("snip", "shuffle", 10)
    assert found["rows"][0][found["names"].index("ablation") + 2] is None
    assert found["rows"][1][1] == "SNIP, shuffle, 50 %, seed 0: 80.00 %"


def test_one_is_singular_and_several_recipes_are_not_several_networks():
    longer = type(TRAIN)(epochs=20)
    assert page.summary(series.views([run(0.9)])) == "1 complete run of 1 network"
    two = [run(0.9), run(0.9, train=longer)]
    assert page.summary(series.views(two)) == "2 complete runs of 1 network, by 2 recipes"
    assert page.summary(series.views([*two, run(0.9, model="vgg16")])) == "3 complete runs of 2 networks, by 3 recipes"
    assert "0 complete runs of 0 networks; 1 gap." in page.write([], {}, {"": []}, {}, [Gap("failed", "a", "b")], [])


def test_needs_no_network_and_escapes_what_it_shows(made):
    text = page.write([], {}, {"": []}, {}, [Gap("failed", "a-run", "<script>alert(1)</script>")], [])
    assert "<script>alert(1)" not in text
    whole = made.read_text()
    assert not re.search(r'<(?:script|link|img)[^>]*(?:src|href)="(?!data:)', whole)
    assert whole.count("Plotly.newPlot(plotted") == 1
    assert {view["dataset"] for view in data_of(whole)["views"]} == {"digits", "cifar10"}


def test_every_file_that_is_no_module_is_declared_as_package_data():
    package = pathlib.Path(page.__file__).parent.parent
    setup = (package.parent / "pyproject.toml").read_text()
    files = [path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    assert {path.name for path in files} >= {"page.html", "figures.mplstyle"}
    assert [path for path in files if f'"{path.name}"' not in setup] == []


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not CHROMIUM or not DRIVER:
        pytest.skip("needs chromium and chromedriver (Debian: chromium, chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    quiet = "--disable-background-networking --disable-component-update --disable-sync --no-first-run --disable-quic"
    for flag in ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1280,1600", *quiet.split()]:
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.mark.timeout(120)
def test_a_browser_shows_it_and_its_controls_work(browser, made):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select, WebDriverWait

    def text(selector):
        return browser.find_element(By.CSS_SELECTOR, selector).text

    def every(selector):
        return browser.find_elements(By.CSS_SELECTOR, selector)

    def choices(name):
        return [option.text for option in Select(browser.find_element(By.ID, name)).options]

    browser.get(made.as_uri())
    assert choices("dataset") == ["cifar10", "digits"]
    assert choices("model") == ["resnet20", "vgg16"]
    assert len(choices("recipe")) == 2
    assert text("#note") == "a JPEG copy"

    Select(browser.find_element(By.ID, "dataset")).select_by_visible_text("digits")
    assert choices("model") == ["convnet"]
    assert not browser.find_element(By.ID, "note").is_displayed()
    assert len(every(".plot")) == 7
    assert len([one for one in every("section.view") if one.is_displayed()]) == 1
    images = "return [...document.querySelectorAll('section:not([hidden]) img')].map((one) => one.naturalWidth)"
    assert sorted({*browser.execute_script(images)}) == [1650, 2100]
    hrefs = "return [...document.querySelectorAll('section:not([hidden]) a')].map((one) => one.href)"
    links = {urllib.parse.unquote(urllib.parse.urlparse(one).path) for one in browser.execute_script(hrefs)}
    assert {pathlib.Path(one).suffix for one in links} == {".pdf", ".png", ".csv", ".md", ".tex"}
    assert [one for one in links if not pathlib.Path(one).is_file()] == []

    # A click on a name of the legend hides the curve, after Plotly has waited for a second click.
    first = every(".plot")[0]
    names = first.find_elements(By.CSS_SELECTOR, ".legendtext")
    snip = [one.text for one in names].index("SNIP")
    toggle = first.find_elements(By.CSS_SELECTOR, ".legendtoggle")[snip]
    ActionChains(browser).scroll_to_element(toggle).move_to_element(toggle).click().perform()
    state = "return arguments[0].data.find((trace) => trace.name === 'SNIP').visible"
    WebDriverWait(browser, 5).until(lambda _: browser.execute_script(state, first) == "legendonly")

    # The pointer on a point says its numbers.
    browser.execute_script("Plotly.Fx.hover(arguments[0], [{curveNumber: 0, pointNumber: 0}])", first)
    assert "50 %: 90.00 %" in first.find_element(By.CSS_SELECTOR, ".hoverlayer").text

    search = browser.find_element(By.ID, "search")
    search.send_keys("method=snip sparsity=0.9 ablation=invert seed=1")
    assert text("#count") == "1 run"
    assert "invert" in text("#runs summary") and "seed 1: 10.00 %" in text("#runs summary")
    every("#runs summary")[0].click()
    WebDriverWait(browser, 5).until(lambda _: "invert" in text("#runs table"))
    assert "unfinished" in text("#gaps")

    # A name and its value are compared whole: 0.9 is not 0.95, and snip no part of another name.
    for wanted, count in (("sparsity=0.9 method=sni", "0 runs"), ("seed=1 sparsity=0.9 ablation=invert", "1 run")):
        search.clear()
        search.send_keys(wanted)
        assert text("#count") == count

    browser.set_window_size(420, 900)
    browser.refresh()
    wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.execute_script(wide) <= 0
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
