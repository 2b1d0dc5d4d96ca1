// dashboard.mjs MEMOBUILD CHROMIUM WORK SHOTS: what scripts/tests/dashboard runs. A server with tokens, real builds, and a
// browser that looks at them. Steps of the builds wait at gates (ports that this process listens on), so that nothing
// depends on how fast the machine is.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const [memobuild, executablePath, work, shots] = process.argv.slice(2);
const PATIENCE = 60_000;
const EVIL = "<img src=x onerror=window.pwned=1>";
const running = new Set();

function start(args, env = {}) {
  const child = spawn(memobuild, args, { env: { ...process.env, ...env }, cwd: work });
  running.add(child);
  child.text = "";
  child.stdout.on("data", (data) => { child.text += data; });
  child.stderr.on("data", (data) => { child.text += data; });
  child.done = new Promise((resolve) => child.on("close", (code) => {
    running.delete(child);
    resolve(code);
  }));
  return child;
}

async function run(...args) {
  const child = start(args);
  assert.equal(await child.done, 0, child.text);
  return child.text.trim();
}

/** A port where steps wait until it is opened. */
async function gate() {
  const waiting = [];
  let open = false;
  // The other side has nothing to say, and says so at once.
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on("error", () => {});
    socket.resume();
    if (open) socket.end();
    else waiting.push(socket);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: server.address().port,
    open() {
      open = true;
      for (const socket of waiting) socket.end();
    },
    close: () => server.close(),
  };
}

async function serve(listen) {
  const child = start(["server", "--listen", listen, "--data-dir", "data", "--tokens", "tokens", "--max-size", "2g"]);
  const lines = createInterface({ input: child.stderr });
  const line = await new Promise((resolve, reject) => {
    lines.once("line", resolve);
    child.once("close", () => reject(new Error(child.text)));
  });
  return { child, url: /listening on (http:\/\/\S+)/.exec(line)[1] };
}

async function stop(child) {
  child.kill("SIGTERM");
  await child.done;
}

function ok(what) {
  console.log(`ok   ${what}`);
}

mkdirSync(shots, { recursive: true });
mkdirSync(`${work}/context`);
const [reads, writes] = [await run("server", "token", "add", "me", "--tokens", "tokens", "--scope", "read"),
  await run("server", "token", "add", "ci", "--tokens", "tokens", "--scope", "write")];
let server = await serve("127.0.0.1:0");
const { url } = server;

function build(dockerfile, name, token = writes) {
  writeFileSync(`${work}/context/Dockerfile`, dockerfile);
  // Layers are made for an output that has them.
  const args = ["build", "--progress=plain", "-t", name, "-o", "type=oci,dest=app.tar",
    "--build-context", `busybox=oci-layout://${work}/base`, "context"];
  return start(args, { MEMOBUILD_REMOTE_URL: url, MEMOBUILD_TOKEN: token });
}

const context = await chromium.launchPersistentContext(`${work}/profile`, {
  executablePath, headless: true, viewport: { width: 1280, height: 800 }, colorScheme: "light", deviceScaleFactor: 1,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
});
const page = context.pages()[0] ?? (await context.newPage());
page.setDefaultTimeout(PATIENCE);
const complaints = [];
const requests = [];
let expected = /401/;
page.on("console", (message) => {
  if (["error", "warning"].includes(message.type()) && !expected?.test(message.text())) complaints.push(message.text());
});
page.on("pageerror", (error) => complaints.push(String(error)));
context.on("request", (request) => requests.push(request.url()));
page.on("websocket", (socket) => requests.push(socket.url()));

const shot = (name) => page.screenshot({ path: `${shots}/${name}.png` });
const status = (text) => page.locator("#status-text", { hasText: text }).waitFor();
const step = (label) => page.locator(".steps > li").filter({ has: page.locator(".label", { hasText: label }) });
const state = (label, word) => step(label).locator(".badge", { hasText: word }).waitFor();

