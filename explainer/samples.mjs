// Random but plausible traces of every family, in the format that Python writes: what the page is
// built and tested with where no model is at hand. `node samples.mjs FOLDER` writes one page each.
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { landscape } from './picture.mjs';
import { page, TraceWriter } from './trace_writer.mjs';

const HERE = path.dirname(fileURLToPath(import.meta.url));
export const PAGE_FOLDER = path.join(HERE, '..', 'transformer', 'explaining', 'page');

function generator(seed) {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const normal = () => Math.sqrt(-2 * Math.log(uniform() + 1e-12)) * Math.cos(2 * Math.PI * uniform());
  return { uniform, normal, pick: (list) => list[Math.floor(uniform() * list.length)] };
}

const array = (length, f) => Float32Array.from({ length }, (_, i) => f(i));

function place(position, width, base = 60) {
  return array(width, (i) => {
    const angle = position * base ** (-2 * Math.floor(i / 2) / width);
    return i % 2 ? Math.cos(angle) : Math.sin(angle);
  });
}

const PATTERNS = ['previous', 'first', 'self', 'broad', 'earlier', 'same'];

function target(pattern, t, S, T, random, texts) {
  const along = Math.round((t / Math.max(1, T - 1)) * (S - 1));
  if (pattern === 'previous') return Math.max(0, along - 1);
  if (pattern === 'first') return 0;
  if (pattern === 'self') return along;
  if (pattern === 'same') {
    for (let s = t - 1; s > 0; s--) if (texts[s] === texts[t]) return s;
    return 0;
  }
  return Math.floor(random.uniform() * (along + 1));
}

function attention(writer, random, s) {
  const { T, S, N, K, h, causal, window = null, bias = null, texts, record = true } = s;
  const scale = s.scale ?? 1 / Math.sqrt(h);
  const key = new Float32Array(K * S * h);
  const query = new Float32Array(N * T * h);
  const value = array(K * S * h, () => random.normal());
  for (let k = 0; k < K; k++) {
    for (let j = 0; j < S; j++) {
      const spot = place(j, h);
      for (let i = 0; i < h; i++) key[(k * S + j) * h + i] = spot[i] + 0.5 * random.normal();
    }
  }
  const scores = new Float32Array(N * T * S);
  const weights = new Float32Array(N * T * S);
  for (let n = 0; n < N; n++) {
    const pattern = S === T && !s.image ? PATTERNS[Math.floor(random.uniform() * PATTERNS.length)] : random.pick(['self', 'broad', 'earlier', 'first']);
    const gain = (pattern === 'broad' ? 0.6 : 1.6 + 1.6 * random.uniform()) * (s.scale ? 0.25 : 1);
    for (let t = 0; t < T; t++) {
      const spot = place(target(pattern, t, S, T, random, texts), h);
      for (let i = 0; i < h; i++) query[(n * T + t) * h + i] = gain * spot[i] + 0.4 * random.normal();
      const row = new Float64Array(S);
      let largest = -Infinity;
      for (let j = 0; j < S; j++) {
        let dot = 0;
        for (let i = 0; i < h; i++) dot += query[(n * T + t) * h + i] * key[((Math.floor((n * K) / N)) * S + j) * h + i];
        let score = dot * scale + (bias ? bias[(n * T + t) * S + j] : 0);
        if (s.cap) score = s.cap * Math.tanh(score / s.cap);
        scores[(n * T + t) * S + j] = score;
        const hidden = (causal && j > t) || (window && j <= t - window);
        row[j] = hidden ? -Infinity : score;
        largest = Math.max(largest, row[j]);
      }
      let sum = 0;
      for (let j = 0; j < S; j++) sum += row[j] = Math.exp(row[j] - largest);
      for (let j = 0; j < S; j++) weights[(n * T + t) * S + j] = row[j] / sum;
    }
  }
  return {
    num_heads: N, num_key_heads: K, head_width: h, window, causal, scale, cap: s.cap ?? null,
    weights: writer.weights([N, T, S], weights),
    scores: record ? writer.half([N, T, S], scores) : null,
    query: record ? writer.half([N, T, h], query) : null,
    key: record ? writer.half([K, S, h], key) : null,
    value: record ? writer.half([K, S, h], value) : null,
    mixed_norm: writer.half([N, T], array(N * T, () => 1 + random.uniform())),
  };
}

