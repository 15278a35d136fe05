"""A real browser without a window, for tests: Chromium, driven over its DevTools protocol."""

import asyncio
import base64
import itertools
import json
import shutil
import subprocess
import time
from pathlib import Path

import aiohttp
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
needed = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine (Debian: chromium)")
START = 60.0  # seconds that it has to start
WAIT = 60.0  # seconds that a page has for anything, on a busy machine
OPTIONS = [
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-extensions"),
    *("--hide-scrollbars", "--force-color-profile=srgb", "--lang=en-US"),
]


# Texts of one picture whose boxes overlap, in pairs.
OVERLAPPING = """
[...document.querySelectorAll('svg')].flatMap(svg => {
  const texts = [...svg.querySelectorAll('text')]
    .map(text => ({words: text.textContent, box: text.getBoundingClientRect()}));
  const meet = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2;
  return texts.flatMap((one, at) =>
    texts.slice(at + 1).filter(other => meet(one.box, other.box)).map(other => one.words + ' | ' + other.words));
})
"""
# Whatever reaches beyond the sides of the page and does not scroll in a box of its own.
CUT_OFF = """
[...document.querySelectorAll('main *')].filter(one => !one.closest('.wide > *')).filter(one => {
  const box = one.getBoundingClientRect();
  return box.width && (box.left < -1 || box.right > document.documentElement.clientWidth + 1);
}).map(one => one.tagName + ': ' + one.textContent.slice(0, 60))
"""


class Browser:
    """Chromium with a fresh profile; its pages are closed with it."""

    def __init__(self, profile):
        self.profile = Path(profile)

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        self.process = subprocess.Popen(
            [CHROMIUM, *OPTIONS, f"--user-data-dir={self.profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        address = self._address()
        self.session = self.loop.run_until_complete(self._connect(address))
        self.numbers, self.pages = itertools.count(1), {}
        return self

    def _address(self):
        """Where it listens, as it writes into its profile."""
        told, until = self.profile / "DevToolsActivePort", time.monotonic() + START
        while time.monotonic() < until:
            if told.exists() and len(lines := told.read_text().split()) == 2:
                return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
            assert self.process.poll() is None, "Chromium ended"
            time.sleep(0.1)
        raise TimeoutError("Chromium does not start")

    async def _connect(self, address):
        self.http = aiohttp.ClientSession()
        return await self.http.ws_connect(address, max_msg_size=0)

    def __exit__(self, *_):
        self.loop.run_until_complete(self.session.close())
        self.loop.run_until_complete(self.http.close())
        self.loop.close()
        self.process.kill()
        self.process.wait()

    def call(self, method, session=None, **params):
        """The result of a command of the protocol; what happens meanwhile is told to its page."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params, **({"sessionId": session} if session else {})}
        self.loop.run_until_complete(self.session.send_str(json.dumps(message)))
        while True:
            heard = self.loop.run_until_complete(self.session.receive_json(timeout=WAIT))
            if heard.get("id") == number:
                assert "error" not in heard, (method, heard["error"])
                return heard["result"]
            if heard.get("sessionId") in self.pages:
                self.pages[heard["sessionId"]].hear(heard["method"], heard["params"])

    def open(self, url="about:blank", width=1280, height=900, dark=False, media=""):
        """A page in a new tab, once it has loaded; `media` may be "print"."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self.pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.call(f"{domain}.enable")
        page.resize(width, height, dark, media)
        page.go(url)
        return page


class Page:
    """A tab: what it asked for, what it said, what it shows."""

    def __init__(self, browser, session):
        self.browser, self.session = browser, session
        self.requests = []  # addresses
        self.said = []  # lines of the console, errors that nobody caught, and what the browser complains of
        self.failed = []  # status and address of answers that are errors

    def call(self, method, **params):
        return self.browser.call(method, self.session, **params)

    def hear(self, method, about):
        if method == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif method == "Network.responseReceived" and about["response"]["status"] >= 400:
            self.failed.append((about["response"]["status"], about["response"]["url"]))
        elif method == "Runtime.consoleAPICalled":
            words = [str(one.get("value", one.get("description", ""))) for one in about["args"]]
            self.said.append(f"{about['type']}: {' '.join(words)}")
        elif method == "Runtime.exceptionThrown":
            details = about["exceptionDetails"]
            self.said.append(f"exception: {details.get('exception', {}).get('description', details['text'])}")
        elif method == "Log.entryAdded":
            self.said.append(f"{about['entry']['level']}: {about['entry']['text']}")

    def resize(self, width, height=900, dark=False, media=""):
        mobile = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def go(self, url):
        """Load another address."""
        self.call("Page.navigate", url=url)
        self.wait_for("document.readyState == 'complete'")

    def evaluate(self, script):
        """What an expression gives, as a plain value."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait_for(self, script, seconds=WAIT):
        """What an expression gives once that is true."""
        until = time.monotonic() + seconds
        while not (found := self.evaluate(script)):
            assert time.monotonic() < until, f"never came: {script}\n{self.text()[:2000]}\n{self.said}"
            time.sleep(0.1)
        return found

    def text(self):
        """All that can be read."""
        return self.evaluate("document.body ? document.body.innerText : ''")

    def overlapping(self):
        """Pairs of texts that lie on each other in a picture."""
        return self.evaluate(OVERLAPPING)

    def cut_off(self):
        """What reaches beyond the sides of the page."""
        return self.evaluate(CUT_OFF)

    def screenshot(self, path, whole=True):
        """A picture of it, of the whole page or of what a screen shows; its path."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        clip = {"clip": self._all()} if whole else {}
        taken = self.call("Page.captureScreenshot", captureBeyondViewport=whole, **clip)
        path.write_bytes(base64.b64decode(taken["data"]))
        return path

    def _all(self):
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
