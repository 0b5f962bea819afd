// The page in a headless Chromium: what it shows, that it is alone, that it works by hand.
// TRACES=a.json,b.json adds traces that lie beside the samples; PICTURES=FOLDER keeps screenshots.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { PAGE_FOLDER, SAMPLES } from '../samples.mjs';
import { page as pageOf } from '../trace_writer.mjs';
import { available, EXECUTABLE, launch } from './chromium.mjs';
import { arraysBelow, unflatten, valueAt } from './decode.mjs';

const SKIP = available() ? false : `no Chromium at ${EXECUTABLE}: set CHROMIUM`;
const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const SLOW = Number(process.env.SLOW ?? 1);
const hash = (text) => 'sha256-' + createHash('sha256').update(text).digest('base64');
const file = (name) => readFileSync(path.join(PAGE_FOLDER, name), 'utf8');

const traces = new Map(Object.entries(SAMPLES).map(([name, make]) => [name, make]));
for (const given of (process.env.TRACES ?? '').split(',').filter(Boolean)) {
  const { header, arrays } = JSON.parse(readFileSync(given, 'utf8'));
  traces.set(`${path.basename(given, '.json')}_given`, () => ({ header, blob: arrays }));
}

let browser, folder;
before(async () => {
  if (SKIP) return;
  folder = mkdtempSync(path.join(tmpdir(), 'explainer-pages-'));
  browser = await launch();
});
after(async () => {
  await browser?.close();
  if (folder) rmSync(folder, { recursive: true, force: true });
});

const made = new Map();
function sample(name) {
  if (!made.has(name)) {
    const { header, blob } = traces.get(name)();
    const address = path.join(folder, `${name}.html`);
    writeFileSync(address, pageOf(header, blob, file('explainer.js'), file('explainer.css'), hash));
    made.set(name, { header, blob, buffer: Buffer.from(blob, 'base64'), address });
  }
  return made.get(name);
}

/** Opens a page and notes whatever it says or asks for. */
async function open(address, options = {}) {
  const context = await browser.newContext({ viewport: { width: options.width ?? 1280, height: 900 }, colorScheme: options.theme ?? 'light', locale: 'en-US', reducedMotion: options.motion ? 'no-preference' : 'reduce' });
  const page = await context.newPage();
  const heard = { requests: [], console: [], dialogs: 0 };
  page.on('request', (request) => heard.requests.push(request.url()));
  page.on('console', (message) => heard.console.push(message.text()));
  page.on('pageerror', (error) => heard.console.push(error.stack));
  page.on('dialog', (dialog) => { heard.dialogs++; void dialog.dismiss(); });
  await page.goto(address.startsWith('http') ? address : pathToFileURL(address).href);
  await page.waitForFunction(() => window.explainer && document.querySelector('.chapter'));
  return { page, heard, context };
}

/** All numbers in the page that are not what `window.explainer.value` says. */
const wrongNumbers = () => [...document.querySelectorAll('[data-path]')].flatMap((element) => {
  const { path: where, at, format } = element.dataset;
  const text = window.explainer.text(format, window.explainer.value(where, ...(at ? at.split(',').map(Number) : [])));
  return text === element.textContent ? [] : [`${where} ${at}: ${element.textContent} is not ${text}`];
});

for (const name of traces.keys()) {
  test(`${name}: alone, quiet, true, within its width`, { skip: SKIP }, async () => {
    const { header, buffer, address } = sample(name);
    for (const width of [1280, 390]) {
      const { page, heard, context } = await open(address, { width });
      assert.deepEqual(await page.evaluate(wrongNumbers), []);
      assert.ok((await page.evaluate(() => document.querySelectorAll('[data-path]').length)) > 8);
      const first = await page.evaluate(() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0);
      if (width === 1280) console.log(`${name}: first picture after ${first.toFixed(0)} ms`);
      assert.ok(first < 1000 * SLOW, `the first picture took ${first} ms`);
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.ok(overflow <= 0, `the page is ${overflow} points wider than the screen of ${width}`);
      if (width === 1280) await values(page, header, buffer);
      for (const change of [{ layer: 0, head: 1, step: 0 }, { layer: 99, token: 1, source: 0, step: 1 }, { part: 'cross_attention', head: 0, step: 3 }, { stack: 0, layer: 0 }]) {
        await page.evaluate((next) => window.explainer.set(next), change);
        assert.deepEqual(await page.evaluate(wrongNumbers), []);
      }
      if (process.env.PICTURES) {
        mkdirSync(process.env.PICTURES, { recursive: true });
        await page.reload();
        await page.screenshot({ path: path.join(process.env.PICTURES, `${name}-${width}.png`), fullPage: true });
      }
      assert.deepEqual(heard.console, []);
      assert.deepEqual(heard.requests.filter((url) => !url.startsWith('file:') && !url.startsWith('data:image/png')), []);
      assert.equal(heard.requests.filter((url) => url.startsWith('file:')).every((url) => url.endsWith(`${name}.html`)), true);
      assert.equal(heard.dialogs, 0);
      await context.close();
    }
  });
}

