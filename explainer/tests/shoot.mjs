// Pictures of pages, for people: `node tests/shoot.mjs FOLDER PAGE.html ...`.
import path from 'node:path';
import { mkdirSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { withBrowser } from './chromium.mjs';

const [folder, ...pages] = process.argv.slice(2);
const widths = (process.env.WIDTHS ?? '1280,390').split(',').map(Number);
const themes = (process.env.THEMES ?? 'light').split(',');
mkdirSync(folder, { recursive: true });
for (const theme of themes) {
  await withBrowser(async (context) => {
    for (const file of pages) {
      for (const width of widths) {
        const page = await context.newPage();
        page.on('console', (message) => console.log(file, message.type(), message.text()));
        page.on('pageerror', (error) => console.log(file, error.stack));
        await page.setViewportSize({ width, height: width > 600 ? 900 : 844 });
        await page.goto(pathToFileURL(path.resolve(file)).href);
        await page.waitForTimeout(1300);
        if (process.env.LANGUAGE_SWITCH) { await page.click('#language'); await page.waitForTimeout(200); }
        if (process.env.DO) { await page.evaluate(process.env.DO); await page.waitForTimeout(1200); }
        await page.screenshot({ path: path.join(folder, `${path.basename(file, '.html')}-${width}-${theme}.png`), fullPage: process.env.FULL !== '0' });
        await page.close();
      }
    }
  }, { colorScheme: theme });
}
