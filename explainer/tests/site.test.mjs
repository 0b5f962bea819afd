// The manual in a headless Chromium: axe-core finds nothing serious on any page, at two widths.
// SITE=FOLDER is what `mkdocs build --site-dir FOLDER` has made; PICTURES=FOLDER keeps screenshots.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { available, EXECUTABLE, launch } from './chromium.mjs';

const SITE = process.env.SITE;
const SKIP = !SITE ? 'set SITE to the folder of the built manual' : available() ? false : `no Chromium at ${EXECUTABLE}: set CHROMIUM`;
const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const TYPES = { '.html': 'text/html', '.css': 'text/css', '.js': 'text/javascript', '.svg': 'image/svg+xml', '.png': 'image/png' };
// The pages of the explainer are tested by browser.test.mjs.
const PAGES = SKIP ? [] : readdirSync(SITE, { recursive: true }).filter((name) => path.basename(name) === 'index.html').sort();

let browser, server, address;
before(async () => {
  if (SKIP) return;
  server = createServer((request, response) => {
    const file = path.join(SITE, path.normalize(decodeURI(new URL(request.url, 'http://localhost').pathname)));
    const place = file.endsWith('/') ? `${file}index.html` : file;
    if (!existsSync(place)) return response.writeHead(404).end();
    return response.writeHead(200, { 'content-type': TYPES[path.extname(place)] ?? 'application/octet-stream' }).end(readFileSync(place));
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  address = `http://127.0.0.1:${server.address().port}`;
  browser = await launch();
});
after(async () => {
  await browser?.close();
  server?.close();
});

test('there are pages', { skip: SKIP }, () => assert.ok(PAGES.length > 20, `${SITE} has ${PAGES.length} pages`));

for (const name of PAGES) {
  test(`${name}: no serious finding of axe, light and wide, dark and narrow`, async () => {
    for (const [colorScheme, width] of [['light', 1280], ['dark', 390]]) {
      const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme, reducedMotion: 'reduce' });
      const page = await context.newPage();
      const requests = [];
      page.on('request', (request) => requests.push(request.url()));
      await page.goto(`${address}/${name}`, { waitUntil: 'load' });
      await page.waitForTimeout(200);
      await page.evaluate(AXE);
      const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
      const serious = found.violations.filter(({ impact }) => ['serious', 'critical'].includes(impact));
      assert.deepEqual(serious.map(({ id, nodes }) => [id, nodes.length, ...nodes.slice(0, 3).map((node) => `${node.html.slice(0, 160)} ${node.failureSummary}`)]), []);
      assert.deepEqual(requests.filter((url) => !url.startsWith(address)), []);
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.ok(overflow <= 0, `the page is ${overflow} points wider than the screen of ${width}`);
      if (process.env.PICTURES) {
        mkdirSync(process.env.PICTURES, { recursive: true });
        await page.screenshot({ path: path.join(process.env.PICTURES, `${path.dirname(name).replaceAll('/', '_')}-${width}.png`) });
      }
      await context.close();
    }
  });
}