/** Values of every array against a second decoder, and rows of weights against one. */
async function values(page, header, buffer) {
  const wanted = [];
  header.traces.forEach((trace, i) => {
    for (const [where, id] of arraysBelow(trace, `traces.${i}`)) {
      const { shape } = header.arrays[id];
      const count = shape.reduce((a, b) => a * b, 1);
      for (const index of new Set([0, Math.floor(count / 3), Math.floor(count / 2), count - 1])) if (count) wanted.push([where, unflatten(index, shape), valueAt(header, buffer, id, index)]);
    }
  });
  assert.ok(wanted.length > 20);
  const found = await page.evaluate((list) => list.map(([where, indices]) => String(window.explainer.value(where, ...indices))), wanted);
  wanted.forEach(([where, indices, value], i) => assert.ok(Object.is(Number(found[i]), value) || Math.abs(Number(found[i]) - value) <= 1e-6 * Math.abs(value), `${where} ${indices}: ${found[i]} is not ${value}`));
  header.traces.forEach((trace) => trace.stacks.forEach((stack) => stack.layers.forEach((layer) => {
    for (const attention of [layer.attention, layer.cross_attention]) {
      if (!attention) continue;
      const [N, T, S] = header.arrays[attention.weights].shape;
      const { scale } = header.arrays[attention.weights];
      for (let row = 0; row < N * T; row++) {
        let sum = 0;
        for (let s = 0; s < S; s++) sum += valueAt(header, buffer, attention.weights, row * S + s);
        assert.ok(Math.abs(sum - 1) <= (S * scale) / 2 + 1e-6, `a row of weights sums to ${sum}`);
      }
    }
  })));
}

test('budgets: the bundle, and a page of 12 x 12 with 64 tokens', { skip: SKIP }, () => {
  const bundle = ['explainer.js', 'explainer.css'].reduce((sum, name) => sum + statSync(path.join(PAGE_FOLDER, name)).size, 0);
  assert.ok(bundle < 200_000, `the bundle has ${bundle} bytes`);
  const page = statSync(sample('wide').address).size;
  assert.ok(page < 3_000_000, `the page has ${page} bytes`);
});

test('markup, right-to-left text and emoji in tokens, labels and names stay text', { skip: SKIP }, async () => {
  const { header, address } = sample('hostile');
  const { page, heard, context } = await open(address);
  const texts = await page.$$eval('.chip bdi', (list) => list.map((element) => [element.textContent, element.childElementCount]));
  assert.equal(texts[0][0], '<b>bold</b>');
  assert.equal(texts[1][0], '<script>alert(3)</script>');
  assert.ok(texts.every(([, children]) => children === 0));
  assert.ok(!texts.some(([text]) => /[\u202a-\u202e]/.test(text)));
  assert.equal(await page.$eval('h1', (element) => element.textContent), header.title.replace('\u202e', '\ufffd'));
  assert.ok(!/[\u202a-\u202e\u2066-\u2069]/.test(await page.evaluate(() => document.querySelector('.page').textContent)));
  assert.equal(await page.evaluate(() => document.querySelectorAll('.page img, .page script, .page u, .page iframe, svg [onload]').length), 0);
  assert.equal(heard.dialogs, 0);
  assert.deepEqual(heard.console, []);
  await context.close();
});

