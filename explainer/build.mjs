// Builds the page's script and style sheet into the Python package. `--check` builds them aside and
// says whether the committed files are what the sources give.
import { build } from 'esbuild';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const HERE = path.dirname(fileURLToPath(import.meta.url));
const FOLDER = path.join(HERE, '..', 'transformer', 'explaining', 'page');
const LIMIT = 200_000;

async function bundle(entry) {
  const result = await build({
    entryPoints: [path.join(HERE, 'src', entry)], bundle: true, minify: true, write: false, format: 'iife', target: ['chrome110', 'firefox115', 'safari16.4'],
    // Only ASCII: the file means the same under every encoding that a server may claim.
    charset: 'ascii', legalComments: 'none', logLevel: 'warning',
  });
  return Buffer.from(result.outputFiles[0].contents).toString('utf8').trimEnd() + '\n';
}

const files = { 'explainer.js': await bundle('main.ts'), 'explainer.css': await bundle('styles.css') };
let bytes = 0;
for (const [name, text] of Object.entries(files)) {
  bytes += Buffer.byteLength(text);
  if (/<\/(script|style)|<!--/i.test(text)) throw new Error(`${name} would end the element that holds it`);
}
if (bytes > LIMIT) throw new Error(`the bundle has ${bytes} bytes; ${LIMIT} are allowed`);
if (process.argv.includes('--check')) {
  const read = (name) => { try { return readFileSync(path.join(FOLDER, name), 'utf8'); } catch { return null; } };
  const old = Object.keys(files).filter((name) => read(name) !== files[name]);
  if (old.length) {
    console.error(`${old.join(' and ')} in transformer/explaining/page/ differ from the sources: run \`npm run build\` in explainer/ and commit.`);
    process.exit(1);
  }
  console.log(`The committed bundle is what the sources give (${bytes} bytes).`);
} else {
  mkdirSync(FOLDER, { recursive: true });
  for (const [name, text] of Object.entries(files)) writeFileSync(path.join(FOLDER, name), text);
  console.log(`Wrote ${Object.keys(files).join(' and ')}: ${bytes} bytes.`);
}