function relativeBias(N, T, kind) {
  return array(N * T * T, (i) => {
    const n = Math.floor(i / (T * T));
    const t = Math.floor(i / T) % T;
    const s = i % T;
    const far = Math.abs(t - s);
    if (kind === 'alibi') return -far * 2 ** (-(8 * (n + 1)) / N);
    const bucket = far < 8 ? far : 8 + Math.floor(Math.log(far / 8) / Math.log(16) * 8);
    return Math.sin(n * 1.7 + bucket * 0.5 * (t < s ? -1 : 1)) * 2 - bucket * (0.1 + 0.05 * (n % 3));
  });
}

function positions(writer, random, s) {
  const { T, D, h, N } = s;
  const base = { kind: s.positions, table: null, angles: null, bias: null, words: s.positionWords ?? '' };
  if (s.positions === 'sinusoidal') {
    return { ...base, table: writer.half([T, D], array(T * D, (i) => {
      const column = i % D;
      const angle = Math.floor(i / D) / 10000 ** ((2 * Math.floor(column / 2)) / D);
      return column % 2 ? Math.cos(angle) : Math.sin(angle);
    })) };
  }
  if (s.positions === 'learned') {
    const smooth = array(D * 6, () => random.normal());
    return { ...base, table: writer.half([T, D], array(T * D, (i) => {
      const d = i % D, t = Math.floor(i / D);
      let sum = 0.02 * random.normal();
      for (let f = 0; f < 3; f++) sum += 0.05 * smooth[d * 6 + f] * Math.cos((f + 1) * t * 0.11 + smooth[d * 6 + 3 + f]);
      return sum;
    })) };
  }
  if (s.positions === 'rotary') {
    return { ...base, angles: writer.add('float32', [T, h / 2], array((T * h) / 2, (i) => Math.floor(i / (h / 2)) * 10000 ** (-(2 * (i % (h / 2))) / h))) };
  }
  if (s.positions === 'none') return base;
  return { ...base, bias: writer.half([N, T, T], s.bias) };
}

function stack(writer, random, s) {
  const { T, D, N, K, h, L } = s;
  s.bias = ['relative', 'alibi'].includes(s.positions) ? relativeBias(N, T, s.positions) : null;
  const texts = s.tokens.map((token) => token.text);
  let norm = array(T, (t) => (t ? 6 : 14) + random.uniform());
  const layers = [];
  for (let l = 0; l < L; l++) {
    const middle = norm.map((v) => v * (1 + 0.1 * random.uniform()));
    const after = middle.map((v) => v * (1.04 + 0.16 * random.uniform()));
    const f = s.hidden ?? 48;
    layers.push({
      name: String(l), order: s.order ?? 'pre',
      norms: {
        residual_before: writer.half([T], norm), residual_middle: writer.half([T], middle), residual_after: writer.half([T], after),
        attention_output: writer.half([T], norm.map((v) => v * (0.2 + 0.4 * random.uniform()))),
        feed_forward_output: writer.half([T], norm.map((v) => v * (0.2 + 0.6 * random.uniform()))),
      },
      attention: attention(writer, random, { ...s, S: T, texts, window: s.windows?.[l] ?? null }),
      cross_attention: s.S ? attention(writer, random, { ...s, bias: null, causal: false, window: null, texts }) : null,
      feed_forward: {
        hidden: writer.half([T, f], array(T * f, () => Math.max(-0.17, random.normal() ** 3 * 0.6))),
        units: writer.add('int32', [f], array(f, (i) => i * 61 + l)), width: 4 * D,
      },
      router: s.experts ? router(writer, random, T, s.experts) : null,
      lens: s.vocabulary ? lens(writer, random, s, l) : null,
    });
    norm = after;
  }
  return {
    name: s.name, tokens: s.tokens, image: s.image ?? null, sound: s.sound ?? null, positions: positions(writer, random, s),
    embedding: { token_norm: writer.half([T], array(T, () => 3 + random.uniform())), position_norm: ['learned', 'sinusoidal'].includes(s.positions) ? writer.half([T], array(T, (t) => (t ? 1 : 6) + 0.3 * random.uniform())) : null },
    layers,
  };
}