test('a damaged page and a newer format say so in one sentence', { skip: SKIP }, async () => {
  const { header, blob } = traces.get('tiny')();
  for (const [name, changed, arrays, words] of [['cut', header, blob.slice(0, 40), 'damaged'], ['newer', { ...header, format: 2 }, blob, 'format 2'], ['base', header, '%%%', 'damaged']]) {
    const address = path.join(folder, `${name}.html`);
    writeFileSync(address, pageOf(changed, arrays, file('explainer.js'), file('explainer.css'), hash));
    const context = await browser.newContext();
    const page = await context.newPage();
    await page.goto(pathToFileURL(address).href);
    await page.waitForSelector('[role=alert]');
    assert.match(await page.$eval('[role=alert]', (element) => element.textContent), new RegExp(words));
    await context.close();
  }
});

for (const name of ['llama', 'mixtral', 'vaswani', 't5', 'vit', 'tagger', 'span', 'pair']) {
  test(`${name}: no serious finding of axe, light and dark, both languages`, { skip: SKIP }, async () => {
    for (const [theme, chinese, width] of [['light', false, 1280], ['dark', true, 390]]) {
      const { page, context } = await open(sample(name).address, { theme, width });
      if (chinese) await page.click('#language');
      await page.waitForTimeout(100);
      assert.equal(await page.evaluate(() => document.documentElement.lang), chinese ? 'zh' : 'en');
      await page.evaluate(AXE);
      const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
      const serious = found.violations.filter(({ impact }) => ['serious', 'critical'].includes(impact));
      assert.deepEqual(serious.map(({ id, nodes }) => [id, nodes.slice(0, 3).map((node) => `${node.html.slice(0, 140)} ${node.failureSummary}`)]), []);
      await context.close();
    }
  });
}

test('keyboard: arrows choose layer, head, token and cell, and the focus is seen', { skip: SKIP }, async () => {
  const { page, context } = await open(sample('llama').address);
  const state = () => page.evaluate(() => { const { layer, head, token, source } = window.explainer.state(); return { layer, head, token, source }; });
  await page.evaluate(() => window.explainer.set({ source: 5 }));
  const start = await state();
  const press = async (selector, key) => { await page.focus(selector); await page.keyboard.press(key); await page.waitForTimeout(40); return state(); };
  assert.equal((await press('.rail', 'ArrowRight')).layer, start.layer + 1);
  assert.equal((await press('.rail', 'ArrowDown')).head, start.head + 1);
  assert.equal((await press('.rail', 'ArrowLeft')).layer, start.layer);
  assert.equal((await press('.flow:not(.rail)', 'ArrowUp')).token, start.token - 1);
  assert.equal((await press('.matrix', 'ArrowLeft')).source, start.source - 1);
  assert.equal((await press('.matrix', 'ArrowDown')).token, start.token);
  await page.evaluate(() => document.activeElement.blur());
  await page.keyboard.press('ArrowRight');
  await page.waitForTimeout(40);
  assert.equal((await state()).layer, start.layer + 1);
  await page.focus('.chip[tabindex="0"]');
  await page.keyboard.press('ArrowLeft');
  await page.waitForTimeout(40);
  assert.equal((await state()).token, start.token - 1);
  await page.focus('.rail');
  await page.keyboard.press('ArrowRight');
  const outline = await page.$eval('.rail', (element) => getComputedStyle(element).outlineStyle + getComputedStyle(element).outlineWidth);
  assert.equal(outline, 'solid3px');
  await context.close();
});

test('everything can be reached with the tab key, and the first stop is the skip link', { skip: SKIP }, async () => {
  const { page, context } = await open(sample('tiny').address);
  const seen = [];
  for (let i = 0; i < 40; i++) {
    await page.keyboard.press('Tab');
    seen.push(await page.evaluate(() => document.activeElement.className || document.activeElement.id || document.activeElement.tagName));
  }
  assert.equal(seen[0], 'skip');
  for (const name of ['language', 'theme', 'chip', 'flow', 'rail', 'matrix', 'step']) assert.ok(seen.some((entry) => entry.includes(name)), `${name} is not among ${seen}`);
  await context.close();
});

