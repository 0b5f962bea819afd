// The arithmetic of the page without a browser.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { SAMPLES } from '../samples.mjs';
import { escapeJson, toFloat16, TraceWriter } from '../trace_writer.mjs';

const HERE = path.dirname(fileURLToPath(import.meta.url));

async function load(...names) {
  const contents = names.map((name) => `export * from './${name}';`).join('\n');
  const result = await build({ stdin: { contents, resolveDir: path.join(HERE, '..', 'src') }, bundle: true, write: false, format: 'esm', platform: 'neutral' });
  return import('data:text/javascript;base64,' + Buffer.from(result.outputFiles[0].contents).toString('base64'));
}

const page = await load('arrays.ts', 'math.ts', 'scores.ts', 'parts/live.ts', 'parts/output.ts', 'words/en.ts', 'words/zh.ts', 'words/phrases.ts');
const close = (a, b, tolerance) => assert.ok(Math.abs(a - b) <= tolerance, `${a} is not ${b} within ${tolerance}`);

test('float16: all values, and back', () => {
  assert.equal(page.fromFloat16(0x3c00), 1);
  assert.equal(page.fromFloat16(0xc000), -2);
  assert.equal(page.fromFloat16(0x7c00), Infinity);
  assert.equal(page.fromFloat16(0x0001), 2 ** -24);
  assert.ok(Number.isNaN(page.fromFloat16(0x7e00)));
  for (let bits = 0; bits < 0x7c00; bits += 7) assert.equal(toFloat16(page.fromFloat16(bits)), bits);
});

test('arrays of every type, with one scale and with a scale for each row, at odd offsets', () => {
  const writer = new TraceWriter();
  const values = [0.1, -0.5, 0.25, 3, -7, 5.5];
  const ids = {
    odd: writer.add('uint8', [3], [1, 2, 3]), half: writer.half([2, 3], values), single: writer.add('float32', [2, 3], values), whole: writer.add('int32', [3], [-1, 70000, 5]),
    weights: writer.weights([2, 2], [0, 1, 0.5, 0.25]), rows: writer.rows([2, 3], values), shifted: writer.add('uint16', [2], [1.5, 2.5], 0.5, 1),
  };
  const arrays = new page.Arrays(writer.arrays, page.decodeBase64(writer.blob()));
  assert.deepEqual([...arrays.slice(ids.odd)], [1, 2, 3]);
  assert.deepEqual([...arrays.slice(ids.whole)], [-1, 70000, 5]);
  values.forEach((value, i) => {
    close(arrays.slice(ids.half)[i], value, 0.004);
    close(arrays.slice(ids.single)[i], value, 1e-6);
    close(arrays.at(ids.rows, Math.floor(i / 3), i % 3), value, (i < 3 ? 0.5 : 7) / 254 + 1e-6);
  });
  assert.deepEqual([...arrays.slice(ids.shifted)], [1.5, 2.5]);
  close(arrays.at(ids.weights, 1, 0), 0.5, 0.002);
  assert.equal(arrays.slice(ids.half, 1).length, 3);
  assert.throws(() => arrays.at(ids.half, 2, 0), /outside axis 0/);
  assert.throws(() => arrays.info('nothing'), /no array/);
});

test('an array outside the file is refused', () => {
  assert.throws(() => new page.Arrays({ 0: { dtype: 'float32', shape: [1000], offset: 0, scale: 1, zero: 0 } }, new Uint8Array(8)), /outside the file/);
  assert.throws(() => new page.Arrays({ 0: { dtype: 'float64', shape: [1], offset: 0, scale: 1, zero: 0 } }, new Uint8Array(8)), /unknown type/);
});

test('softmax of large and of hidden scores', () => {
  const shares = page.softmax([1000, 1000, -Infinity]);
  close(shares[0], 0.5, 1e-12);
  assert.equal(shares[2], 0);
  assert.deepEqual([...page.softmax([-Infinity, -Infinity])], [0, 0]);
});

const LOGITS = [2, 1, 0, -1, 1.5];

