// A page that a run serves, driven as by a person: `RUN=runs/gpt_char npm run test:served`.
// The run is one of a language model with at least two checkpoints; PYTHON=python names the interpreter.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { available, EXECUTABLE, launch } from './chromium.mjs';

const { RUN, PYTHON = 'python' } = process.env;
const ROOT = path.join(path.dirname(fileURLToPath(import.meta.url)), '..', '..');
const SKIP = !available() ? `no Chromium at ${EXECUTABLE}: set CHROMIUM` : !RUN ? 'no run: set RUN' : !existsSync(RUN) ? `no run at ${RUN}` : false;
const PROMPT = 'ROMEO: But soft, what light';

let browser;
before(async () => { if (!SKIP) browser = await launch(); });
after(async () => { await browser?.close(); });

/** A server of the run, its address, and what it says when it ends. */
function serve(...flags) {
  const child = spawn(PYTHON, [path.join(ROOT, 'scripts', 'explain.py'), `--workdir=${RUN}`, `--prompt=${PROMPT}`, '--serve', ...flags]);
  const said = { out: '', err: '' };
  child.stdout.on('data', (part) => { said.out += part; });
  child.stderr.on('data', (part) => { said.err += part; });
  const ended = new Promise((done) => { child.on('exit', (code) => done(code)); });
  const address = new Promise((found, fail) => {
    child.stdout.on('data', () => { if (said.out.includes('\n')) found(said.out.trim()); });
    child.on('exit', () => fail(new Error(said.err)));
  });
  address.catch(() => {});
  return { child, said, ended, address };
}

async function visit(address) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, locale: 'en-US', reducedMotion: 'reduce' });
  const page = await context.newPage();
  const heard = { console: [], requests: [] };
  page.on('console', (message) => heard.console.push(message.text()));
  page.on('pageerror', (error) => heard.console.push(error.stack));
  page.on('request', (request) => heard.requests.push(request.url()));
  await page.goto(address);
  await page.waitForFunction(() => window.explainer && document.querySelector('.switches'));
  const act = async (selector) => {
    await page.click(selector);
    await page.waitForTimeout(50);
    await page.waitForFunction(() => !window.explainer.state().busy, null, { timeout: 120_000 });
    return page.$eval('.state', (element) => element.textContent);
  };
  const loss = (i) => page.evaluate((n) => window.explainer.value(`traces.${n}.loss`), i);
  const tokens = () => page.$$eval('.chip', (list) => list.length);
  return { page, heard, context, act, loss, tokens };
}

test('a run served: prompts, steps, parts off, patches, two browsers, Ctrl-C', { skip: SKIP }, async () => {
  const server = serve();
  const address = await server.address;
  const { page, heard, context, act, loss, tokens } = await visit(address);
  const begin = await tokens();
  const clean = await loss(0);
  assert.equal(await act('text=Append a token'), '');
  assert.equal(await act('text=Append a token'), '');
  assert.equal(await tokens(), begin + 2);
  await page.fill('#prompt', PROMPT);
  await act('.live button[type=submit]');
  assert.equal(await loss(0), clean);
  await page.evaluate(() => window.explainer.set({ layer: 0, head: 0 }));
  await act('text=Switch this head off');
  assert.equal(await loss(0), clean);
  assert.ok((await loss(1)) !== clean, 'a head that is off changes the loss');
  await act('text=Everything on again');
  await act('.switches button:text-is("Feed-forward")');
  assert.ok((await loss(1)) > clean + 0.1, `without its first feed-forward part the model loses: ${clean} to ${await loss(1)}`);
  await act('text=Everything on again');
  await page.click('.patch summary');
  await page.fill('#patch', 'KING RICHARD: The time is come, good night');
  await act('text="Patch"');
  assert.match(await page.evaluate(() => document.querySelector('.page').textContent), /taken from 'KING RICHARD/);
  assert.notEqual(await page.evaluate(() => window.explainer.value('traces.1.output.logits', 0, 0)), undefined);
  await page.fill('#prompt', '');
  assert.match(await act('.live button[type=submit]'), /prompt is empty/);
  // Another person, with another prompt, at the same time.
  const second = await visit(address);
  await second.page.fill('#prompt', 'JULIET: O');
  await page.fill('#prompt', 'HAMLET: To be');
  await Promise.all([act('.live button[type=submit]'), second.act('.live button[type=submit]')]);
  assert.equal(await tokens(), 'HAMLET: To be'.length);
  assert.equal(await second.tokens(), 'JULIET: O'.length);
  for (const { console, requests } of [heard, second.heard]) {
    assert.deepEqual(console, []);
    assert.ok(requests.every((url) => url.startsWith(new URL('/', address).href)));
  }
  await context.close();
  await second.context.close();
  const port = new URL(address).port;
  const other = serve(`--port=${port}`);
  assert.equal(await other.ended, 2);
  assert.match(other.said.err, new RegExp(`--port=${port} cannot be used`));
  server.child.kill('SIGINT');
  assert.equal(await server.ended, 130);
  assert.doesNotMatch(server.said.err, /Traceback/);
});

test('two checkpoints of the run, side by side', { skip: SKIP }, async () => {
  const server = serve('--compare_checkpoint=last');
  const { page, heard, context, act } = await visit(await server.address);
  assert.equal(await page.$$eval('.matrix', (list) => list.length), 2);
  await page.fill('#prompt', 'JULIET: O');
  assert.equal(await act('.live button[type=submit]'), '');
  assert.equal(await page.$$eval('.matrix', (list) => list.length), 2);
  assert.deepEqual(heard.console, []);
  await context.close();
  server.child.kill('SIGINT');
  assert.equal(await server.ended, 130);
});