test('sliders recompute the probabilities that the file gives', { skip: SKIP }, async () => {
  const { header, buffer, address } = sample('llama');
  const { page, context } = await open(address);
  const { output, stacks } = header.traces[0];
  const token = stacks[0].tokens.length - 1;
  const k = header.arrays[output.logits].shape[1];
  const logits = Array.from({ length: k }, (_, i) => valueAt(header, buffer, output.logits, token * k + i));
  for (const temperature of [0.5, 1, 1.6]) {
    await page.$eval('.slider input', (input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }, String(temperature));
    await page.waitForTimeout(50);
    const at = output.rest_at.temperatures.findIndex((t) => Math.abs(t - temperature) < 1e-9);
    const rest = Math.exp(valueAt(header, buffer, output.rest_at.log_sums, token * 20 + at));
    const total = logits.reduce((sum, v) => sum + Math.exp(v / temperature), rest);
    const found = await page.evaluate(() => [0, 1, 5].map((i) => window.explainer.value('derived.output.probability', i)));
    [0, 1, 5].forEach((i, n) => assert.ok(Math.abs(found[n] - Math.exp(logits[i] / temperature) / total) < 1e-6, `${found[n]} at ${temperature}`));
    assert.deepEqual(await page.evaluate(wrongNumbers), []);
  }
  await page.evaluate(() => window.explainer.set({ topK: 3, topP: 0.5, temperature: 0.7 }));
  assert.deepEqual(await page.evaluate(wrongNumbers), []);
  await page.click('text=Draw one');
  assert.ok(await page.$eval('.drawn', (element) => element.textContent.length > 5));
  await context.close();
});

test('hovering stays within a frame', { skip: SKIP }, async () => {
  const { page, context } = await open(sample('wide').address, { motion: true });
  for (const selector of ['.flow:not(.rail)', '.matrix']) {
    await page.$eval(selector, (element) => element.scrollIntoView({ block: 'center' }));
    const box = await (await page.$(selector)).boundingBox();
    await page.waitForTimeout(1200);
    await page.evaluate(() => {
      window.work = [];
      const original = window.requestAnimationFrame;
      window.requestAnimationFrame = (run) => original((now) => { const start = performance.now(); run(now); window.work.push(performance.now() - start); });
    });
    for (let i = 0; i < 120; i++) await page.mouse.move(box.x + box.width * (0.15 + 0.7 * (i / 120)), box.y + box.height * (0.2 + 0.6 * Math.abs(Math.sin(i / 9))));
    const work = (await page.evaluate(() => window.work)).sort((a, b) => a - b);
    const middle = work[Math.floor(work.length / 2)], late = work[Math.floor(work.length * 0.95)];
    console.log(`${selector}: ${work.length} frames, script ${middle.toFixed(1)} ms (median), ${late.toFixed(1)} ms (95 %)`);
    assert.ok(work.length > 20);
    assert.ok(late < 16.7 * SLOW, `a frame of ${selector} takes ${late} ms of script`);
  }
  await context.close();
});

test('the four steps: each button changes the picture, and they play', { skip: SKIP }, async () => {
  const { page, context } = await open(sample('llama').address, { motion: true });
  const picture = () => page.$eval('.matrix canvas', (canvas) => canvas.toDataURL().length);
  const sizes = [];
  for (let step = 0; step < 4; step++) {
    await page.click(`.step:nth-child(${step + 1})`);
    await page.waitForTimeout(900);
    sizes.push(await picture());
    assert.equal(await page.evaluate(() => window.explainer.state().step), step);
  }
  assert.equal(new Set(sizes).size, 4);
  await page.click('.play');
  await page.waitForTimeout(300);
  assert.equal(await page.evaluate(() => window.explainer.state().step), 0);
  await page.waitForFunction(() => window.explainer.state().step === 3, null, { timeout: 8000 });
  await context.close();
});

/** A server of a page: what it was asked, and what `answer` makes of each request. */
async function serve(header, blob, answer) {
  const asked = [];
  const html = pageOf({ ...header, live: true }, blob, file('explainer.js'), file('explainer.css'), hash).replace("img-src data:", "img-src data:; connect-src 'self'");
  const server = createServer((request, response) => {
    if (request.method !== 'POST') return response.writeHead(request.url.startsWith('/?') ? 200 : 404, { 'Content-Type': 'text/html; charset=utf-8' }).end(html);
    let body = '';
    request.on('data', (part) => { body += part; });
    request.on('end', async () => {
      asked.push({ url: request.url, ...JSON.parse(body) });
      const text = JSON.stringify(await answer(asked.at(-1)));
      response.writeHead(200, { 'Content-Type': 'application/json' }).end(text);
    });
    return undefined;
  });
  await new Promise((done) => { server.listen(0, '127.0.0.1', done); });
  return { server, asked, address: `http://127.0.0.1:${server.address().port}/?token=abc` };
}