test('sampling: temperature, then top-k, then top-p, as ops/logits.py', () => {
  const plain = page.distribution(LOGITS, -Infinity, { temperature: 1, topK: 0, topP: 1 });
  page.softmax(LOGITS).forEach((share, i) => close(plain.probabilities[i], share, 1e-12));
  const hot = page.distribution(LOGITS, -Infinity, { temperature: 2, topK: 0, topP: 1 });
  page.softmax(LOGITS.map((v) => v / 2)).forEach((share, i) => close(hot.probabilities[i], share, 1e-12));
  const two = page.distribution(LOGITS, 3, { temperature: 1, topK: 2, topP: 1 });
  assert.deepEqual([...two.kept], [1, 0, 0, 0, 1]);
  assert.equal(two.rest, 0);
  close(two.probabilities[0] + two.probabilities[4], 1, 1e-12);
  const greedy = page.distribution(LOGITS, null, { temperature: 0, topK: 0, topP: 1 });
  assert.deepEqual([...greedy.probabilities], [1, 0, 0, 0, 0]);
  assert.ok(greedy.exact);
  const ties = page.distribution([1, 1, 0], -Infinity, { temperature: 1, topK: 1, topP: 1 });
  assert.deepEqual([...ties.kept], [1, 1, 0]);
});

test('top-p keeps the fewest tokens that reach p, and always the best', () => {
  const shares = page.softmax(LOGITS);
  const order = [0, 4, 1, 2, 3];
  for (const p of [0.01, 0.3, 0.5, 0.8, 0.95, 0.999]) {
    let sum = 0;
    const expected = new Set();
    for (const i of order) { if (sum >= p) break; expected.add(i); sum += shares[i]; }
    const { kept } = page.distribution(LOGITS, -Infinity, { temperature: 1, topK: 0, topP: p });
    assert.deepEqual([...kept].flatMap((k, i) => (k ? [i] : [])).sort(), [...expected].sort(), `p = ${p}`);
  }
});

test('the tokens that are not listed take part', () => {
  const all = [3, 2, 1, 0.5, 0.2, -1];
  for (const temperature of [0.5, 1, 1.7]) {
    const exact = page.softmax(all.map((v) => v / temperature));
    const found = page.distribution(all.slice(0, 3), page.logSumExp(all.slice(3).map((v) => v / temperature)), { temperature, topK: 0, topP: 1 });
    for (let i = 0; i < 3; i++) close(found.probabilities[i], exact[i], 1e-12);
    close(found.rest, exact[3] + exact[4] + exact[5], 1e-12);
  }
  assert.equal(page.distribution([1], null, { temperature: 1.3, topK: 0, topP: 1 }).exact, false);
});

test('drawing follows the probabilities', () => {
  assert.equal(page.draw([0.2, 0.3, 0.5], 0), 0);
  assert.equal(page.draw([0.2, 0.3, 0.5], 0.49), 1);
  assert.equal(page.draw([0.2, 0.3, 0.5], 0.99), 2);
  assert.equal(page.draw([0.2, 0.3], 0.7), 2);
});

test('facts of heads that are known', () => {
  const T = 6;
  const make = (f) => Float32Array.from({ length: T * T }, (_, i) => f(Math.floor(i / T), i % T));
  close(page.headFacts(make((t, s) => Number(s === Math.max(0, t - 1))), T, T).previous, 1, 1e-6);
  close(page.headFacts(make((t, s) => Number(s === 0)), T, T).first, 1, 1e-6);
  const self = page.headFacts(make((t, s) => Number(s === t)), T, T);
  close(self.itself, 1, 1e-6);
  close(self.entropy, 0, 1e-9);
  close(page.headFacts(make(() => 1 / T), T, T).entropy, Math.log(T), 1e-5);
});

test('the change between two heads is the largest total variation of a row', () => {
  close(page.change([1, 0, 0.5, 0.5], [1, 0, 0.25, 0.75], 2, 2), 0.25, 1e-12);
  close(page.change([1, 0], [0, 1], 1, 2), 1, 1e-12);
});