function router(writer, random, T, E) {
  const probabilities = new Float32Array(T * E);
  const chosen = [];
  for (let t = 0; t < T; t++) {
    const raw = array(E, () => Math.exp(1.6 * random.normal()));
    const sum = raw.reduce((a, b) => a + b, 0);
    raw.forEach((v, e) => { probabilities[t * E + e] = v / sum; });
    chosen.push(...[...raw.keys()].sort((a, b) => raw[b] - raw[a]).slice(0, 2));
  }
  return { probabilities: writer.half([T, E], probabilities), chosen: writer.add('int32', [T, 2], chosen) };
}

function lens(writer, random, s, layer) {
  const { T, L } = s;
  const ids = [], probabilities = [];
  for (let t = 0; t < T; t++) {
    const settled = layer / L + 0.2 * random.normal() > 0.55;
    const next = s.tokens[t + 1]?.id ?? s.vocabulary[3].id;
    const others = [...s.vocabulary].sort(() => random.uniform() - 0.5).filter((v) => v.id !== next);
    ids.push(...(settled && next >= 0 ? [next, ...others.slice(0, 4).map((v) => v.id)] : others.slice(0, 5).map((v) => v.id)));
    const top = Math.min(0.95, 0.1 + (0.8 * layer) / L * random.uniform() + 0.05);
    let rest = 1 - top;
    probabilities.push(top);
    for (let i = 0; i < 4; i++) probabilities.push(rest *= 0.45);
  }
  return { ids: writer.add('int32', [T, 5], ids), probabilities: writer.half([T, 5], probabilities) };
}

function nextToken(writer, random, T, vocabulary, V) {
  const k = Math.min(vocabulary.length, 200);
  const ids = [], logits = [], rest = [], sums = [];
  const temperatures = Array.from({ length: 20 }, (_, i) => (i + 1) / 10);
  for (let t = 0; t < T; t++) {
    const order = [...vocabulary].sort(() => random.uniform() - 0.5).slice(0, k);
    const values = order.map(() => 3 + 2.4 * random.normal()).sort((a, b) => b - a);
    values[0] += 1;
    ids.push(...order.map((v) => v.id));
    logits.push(...values);
    const others = Array.from({ length: Math.min(V - k, 2000) }, () => values[k - 1] - 0.2 - 3 * random.uniform());
    const times = Math.log((V - k) / others.length);
    const logSum = (temperature) => times + Math.log(others.reduce((sum, v) => sum + Math.exp(v / temperature), 0));
    rest.push(others.length ? logSum(1) : -Infinity);
    sums.push(...temperatures.map((v) => (others.length ? logSum(v) : -Infinity)));
  }
  const texts = Object.fromEntries(vocabulary.map((v) => [v.id, v.text]));
  return {
    kind: 'next_token', logits: writer.add('float32', [T, k], logits), ids: writer.add('int32', [T, k], ids), texts,
    rest: writer.add('float32', [T], rest), vocab_size: V,
    rest_at: { temperatures, log_sums: writer.add('float32', [T, 20], sums) },
  };
}

const WORDS = ' the, of, and, to, in, a, is, that, for, it, was, on, with, as, he, be, at, by, I, this, had, not, are, but, from, or, have, an, they, which, one, you, were, her, all, she, there, would, their, we, him, been, has, when, who, will, more, no, if, out, so, said, what, up, its, about, into, than, them, can, only, other, new, some, could, time, these, two, may, then, do, first, any, my, now, such, like, our, over, man, me, even, most, made, after, also, did, many, before, must, through, back, years, where, much, your, way, well, down, should, because, each, just, those, people, Mr, how, too, little'.split(',');
const wordVocabulary = WORDS.map((text, i) => ({ text, id: 100 + i }));

