// Makes pages of traces that lie beside the page: `node tests/wrap.mjs FOLDER TRACE.json ...`.
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { PAGE_FOLDER } from '../samples.mjs';
import { page } from '../trace_writer.mjs';

const [folder, ...files] = process.argv.slice(2);
mkdirSync(folder, { recursive: true });
const read = (file) => readFileSync(path.join(PAGE_FOLDER, file), 'utf8');
const hash = (text) => 'sha256-' + createHash('sha256').update(text).digest('base64');
for (const file of files) {
  const { header, arrays } = JSON.parse(readFileSync(file, 'utf8'));
  writeFileSync(path.join(folder, `${path.basename(file, '.json')}.html`), page(header, arrays, read('explainer.js'), read('explainer.css'), hash));
}