test('the best answer lies in the text, ends after it begins, and is not too long', () => {
  const all = [true, true, true, true];
  assert.deepEqual(page.bestSpan([0.1, 0.2, 0.6, 0.1], [0.1, 0.7, 0.1, 0.1], all), [1, 1]);
  assert.deepEqual(page.bestSpan([0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.7], all), [0, 3]);
  assert.deepEqual(page.bestSpan([0.7, 0.1, 0.15, 0.05], [0.1, 0.1, 0.1, 0.7], [false, false, true, true]), [2, 3]);
  assert.notDeepEqual(page.bestSpan([0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.7], all, 2), [0, 3]);
});

test('masks: causal, window, both', () => {
  assert.equal(page.visible(2, 3, { causal: true, window: null }), false);
  assert.equal(page.visible(2, 3, { causal: false, window: null }), true);
  assert.deepEqual([0, 1, 2, 3].map((s) => page.visible(3, s, { causal: true, window: 2 })), [false, false, true, true]);
  assert.equal(page.visible(0, 2, { causal: false, window: 2 }), false);
});

for (const layout of ['interleaved', 'halves']) {
  test(`a sinusoidal table, ${layout}, is unique, bounded, and turns`, () => {
    const T = 20, D = 12;
    const table = new Float32Array(T * D);
    for (let t = 0; t < T; t++) {
      for (let i = 0; i < D / 2; i++) {
        const angle = t / 10000 ** ((2 * i) / D);
        const [a, b] = layout === 'interleaved' ? [2 * i, 2 * i + 1] : [i, D / 2 + i];
        table[t * D + a] = Math.sin(angle);
        table[t * D + b] = Math.cos(angle);
      }
    }
    const found = page.checkTable(table, T, D, page.sinusoidPairs(table, T, D), 3);
    assert.ok(found.nearest > 0.5 && found.largest <= 1.0001 && found.rotationError < 1e-4, JSON.stringify(found));
    table[5 * D] += 0.5;
    assert.ok(page.checkTable(table, T, D, page.sinusoidPairs(table, T, D), 3).rotationError > 0.1);
  });
}

test('both languages have the same words and the same data in them', () => {
  assert.deepEqual(Object.keys(page.zh).sort(), Object.keys(page.en).sort());
  const data = (text) => [...text.matchAll(/\{\w+\}/g)].map((m) => m[0]).sort();
  for (const key of Object.keys(page.en)) assert.deepEqual(data(page.zh[key]), data(page.en[key]), key);
});

test('sentences of the file are said in Chinese where they are known, with their data', () => {
  assert.equal(page.inChinese('12 of width 64'), '12 个，宽 64');
  assert.equal(page.inChinese('8,192 tokens'), '8,192 个词元');
  assert.equal(page.inChinese('The prompt has 72 tokens and was cut to its last 32.'), '提示有 72 个词元，只保留了最后 32 个。');
  assert.match(page.inChinese('Queries and keys are rotated, in pairs of features, by angles that grow with the position; the base of their wavelengths is 10,000 and 1,000,000.'), /底数是 10,000 and 1,000,000。$/);
  assert.equal(page.inChinese('something else'), 'something else');
});

test('how alike two vectors are', () => {
  close(page.cosine([1, 0], [1, 1]), Math.SQRT1_2, 1e-12);
  close(page.cosine([1, 2], [-2, -4]), -1, 1e-12);
  assert.equal(page.cosine([0, 0], [1, 1]), 0);
});

test('JSON in a script element cannot end it', () => {
  const text = escapeJson({ a: '</script><!-- & \u2028\u2029' });
  assert.ok(!/[<>&\u2028\u2029]/.test(text));
  assert.equal(JSON.parse(text).a, '</script><!-- & \u2028\u2029');
});