function tokens(pieces, special = {}) {
  return pieces.map((text, i) => ({ text, id: 100 + ((i * 37) % 900), kind: special[i] ?? 'text' }));
}

const facts = (L, N, h, more = []) => [['layers', String(L)], ['heads', `${N} of width ${h}`], ...more];

function withTexts(output, stacks) {
  for (const s of stacks) for (const token of s.tokens) if (token.id >= 0) output.texts[token.id] ??= token.text;
  return output;
}

function decoder(seed, s) {
  const random = generator(seed);
  const writer = new TraceWriter();
  const list = s.tokens ?? tokens(s.pieces);
  const T = list.length;
  const trace = (label) => {
    const vocabulary = s.characters ?? [...wordVocabulary, ...list.filter((v, i) => list.findIndex((w) => w.id === v.id) === i)];
    const stacks = [stack(writer, random, { name: 'decoder', tokens: list, T, causal: true, vocabulary, ...s })];
    return { label, prompt: list.map((v) => v.text).join(''), stacks, output: withTexts(nextToken(writer, random, T, vocabulary, s.V), stacks) };
  };
  const header = {
    format: 1, title: s.title, family: 'decoder',
    model: { name: s.model, words: facts(s.L, s.N, s.h, s.facts), num_parameters: s.parameters, vocab_size: s.V },
    notes: s.notes ?? [], live: false, traces: (s.labels ?? [s.title]).map(trace), arrays: writer.arrays,
  };
  return { header, blob: writer.blob() };
}

const ROMEO = 'ROMEO:\nBut soft, what light';
const characters = [...'\n !\',-.:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'].map((text, id) => ({ text, id }));
const charTokens = (text) => [...text].map((c) => ({ text: c, id: characters.find((v) => v.text === c)?.id ?? 0, kind: 'text' }));

const STORY = ['The', ' quick', ' brown', ' fox', ' jumps', ' over', ' the', ' lazy', ' dog', '.', ' Then', ' the', ' quick', ' brown'];
const LONG = Array.from({ length: 64 }, (_, i) => WORDS[(i * 7) % 40]);

export const SAMPLES = {
  gpt: () => decoder(1, { title: 'runs/gpt_char, step 2000', model: 'gpt', tokens: charTokens(ROMEO), characters, V: characters.length, L: 6, N: 6, K: 6, h: 32, D: 192, positions: 'learned', positionWords: 'A learned table of 256 positions.', parameters: 2702592, facts: [['positions', 'learned'], ['norm', 'LayerNorm, before']] }),
  llama: () => decoder(2, { title: 'SmolLM2 135M', model: 'llama', pieces: STORY, V: 49152, L: 12, N: 9, K: 3, h: 64, D: 576, positions: 'rotary', parameters: 134515008, facts: [['keys shared by', '3 heads'], ['positions', 'rotary'], ['norm', 'RMSNorm, before']] }),
  mixtral: () => decoder(3, { title: 'runs/mixture', model: 'mixtral', pieces: STORY, V: 32000, L: 4, N: 8, K: 2, h: 32, D: 256, positions: 'rotary', experts: 8, windows: [6, null, 6, null], cap: 30, order: 'both', parameters: 46702792, facts: [['experts', '2 of 8'], ['window', '6 in every other layer']] }),
  wide: () => decoder(4, { title: 'GPT-2 small', model: 'gpt2', pieces: LONG, V: 50257, L: 12, N: 12, K: 12, h: 64, D: 768, positions: 'learned', parameters: 124439808, record: false, hidden: 32, notes: ['queries, keys, values and scores were left out to keep the page under 3 MB'] }),
  alibi: () => decoder(5, { title: 'runs/alibi', model: 'gpt', pieces: STORY, V: 32000, L: 4, N: 4, K: 4, h: 16, D: 64, positions: 'alibi', parameters: 1000000 }),
  pair: () => decoder(6, { title: 'two prompts', model: 'gpt', pieces: STORY, labels: ['clean', 'layer 2 head 1 off'], V: 32000, L: 4, N: 4, K: 4, h: 32, D: 128, positions: 'learned', parameters: 1000000 }),
  hostile: () => decoder(7, { title: '<img src=x onerror=alert(1)>\u202eevil', model: '</script><script>alert(2)</script>', pieces: ['<b>bold</b>', '<script>alert(3)</script>', ' שלום', ' مرحبا', ' 👩‍👩‍👧‍👦', '\u202eevil', '\n', '\t', '', ' ', '&amp;', '"quoted"', 'a'.repeat(80)], labels: ['<i>label</i>', '"><svg onload=alert(4)>'], V: 32000, L: 2, N: 2, K: 2, h: 8, D: 16, positions: 'none', parameters: 1000, notes: ['<u>note</u>'], facts: [['<b>fact</b>', '<i>value</i>']] }),
  tiny: () => decoder(8, { title: 'one token, one layer', model: 'gpt', pieces: ['Hi'], V: 500, L: 1, N: 1, K: 1, h: 8, D: 8, positions: 'learned', parameters: 1000 }),
  bert: () => encoder(9, 'masked_tokens'),
  classes: () => encoder(10, 'classes'),
  tagger: () => encoder(11, 'token_classes'),
  span: () => encoder(12, 'span'),
  vector: () => encoder(16, 'vector'),
  vaswani: () => translator(13, 'sinusoidal'),
  t5: () => translator(14, 'relative'),
  vit: () => vit(15),
  board: () => board(17),
  speech: () => speech(18, true),
  listener: () => speech(19, false),
};