test('served: prompts, a token more, heads off, patches, and errors in one sentence', { skip: SKIP }, async () => {
  const { header, blob } = traces.get('alibi')();
  let fail = false;
  const { server, asked, address } = await serve(header, blob, ({ ablate, patch }) => {
    if (fail) return { error: 'the prompt is empty' };
    const changed = { ...header.traces[0], edits: ['layer 1, attention, head 0: switched off'] };
    return { header: { ...header, traces: ablate.length || patch ? [header.traces[0], changed] : header.traces }, arrays: blob };
  });
  const { page, heard, context } = await open(address);
  const settled = async (count) => { while (asked.length < count) await page.waitForTimeout(20); await page.waitForFunction(() => !window.explainer.state().busy); };
  await page.fill('#prompt', 'Another <b>prompt</b>');
  await page.click('.live button[type=submit]');
  await settled(1);
  assert.equal(asked[0].url, '/trace?token=abc');
  assert.equal(asked[0].prompt, 'Another <b>prompt</b>');
  assert.deepEqual([asked[0].ablate, asked[0].patch, asked[0].append, asked[0].target], [[], null, null, null]);
  await page.click('text=Append a token');
  await settled(2);
  assert.equal(asked[1].append.length, 1);
  assert.ok(Number.isInteger(asked[1].append[0]));
  await page.click('text=Switch this head off');
  await settled(3);
  const state = await page.evaluate(() => window.explainer.state());
  assert.deepEqual(asked[2].ablate, [{ stack: 0, layer: state.layer, head: state.head, part: 'attention' }]);
  assert.equal(state.other, 1);
  assert.equal(await page.$$eval('.matrix', (list) => list.length), 2);
  await page.click('text=Everything on again');
  await settled(4);
  await page.waitForFunction(() => window.explainer.state().other === null);
  assert.deepEqual([asked[3].ablate, asked[3].append], [[], asked[1].append]);
  await page.click('.patch summary');
  await page.fill('#patch', 'other');
  await page.click('text="Patch"');
  await settled(5);
  assert.equal(asked[4].patch.prompt, 'other');
  assert.equal(asked[4].patch.part, 'residual_before');
  assert.equal(await page.$$eval('.matrix', (list) => list.length), 2);
  fail = true;
  await page.fill('#prompt', '');
  await page.click('.live button[type=submit]');
  await settled(6);
  assert.match(await page.$eval('.state', (element) => element.textContent), /the prompt is empty/);
  fail = false;
  await page.click('text=Append a token');
  await settled(7);
  // A request that failed changes nothing: prompt and patch are those of the last answer.
  assert.deepEqual([asked[6].prompt, asked[6].patch.prompt, asked[6].append.length], [asked[4].prompt, 'other', 2]);
  assert.deepEqual(heard.console, []);
  assert.ok(heard.requests.every((url) => url.startsWith(address.split('?')[0])));
  await context.close();
  server.close();
});

test('served: the target that the model wrote is a hint, one that is typed is sent', { skip: SKIP }, async () => {
  const { header, blob } = traces.get('t5')();
  const wrote = (target, written) => ({ ...header, traces: [{ ...header.traces[0], target, written }] });
  const { server, asked, address } = await serve(wrote('Das Haus'), blob, ({ target }) => ({ header: target === null ? wrote('Der Garten', true) : wrote(target, false), arrays: blob }));
  const { page, heard, context } = await open(address);
  const field = () => page.$eval('#target', ({ value, placeholder }) => [value, placeholder]);
  const run = async (prompt) => {
    const count = asked.length + 1;
    await page.fill('#prompt', prompt);
    await page.click('.live button[type=submit]');
    while (asked.length < count) await page.waitForTimeout(20);
    await page.waitForFunction(() => !window.explainer.state().busy);
    return asked.at(-1).target;
  };
  assert.deepEqual(await field(), ['', 'Das Haus']);
  assert.equal(await run('The garden'), null);
  assert.deepEqual(await field(), ['', 'Der Garten']);
  await page.fill('#target', 'Ein Garten');
  assert.equal(await run('A garden'), 'Ein Garten');
  assert.deepEqual(await field(), ['Ein Garten', '']);
  await page.fill('#target', '');
  assert.equal(await run('A garden'), null);
  assert.deepEqual(heard.console, []);
  await context.close();
  server.close();
  // The target of the command line is held.
  const held = await serve(wrote('Ein Haus', false), blob, () => ({ error: 'nothing' }));
  const second = await open(held.address);
  assert.equal(await second.page.$eval('#target', ({ value }) => value), 'Ein Haus');
  await second.context.close();
  held.server.close();
});