test('without vectors, products come from the scores, but not through a cap or a bias of the position', () => {
  const { header, blob } = SAMPLES.t5();
  const arrays = new page.Arrays(header.arrays, page.decodeBase64(blob));
  const [, decoder] = header.traces[0].stacks;
  const { attention, cross_attention: cross } = decoder.layers[0];
  const [T, S] = [decoder.tokens.length, header.traces[0].stacks[0].tokens.length];
  const bare = (part, change = {}) => ({ ...part, query: null, key: null, ...change });
  const productsOf = (part, positions = decoder.positions) => page.stepsOf(arrays, part, { ...decoder, positions, layers: [{ ...decoder.layers[0], attention: part === crossed ? attention : part, cross_attention: crossed }] }, 2).products;
  const crossed = bare(cross);
  assert.equal(productsOf(attention).length, T * T);
  assert.equal(productsOf(bare(attention)), null);
  assert.equal(productsOf(bare(attention, { cap: 30 }), { ...decoder.positions, bias: null }), null);
  assert.equal(productsOf(bare(attention, { scores: null }), { ...decoder.positions, bias: null }), null);
  assert.equal(productsOf(bare(attention), { ...decoder.positions, bias: null }).length, T * T);
  // Cross-attention has no bias: its products are its scores without the scale.
  const exact = page.stepsOf(arrays, cross, decoder, 2).products;
  const found = productsOf(crossed);
  assert.equal(found.length, T * S);
  found.forEach((value, i) => close(value, exact[i], 0.02 + 0.002 * Math.abs(exact[i])));
});

test('a target that the model wrote is not sent with the next prompt', () => {
  const trace = { target: 'Das Haus' };
  assert.equal(page.givenTarget({ family: 'encoder-decoder' }, trace), null);
  assert.equal(page.givenTarget({ family: 'encoder-decoder' }, { ...trace, written: true }), null);
  assert.equal(page.givenTarget({ family: 'encoder-decoder' }, { ...trace, written: false }), 'Das Haus');
  // The second of a pair, or the context of a question: no model writes those.
  assert.equal(page.givenTarget({ family: 'encoder' }, trace), 'Das Haus');
  assert.equal(page.givenTarget({ family: 'decoder' }, {}), null);
});

test('a token is found in another trace by its text, a class by its name', () => {
  const ours = { 5: ' the', 6: ' a', 7: '\ufffd', 8: '\ufffd' };
  assert.equal(page.sameToken(ours, 5, { 5: ' the', 6: ' a' }, [6, 5]), 1);
  // Another vocabulary: the same id is another token.
  assert.equal(page.sameToken(ours, 5, { 5: ' of', 90: ' the' }, [5, 90]), 1);
  assert.equal(page.sameToken(ours, 5, { 5: ' of', 6: ' a' }, [5, 6]), -1);
  // Named in the trace, but not among what is listed here.
  assert.equal(page.sameToken(ours, 5, { 5: ' the', 6: ' a' }, [6]), -1);
  // The same text twice: its own id, or nothing.
  assert.equal(page.sameToken(ours, 8, { 7: '\ufffd', 8: '\ufffd' }, [7, 8]), 1);
  assert.equal(page.sameToken(ours, 8, { 7: '\ufffd' }, [7]), -1);
  assert.equal(page.sameToken(ours, 9, {}, [9]), -1);
  assert.equal(page.sameToken(ours, 6, { 1: ' a', 2: ' a' }, [1, 2]), -1);
  assert.equal(page.sameName('cat', ['dog', 'cat'], 0), 1);
  assert.equal(page.sameName('cat', ['cat', 'cat'], 1), 1);
  assert.equal(page.sameName('cat', ['dog', 'bird'], 0), -1);
});

test('every sample has arrays of the stated shapes', () => {
  for (const name of ['tiny', 'hostile', 'alibi', 'span']) {
    const { header, blob } = SAMPLES[name]();
    const arrays = new page.Arrays(header.arrays, page.decodeBase64(blob));
    for (const id of Object.keys(header.arrays)) assert.equal(arrays.slice(id).length, header.arrays[id].shape.reduce((a, b) => a * b, 1));
  }
});