function encoder(seed, kind) {
  const random = generator(seed);
  const writer = new TraceWriter();
  const pieces = kind === 'span' ? ['[CLS]', 'who', 'wrote', 'it', '?', '[SEP]', 'ada', 'lovelace', 'wrote', 'the', 'first', 'program', '.', '[SEP]'] : ['[CLS]', 'the', 'capital', 'of', 'france', 'is', '[MASK]', '.', '[SEP]'];
  const list = tokens(pieces).map((v) => ({ ...v, kind: v.text.startsWith('[') ? 'special' : 'text' }));
  const T = list.length;
  const vocabulary = [...wordVocabulary.map((v) => ({ ...v, text: v.text.trim() })), { text: 'paris', id: 5000 }];
  const stacks = [stack(writer, random, { name: 'encoder', tokens: list, T, causal: false, L: 12, N: 12, K: 12, h: 64, D: 768, positions: 'learned', order: 'post', vocabulary: kind === 'masked_tokens' ? vocabulary : null })];
  const logits = (n) => array(n, () => 2 * random.normal());
  const outputs = {
    masked_tokens: () => ({ kind, positions: [6], ids: writer.add('int32', [1, 20], [5000, ...vocabulary.slice(0, 19).map((v) => v.id)]), logits: writer.add('float32', [1, 20], [9, ...logits(19)].sort((a, b) => b - a)), texts: Object.fromEntries(vocabulary.map((v) => [v.id, v.text])) }),
    classes: () => ({ kind, names: ['negative', 'neutral', 'positive'], logits: writer.add('float32', [3], [-1.2, 0.3, 2.9]) }),
    token_classes: () => ({ kind, names: ['O', 'B-PER', 'B-LOC', 'I-LOC'], logits: writer.add('float32', [T, 4], array(T * 4, (i) => ((i % 4 === 0) !== (Math.floor(i / 4) === 4) ? 3 : 0) + (i % 4 === 2 && Math.floor(i / 4) === 4 ? 4 : 0) + random.normal())) }),
    vector: () => ({ kind, pooling: 'mean', vector: writer.add('float32', [96], logits(96)) }),
    span: () => ({ kind, start: writer.add('float32', [T], array(T, (i) => (i === 6 ? 5 : 0) + random.normal())), end: writer.add('float32', [T], array(T, (i) => (i === 7 ? 5 : 0) + random.normal())) }),
  };
  return {
    header: { format: 1, title: `BERT base, ${kind.replace('_', ' ')}`, family: 'encoder', model: { name: 'bert', words: facts(12, 12, 64, [['positions', 'learned'], ['norm', 'LayerNorm, after']]), num_parameters: 109482240, vocab_size: 30522 }, notes: [], live: false, traces: [{ label: kind, prompt: pieces.join(' '), stacks, output: outputs[kind]() }], arrays: writer.arrays },
    blob: writer.blob(),
  };
}