test('served: a request that fails brings back what the last answer was asked with', { skip: SKIP }, async () => {
  const { header, blob } = traces.get('alibi')();
  const answers = [];
  const { server, asked, address } = await serve(header, blob, () => new Promise((done) => { answers.push(done); }));
  const { page, context } = await open(address);
  const until = async (count) => { while (answers.length < count) await page.waitForTimeout(20); };
  await page.click('text=Switch this head off');
  await until(1);
  // A second part goes off while the model still runs.
  await page.click('.switches button:text-is("Attention")');
  answers[0]({ header, arrays: blob });
  await until(2);
  assert.deepEqual([asked[0].ablate.length, asked[1].ablate.length], [1, 2]);
  answers[1]({ error: 'no' });
  await page.waitForFunction(() => !window.explainer.state().busy);
  assert.deepEqual(await page.evaluate(() => window.explainer.state().off), asked[0].ablate);
  await context.close();
  server.close();
});

/** Opens a sample whose header was changed. */
async function changed(name, change) {
  const { header, blob } = traces.get(name)();
  change(header);
  const address = path.join(folder, `${name}-changed.html`);
  writeFileSync(address, pageOf(header, blob, file('explainer.js'), file('explainer.css'), hash));
  return open(address);
}

test('a second trace that does not list a token has a question mark there, and no bar', { skip: SKIP }, async () => {
  const { page, heard, context } = await changed('pair', ({ traces: [, second] }) => {
    second.output.texts = Object.fromEntries(Object.entries(second.output.texts).map(([id, text]) => [id, `${text}!`]));
  });
  const rows = await page.$$eval('.output-bars li', (list) => list.map((row) => [row.querySelector('.cell small')?.textContent, row.querySelectorAll('.track i').length]));
  assert.deepEqual(rows.slice(0, 10), Array(10).fill(['?', 1]));
  assert.deepEqual(heard.console, []);
  await context.close();
});

test('classes are explained by what makes their scores', { skip: SKIP }, async () => {
  for (const [kind, words, symbols] of [['softmax', /softmax/, /softmax/], ['sigmoid', /sigmoid/, /sigmoid/], ['number', /a number/, /^y = xW/]]) {
    const { page, heard, context } = await changed('classes', ({ traces: [{ output }] }) => { output.kind_of_scores = kind; });
    assert.match(await page.$eval('#part-output .says', (element) => element.textContent), words);
    assert.match(await page.$eval('#part-output .formula', (element) => element.textContent), symbols);
    assert.deepEqual(heard.console, []);
    await context.close();
  }
});

test('scores that hold a bias of the position give no products', { skip: SKIP }, async () => {
  const { page, heard, context } = await changed('t5', ({ traces: [{ stacks }] }) => {
    for (const { layers } of stacks) for (const layer of layers) for (const part of [layer.attention, layer.cross_attention]) if (part) part.query = part.key = null;
  });
  const off = () => page.$$eval('.step', (list) => list.map((button) => button.disabled));
  assert.deepEqual(await off(), [true, false, false, false]);
  assert.doesNotMatch(await page.$eval('.chain', (element) => element.textContent), /q · k/);
  await page.evaluate(() => window.explainer.set({ part: 'cross_attention', step: 0 }));
  assert.deepEqual(await off(), [false, false, false, false]);
  assert.match(await page.$eval('.chain', (element) => element.textContent), /q · k/);
  assert.deepEqual(await page.evaluate(wrongNumbers), []);
  assert.deepEqual(heard.console, []);
  await context.close();
});