/** Texts whose colours are too much like what is behind them (WCAG 2.2, 1.4.3). */
const faint = () => page.evaluate(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const light = ([r, g, b]) => {
    const part = (v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const found = rgba(getComputedStyle(at).backgroundColor);
      if (found[3] === 255) return found;
    }
    return [255, 255, 255, 255];
  };
  const out = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.checkVisibility() || node.closest("svg, .hidden, .skip, dialog")) continue;
    const [a, b] = [light(rgba(getComputedStyle(node).color)), light(behind(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) out.push(`${ratio.toFixed(2)} ${node.className} ${node.textContent.slice(0, 40)}`);
  }
  return out;
});

async function sideways() {
  const { wide, seen } = await page.evaluate(() => ({ wide: document.documentElement.scrollWidth, seen: innerWidth }));
  assert.ok(wide <= seen, `the page is ${wide} px wide in ${seen}`);
}

async function looks(name) {
  for (const [size, viewport] of [["desktop", { width: 1280, height: 800 }], ["phone", { width: 390, height: 844 }]]) {
    for (const colorScheme of ["light", "dark"]) {
      await page.setViewportSize(viewport);
      await page.emulateMedia({ colorScheme });
      // Colours fade from one theme to the other nowhere: what is seen now is what stays.
      await sideways();
      assert.deepEqual(await faint(), [], `${name} ${size} ${colorScheme}`);
      await shot(`${name}-${size}-${colorScheme}`);
    }
  }
  await page.setViewportSize({ width: 1280, height: 800 });
  await page.emulateMedia({ colorScheme: "light" });
}