function translator(seed, kind) {
  const random = generator(seed);
  const writer = new TraceWriter();
  const source = tokens(['▁The', '▁house', '▁is', '▁wonderful', '▁and', '▁very', '▁old', '.', '</s>'], { 8: 'special' });
  const target_ = tokens(['<s>', '▁Das', '▁Haus', '▁ist', '▁wunder', 'bar', '▁und', '▁sehr', '▁alt', '.'], { 0: 'special' });
  const vocabulary = [...wordVocabulary, ...target_];
  const shared = { L: 6, N: 8, K: 8, h: 64, D: 512, positions: kind, order: kind === 'sinusoidal' ? 'post' : 'pre', ...(kind === 'relative' ? { scale: 1 } : {}) };
  const stacks = [
    stack(writer, random, { ...shared, name: 'encoder', tokens: source, T: source.length, causal: false }),
    stack(writer, random, { ...shared, name: 'decoder', tokens: target_, T: target_.length, S: source.length, causal: true, vocabulary }),
  ];
  return {
    header: { format: 1, title: kind === 'relative' ? 'T5 small' : 'runs/vaswani_en_de', family: 'encoder-decoder', model: { name: kind === 'relative' ? 't5' : 'vaswani', words: facts(6, 8, 64), num_parameters: 60506624, vocab_size: 32128 }, notes: [], live: false, traces: [{ label: 'The house', prompt: 'The house is wonderful and very old.', stacks, output: withTexts(nextToken(writer, random, target_.length, vocabulary, 32128), [stacks[1]]) }], arrays: writer.arrays },
    blob: writer.blob(),
  };
}

function vit(seed) {
  const random = generator(seed);
  const writer = new TraceWriter();
  const list = [{ text: 'class', id: -1, kind: 'class' }, { text: 'register 0', id: -1, kind: 'register' }];
  for (let i = 0; i < 196; i++) list.push({ text: `${Math.floor(i / 14)},${i % 14}`, id: -1, kind: 'patch' });
  const T = list.length;
  const stacks = [stack(writer, random, { name: 'encoder', tokens: list, T, causal: false, L: 6, N: 6, K: 6, h: 16, D: 96, positions: 'learned', image: { width: 224, height: 224, rows: 14, columns: 14, png: landscape(224) }, record: false })];
  const names = ['goldfinch', 'robin', 'house finch', 'cardinal', 'balloon', 'volcano', 'lakeside', 'alp', 'valley', 'kite'];
  return {
    header: { format: 1, title: 'ViT small', family: 'image', model: { name: 'vit', words: facts(6, 6, 16, [['patches', '14 x 14'], ['positions', 'learned']]), num_parameters: 22050664, vocab_size: 0 }, notes: [], live: false, traces: [{ label: 'bird', prompt: '', stacks, output: { kind: 'classes', names, logits: writer.add('float32', [10], array(10, (i) => 5 - i * 0.9 + 0.3 * random.normal())) } }], arrays: writer.arrays },
    blob: writer.blob(),
  };
}

function board(seed) {
  const random = generator(seed);
  const writer = new TraceWriter();
  const names = Array.from({ length: 9 }, (_, i) => `${'abc'[i % 3]}${Math.floor(i / 3) + 1}`);
  const list = [{ text: '[game]', id: -1, kind: 'special' }, ...names.map((name, i) => ({ text: `${name} ${['.', 'own', 'other'][i % 3]}`, id: i % 3, kind: 'patch' }))];
  const stacks = [stack(writer, random, { name: 'encoder', tokens: list, T: 10, causal: false, L: 3, N: 4, K: 4, h: 16, D: 64, positions: 'learned', image: { width: 120, height: 120, rows: 3, columns: 3, front: 1, kind: 'board', png: landscape(120) } })];
  return {
    header: { format: 1, title: 'runs/tictactoe', family: 'encoder', model: { name: 'board_transformer', words: facts(3, 4, 16), num_parameters: 151000, vocab_size: 0 }, notes: [], live: false, traces: [{ label: 'x.. .o. ...', prompt: 'x.. .o. ...', stacks, output: { kind: 'classes', names, logits: writer.add('float32', [9], array(9, () => 2 * random.normal())) } }], arrays: writer.arrays },
    blob: writer.blob(),
  };
}

/** A recording: with a decoder and silence behind it, or an encoder with CTC alone. */
function speech(seed, writes) {
  const random = generator(seed);
  const writer = new TraceWriter();
  const count = 60, second = 0.04, transcript = [...'three five'].map((text) => (text === ' ' ? '\u2581' : text));
  const edges = Array.from({ length: count }, (_, i) => i * second).concat(writes ? [30] : [count * second]);
  const frames = edges.slice(0, -1).map((edge) => ({ text: `${edge.toFixed(2)} s`, id: -1, kind: 'frame' }));
  if (writes) frames[count - 1] = { text: 'silence', id: -1, kind: 'silence' };
  const ctcNames = [...new Set(transcript), 'none'];
  const spans = transcript.map((text, i) => ({ text, begin: (4 + 5 * i) * second, end: (6 + 5 * i) * second }));
  const ctc = { names: ctcNames, second, spans, probabilities: writer.weights([ctcNames.length, count], array(ctcNames.length * count, (i) => (Math.floor(i / count) === (i % 7) ? 0.9 : 0.02))) };
  const sound = { png: landscape(120), width: 120, height: 120, edges, silent: writes, ctc: writes && seed % 2 ? null : ctc };
  const shared = { N: 4, K: 4, h: 32, D: 128, positions: 'rotary' };
  const stacks = [stack(writer, random, { ...shared, name: 'encoder', tokens: frames, T: count, causal: false, L: 4, sound, image: null, record: !writes })];
  let output;
  if (writes) {
    const list = tokens(['</s>', ...transcript], { 0: 'special' });
    const vocabulary = [...wordVocabulary, ...list.filter((v, i) => list.findIndex((w) => w.id === v.id) === i)];
    stacks.push(stack(writer, random, { ...shared, name: 'decoder', tokens: list, T: list.length, S: count, causal: true, L: 2, vocabulary }));
    output = withTexts(nextToken(writer, random, list.length, vocabulary, 500), [stacks[1]]);
  } else output = { kind: 'token_classes', names: ctcNames, logits: writer.add('float32', [count, ctcNames.length], array(count * ctcNames.length, () => 2 * random.normal())) };
  return {
    header: { format: 1, title: 'runs/digits', family: writes ? 'encoder-decoder' : 'recording', model: { name: writes ? 'speech' : 'speech_encoder', words: facts(4, 4, 32, [['spectrogram', '40 bands']]), num_parameters: 1127442, vocab_size: 17 }, notes: [], live: false, traces: [{ label: 'recording.wav', prompt: 'recording.wav', target: 'three five', written: true, stacks, output }], arrays: writer.arrays },
    blob: writer.blob(),
  };
}

const hash = (text) => 'sha256-' + createHash('sha256').update(text).digest('base64');

/** The page of a sample, as text. */
export function samplePage(name) {
  const { header, blob } = SAMPLES[name]();
  const read = (file) => readFileSync(path.join(PAGE_FOLDER, file), 'utf8');
  return page(header, blob, read('explainer.js'), read('explainer.css'), hash);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const folder = process.argv[2] ?? path.join(HERE, 'out', 'samples');
  mkdirSync(folder, { recursive: true });
  for (const name of Object.keys(SAMPLES)) writeFileSync(path.join(folder, `${name}.html`), samplePage(name));
}