async function main() {
  await page.goto(url);
  const dialog = page.getByRole("dialog", { name: "A token is needed" });
  await dialog.waitFor();
  await shot("login");
  await page.getByRole("textbox", { name: "Token" }).fill("mb_wrong");
  await page.getByRole("button", { name: "Continue" }).click();
  await dialog.getByRole("alert").getByText("does not know").waitFor();
  await page.getByRole("textbox", { name: "Token" }).fill(reads);
  await page.keyboard.press("Enter");
  await dialog.waitFor({ state: "hidden" });
  await page.getByText("No build has been reported yet").waitFor();
  await status("Live");
  expected = null;
  ok("a token is asked for, and one that is wrong is asked for again");

  const first = await gate();
  const dockerfile = (port, end) => [
    "FROM busybox AS tools",
    `RUN echo 'building tools ${EVIL}' && busybox nc 127.0.0.1 ${port} </dev/null && echo tools > /tools`,
    "RUN echo checked > /checked",
    "FROM busybox",
    `RUN : ${JSON.stringify(EVIL)} && echo lib > /lib.txt`,
    "COPY --from=tools /tools /tools",
    `RUN cat /tools > /result && ${end}`,
    "",
  ].join("\n");
  let job = build(dockerfile(first.port, "echo whole"), "example.org/app:1");
  const card = page.locator(".live .card");
  await card.waitFor();
  await card.click();
  await state("building tools", "Running");
  await state("cat /tools", "Waiting");
  await page.locator(".node.tone-running").first().waitFor();
  await page.locator(".node.tone-pending").first().waitFor();
  await step("building tools").locator("pre", { hasText: `building tools ${EVIL}` }).waitFor();
  const elapsed = () => page.locator(".facts div").first().innerText();
  const before = await elapsed();
  assert.match(before, /^Running for/);
  await page.waitForFunction((was) => document.querySelector(".facts div").innerText !== was, before);
  await looks("running");
  ok("a build is seen while it runs: its graph, the output of its steps, the time that passes");

  first.open();
  await page.locator(".head .badge", { hasText: "Succeeded" }).waitFor();
  await state("building tools", "Ran");
  await state("cat /tools", "Ran");
  assert.equal(await job.done, 0, job.text);
  assert.ok(!job.text.includes("warning"), job.text);
  await page.getByText("Layers of the image").waitFor();
  ok("it is seen to end");

  // The same with a step that fails.
  job = build(dockerfile(first.port, "echo 'no rule to make target' >&2 && exit 7"), "example.org/app:2");
  assert.equal(await job.done, 1, job.text);
  await page.getByRole("link", { name: "All builds" }).click();
  const failed = page.locator(".rows .row", { hasText: "app:2" });
  await failed.locator(".badge", { hasText: "Failed" }).waitFor();
  await failed.click();
  await state("no rule", "Failed");
  await step("no rule").locator("pre", { hasText: "no rule to make target" }).waitFor();
  await state("building tools", "Cached");
  await page.getByRole("heading", { name: "The build failed" }).waitFor();
  const why = await step("no rule").locator(".why").innerText();
  assert.match(why, /Why it ran/);
  assert.match(why, /exit code: 7/);
  await looks("failed");
  ok("a step that fails shows its output and why it ran");

  // From the graph to the step, by keyboard.
  await page.locator(".node.tone-cached").first().focus();
  await page.keyboard.press("Enter");
  await page.locator(".step.target[open]").waitFor();
  assert.ok(await page.evaluate(() => document.activeElement.closest(".step.target") !== null));
  ok("a node of the graph leads to its step");

  // Some more for the history, one of them under way.
  for (const n of [3, 4, 5]) {
    const more = build(dockerfile(first.port, `echo ${n}`), `example.org/app:${n}`);
    assert.equal(await more.done, 0, more.text);
  }
  const last = await gate();
  job = build(dockerfile(last.port, "echo last"), "example.org/app:6");
  await page.getByRole("link", { name: "All builds" }).click();
  await page.locator(".live .card", { hasText: "app:6" }).waitFor();
  await page.locator(".tile", { hasText: "Hit rate" }).getByText("%").waitFor();
  // What waited at the gate was taken from the cache since.
  await page.locator(".tile", { hasText: "Time saved" }).locator(".value", { hasText: /\d/ }).waitFor();
  await page.locator(".layers li").first().waitFor();
  await looks("overview");
  const period = page.getByRole("group", { name: "Period" });
  await period.getByRole("button", { name: "7 days", exact: true }).click();
  await page.getByRole("img", { name: /over 7 days/ }).waitFor();
  ok("the overview has what runs, the history, sums, storage and layers");

  await page.keyboard.press("Home");
  await page.evaluate(() => document.activeElement.blur());
  const theme = page.getByRole("button", { name: /^Theme/ });
  const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const seen = new Set();
  for (const name of ["light", "dark", "auto"]) {
    await theme.click();
    assert.equal(await theme.innerText(), `Theme: ${name}`);
    seen.add(await background());
  }
  assert.equal(seen.size, 2);
  const unnamed = await page.evaluate(() => [...document.querySelectorAll("a, button, input")]
    .filter((node) => !(node.innerText || node.getAttribute("aria-label") || node.labels?.length)).map((node) => node.outerHTML));
  assert.deepEqual(unnamed, []);
  for (const landmark of ["banner", "main"]) assert.equal(await page.getByRole(landmark).count(), 1, landmark);
  ok("the theme can be switched, and what can be pressed has a name");

  // Markup in labels, outputs and names is text.
  assert.equal(await page.evaluate(() => window.pwned), undefined);
  const images = await page.evaluate(() => [...document.images].map((image) => image.getAttribute("src")));
  assert.deepEqual(images, ["/assets/icon.svg"]);
  ok("markup in what builds say stays text");

  expected = /WebSocket|ERR_CONNECTION_REFUSED|Failed to load resource/;
  await stop(server.child);
  await status("No answer");
  server = await serve(url.slice("http://".length));
  await status("Live");
  last.open();
  assert.equal(await job.done, 0, job.text);
  await page.locator(".live .card").waitFor({ state: "detached" });
  await page.locator(".rows .row", { hasText: "app:6" }).locator(".badge", { hasText: /Succeeded|Running/ }).waitFor();
  ok("a server that goes and comes back is followed");

  const own = [`${url}/`, `${url.replace("http", "ws")}/`];
  const outside = requests.filter((address) => !own.some((start) => address.startsWith(start)));
  assert.deepEqual(outside, []);
  assert.deepEqual(requests.filter((address) => address.includes("mb_")), []);
  assert.deepEqual(complaints, []);
  ok(`no complaint in the console, and none of ${requests.length} requests left the host`);
  first.close();
  last.close();
}

let code = 0;
try {
  await main();
} catch (error) {
  console.error(error);
  console.error("console:", complaints);
  await shot("at-the-failure").catch(() => {});
  code = 1;
}
await context.close().catch(() => {});
for (const child of running) child.kill("SIGKILL");
process.exit(code);
