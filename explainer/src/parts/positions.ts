/** How this model knows the order: what it adds, turns or subtracts, and what a reader can check. */
import type { App } from '../app.ts';
import { bitmap, css, mix, palette } from '../colors.ts';
import { clamp, h, seen, Sheet } from '../dom.ts';
import { checkTable, dot, norm, sinusoidPairs } from '../math.ts';
import type { Stack } from '../types.ts';
import { number } from '../values.ts';
import { formula, phrase, say, type WordKey } from '../words/index.ts';

const FORMULAS: Record<Stack['positions']['kind'], string> = {
  learned: '\\x{x}_{t} = E[token_{t}] + \\p{P}[t],  \\p{P} ∈ ℝ^{T × D}',
  sinusoidal: '\\p{P}[t, 2i] = sin(t ω_{i}),  \\p{P}[t, 2i+1] = cos(t ω_{i}),  ω_{i} = 10000^{−2i/D}',
  rotary: '(R_{t}\\q{q})·(R_{s}\\k{k}) = \\q{q}·R_{s−t}\\k{k},  R_{t} = diag(e^{i t ω})',
  relative: '\\q{q}·\\k{k} + \\p{b}_{n}[s − t],  \\p{b} ∈ ℝ^{N × T × T}',
  alibi: '\\q{q}·\\k{k} − \\p{m}_{n} |t − s|,  \\p{m} ∈ ℝ^{N}',
  none: '\\x{x}_{t} = E[token_{t}]',
};

/** Two sheets, of which the upper follows the chosen token. */
function layered(width: number, height: number, label: string, still: (context: CanvasRenderingContext2D) => void): { box: HTMLElement; marks: Sheet } {
  const below = new Sheet('flow-still');
  const marks = new Sheet('flow-chosen');
  for (const sheet of [below, marks]) sheet.resize(width, height);
  const box = h('div', { class: 'flow', role: 'img', 'aria-label': label }, below.element, marks.element);
  box.style.width = `${width}px`;
  box.style.height = `${height}px`;
  still(below.clear());
  return { box, marks };
}

/** The token whose position is shown in the panel of a stack. */
function tokenOf(app: App, index: number): number {
  return app.state.stack === index ? app.token : 0;
}

function tablePicture(app: App, index: number, id: string, space: number): HTMLElement {
  const [T, D] = app.arrays.shape(id) as [number, number];
  const table = app.arrays.slice(id);
  const colors = palette();
  const spread = [...table].map(Math.abs).filter(Number.isFinite).sort((a, b) => a - b);
  const range = spread[Math.floor(spread.length * 0.99)] || 1;
  const row = clamp(300 / T, 1.2, 18);
  const { box, marks } = layered(space, row * T, say('tableLabel'), (context) => {
    context.imageSmoothingEnabled = D > space;
    context.drawImage(bitmap(D, T, colors.signed, (i) => 0.5 + table[i]! / (2 * range)), 0, 0, space, row * T);
  });
  const mark = (): void => {
    const context = marks.clear();
    context.strokeStyle = css(colors.query);
    context.lineWidth = 2;
    context.strokeRect(1, tokenOf(app, index) * row - 1, space - 2, row + 2);
  };
  marks.element.addEventListener('pointermove', (event) => { if (event.pointerType !== 'touch' && app.state.stack === index) app.set({ hoverToken: clamp(Math.floor(marks.place(event)[1] / row), 0, T - 1) }); });
  marks.element.addEventListener('pointerleave', () => app.set({ hoverToken: null }));
  app.on(['token', 'hoverToken'], mark, box);
  mark();
  return h('figure', {}, box, h('figcaption', {}, say('tableLabel'), ` (${T} × ${D})`));
}

function similarity(app: App, index: number, id: string, space: number): HTMLElement {
  const [T, D] = app.arrays.shape(id) as [number, number];
  const table = app.arrays.slice(id);
  const rows = Array.from({ length: T }, (_, t) => table.subarray(t * D, (t + 1) * D));
  const norms = rows.map((row) => norm(row) || 1);
  const cosine = new Float32Array(T * T);
  for (let t = 0; t < T; t++) for (let s = 0; s <= t; s++) cosine[t * T + s] = cosine[s * T + t] = dot(rows[t]!, rows[s]!) / (norms[t]! * norms[s]!);
  app.derived.set(`positions.${index}.cosine`, (t, s) => cosine[t! * T + s!]!);
  const colors = palette();
  const size = Math.min(space, 300);
  const { box, marks } = layered(size, size, say('similarity'), (context) => {
    context.imageSmoothingEnabled = false;
    context.drawImage(bitmap(T, T, colors.signed, (i) => 0.5 + cosine[i]! / 2), 0, 0, size, size);
  });
  const mark = (): void => {
    const context = marks.clear();
    context.strokeStyle = css(colors.query);
    context.lineWidth = 1.5;
    context.strokeRect(0.5, (tokenOf(app, index) * size) / T, size - 1, Math.max(1, size / T));
  };
  app.on(['token', 'hoverToken'], mark, box);
  mark();
  return h('figure', {}, box, h('figcaption', {}, say('similarity')));
}

/** A dial for each pair: where the hand stands at the chosen query and, for rotary, at the key. */
function dials(app: App, index: number, space: number, count: number, angle: (pair: number, position: number) => number, both: boolean): HTMLElement {
  const colors = palette();
  const shown = Math.min(count, space < 420 ? 20 : 32);
  const pairs = Array.from({ length: shown }, (_, i) => Math.round((i * (count - 1)) / Math.max(1, shown - 1)));
  const across = Math.max(4, Math.min(8, Math.floor(space / 70)));
  const cell = Math.min(78, space / across);
  const sheet = new Sheet('dials', say('anglesLabel', { position: 0 }));
  sheet.resize(cell * across, cell * Math.ceil(shown / across));
  const paint = (): void => {
    const position = tokenOf(app, index);
    const context = sheet.clear();
    sheet.element.setAttribute('aria-label', say('anglesLabel', { position }));
    pairs.forEach((pair, i) => {
      const x = (i % across + 0.5) * cell, y = (Math.floor(i / across) + 0.5) * cell, r = cell * 0.4;
      context.lineWidth = 1;
      context.strokeStyle = css(colors.line);
      context.fillStyle = css(colors.paper);
      context.beginPath();
      context.arc(x, y, r, 0, 7);
      context.fill();
      context.stroke();
      const hand = (at: number, color: [number, number, number], width: number): void => {
        const a = angle(pair, at);
        context.strokeStyle = context.fillStyle = css(color);
        context.lineWidth = width;
        context.beginPath();
        context.moveTo(x, y);
        context.lineTo(x + r * Math.sin(a), y - r * Math.cos(a));
        context.stroke();
        context.beginPath();
        context.arc(x + r * Math.sin(a), y - r * Math.cos(a), width * 1.3, 0, 7);
        context.fill();
      };
      if (both && app.keyStack === app.stack) {
        const [a, b] = [angle(pair, position), angle(pair, app.source)];
        if (Math.abs(a - b) < 2 * Math.PI) {
          context.fillStyle = css(colors.place, 0.22);
          context.beginPath();
          context.moveTo(x, y);
          context.arc(x, y, r * 0.72, Math.min(a, b) - Math.PI / 2, Math.max(a, b) - Math.PI / 2);
          context.fill();
        }
        hand(app.source, colors.key, 2);
      }
      hand(position, both ? colors.query : colors.place, 2.4);
    });
  };
  app.on(['token', 'hoverToken', 'source', 'hoverSource'], paint, sheet.element);
  paint();
  return h('figure', {}, sheet.element, h('figcaption', {}, say('clocks')));
}

/** The bias of each head as a curve over the distance. */
function biasCurves(app: App, index: number, id: string, space: number): HTMLElement {
  const [N, T] = app.arrays.shape(id) as [number, number, number];
  const bias = app.arrays.slice(id);
  const colors = palette();
  const causal = app.trace.stacks[index]!.layers[0]?.attention?.causal ?? false;
  const from = -(T - 1), to = causal ? 0 : T - 1;
  // The last row has the distances before the query, the first row those after it.
  const at = (n: number, d: number): number => (d <= 0 ? bias[(n * T + T - 1) * T + T - 1 + d]! : bias[n * T * T + d]!);
  app.derived.set(`positions.${index}.bias`, (n, d) => at(n!, d!));
  let low = 0, high = 0;
  for (let n = 0; n < N; n++) for (let d = from; d <= to; d++) { low = Math.min(low, at(n, d)); high = Math.max(high, at(n, d)); }
  const height = 240;
  const sheet = new Sheet('curves', say('relative'));
  sheet.resize(space, height);
  const x = (d: number): number => 40 + ((space - 56) * (d - from)) / (to - from || 1);
  const y = (v: number): number => 14 + ((height - 48) * (high - v)) / (high - low || 1);
  const paint = (): void => {
    const context = sheet.clear();
    context.font = '11px system-ui, sans-serif';
    context.fillStyle = css(colors.soft);
    context.strokeStyle = css(colors.line);
    context.textAlign = 'right';
    for (const v of [low, 0, high]) {
      context.fillText(v.toFixed(1), 34, y(v) + 4);
      context.beginPath();
      context.moveTo(40, y(v));
      context.lineTo(space - 16, y(v));
      context.stroke();
    }
    context.textAlign = 'center';
    for (const d of [from, Math.round(from / 2), 0, ...(to ? [Math.round(to / 2), to] : [])]) context.fillText(d > 0 ? `+${d}` : String(d).replace('-', '−'), x(d), height - 18);
    context.fillText(say('distance'), space / 2, height - 3);
    const line = (n: number, strong: boolean): void => {
      context.strokeStyle = css(strong ? colors.place : mix(colors.soft, colors.card, 0.35), strong ? 1 : 0.55);
      context.lineWidth = strong ? 3 : 1.2;
      context.beginPath();
      for (let d = from; d <= to; d++) context.lineTo(x(d), y(at(n, d)));
      context.stroke();
    };
    const chosen = app.state.stack === index ? app.state.head : 0;
    for (let n = 0; n < N; n++) if (n !== chosen) line(n, false);
    if (chosen < N) line(chosen, true);
  };
  app.on(['head'], paint);
  paint();
  return h('figure', {}, sheet.element, h('figcaption', {}, say('biasOf')));
}

function check(title: WordKey, text: string, value: HTMLElement, good: boolean): HTMLElement {
  return h('div', { class: 'check' }, h('h4', {}, h('span', { class: good ? 'tick' : 'cross', 'aria-hidden': 'true' }, good ? '✓' : '✗'), say(title)), h('p', {}, text, ' ', value));
}

function checks(app: App, index: number, id: string): HTMLElement {
  const [T, D] = app.arrays.shape(id) as [number, number];
  const table = app.arrays.slice(id);
  const shift = Math.min(3, Math.max(1, T - 1));
  const found = checkTable(table, T, D, sinusoidPairs(table, T, D), shift);
  const derive = (name: string, value: number): HTMLElement => {
    app.derived.set(`positions.${index}.${name}`, () => value);
    return number(app, 'plain', `derived.positions.${index}.${name}`);
  };
  const list: HTMLElement[] = [];
  if (T > 1) list.push(check('unique', say('uniqueText', { a: found.nearestPair[0], b: found.nearestPair[1] }), derive('nearest', found.nearest), found.nearest > 1e-3));
  list.push(check('bounded', say('boundedText'), derive('largest', found.largest), found.largest <= 1.01));
  if (found.rotationError !== null) list.push(check('rotation', say('rotationText', { shift }), derive('rotation', found.rotationError), found.rotationError < 0.05 * T));
  return h('div', { class: 'checks' }, ...list);
}

function norms(app: App, index: number): HTMLElement {
  const list = h('dl', { class: 'facts' });
  const { token_norm: word, position_norm: place } = app.trace.stacks[index]!.embedding;
  const paint = (): void => {
    const token = tokenOf(app, index);
    list.replaceChildren(h('div', {}, h('dt', {}, say('tokenWord')), h('dd', {}, h('bdi', { class: 'token query' }, seen(app.trace.stacks[index]!.tokens[token]!.text)))));
    for (const [id, name, text] of [[word, 'token_norm', 'tokenNorm'], [place, 'position_norm', 'positionNorm']] as const) {
      if (id && Number.isFinite(app.arrays.at(id, token))) list.append(h('div', {}, h('dt', {}, say(text)), h('dd', {}, number(app, 'plain', app.path('stacks', index, 'embedding', name), token))));
    }
  };
  app.on(['token', 'hoverToken'], paint, list);
  paint();
  return list;
}

export function positions(app: App, index: number, space: number): HTMLElement {
  const stack = app.trace.stacks[index]!;
  const { kind, table, angles, bias, words } = stack.positions;
  const wide = space > 760;
  const single = !table;
  const first = wide ? space * 0.56 - 44 : space - 34, second = wide ? space * 0.44 - 44 : space - 34;
  const figures: (HTMLElement | null)[] = [];
  if (table) figures.push(tablePicture(app, index, table, first));
  if (table && kind === 'sinusoidal') {
    const [T, D] = app.arrays.shape(table) as [number, number];
    const values = app.arrays.slice(table), pairs = sinusoidPairs(values, T, D);
    figures.push(dials(app, index, second, pairs.length, (pair, t) => Math.atan2(values[t * D + pairs[pair]![0]]!, values[t * D + pairs[pair]![1]]!), false));
  } else if (table) figures.push(similarity(app, index, table, second));
  if (angles) {
    const half = app.arrays.shape(angles)[1]!;
    figures.push(dials(app, index, wide ? first : second, half, (pair, t) => app.arrays.at(angles, t, pair), true));
  }
  if (bias) figures.push(biasCurves(app, index, bias, wide ? first : second));
  const title = app.trace.stacks.length > 1 ? h('h3', {}, stack.name) : null;
  const side = h('div', { class: 'position-words' }, title, h('p', { class: 'says' }, say(kind)), formula(FORMULAS[kind]), words ? h('p', { class: 'soft' }, phrase(words)) : null, norms(app, index), kind === 'sinusoidal' && table ? checks(app, index, table) : null);
  return h('div', { class: `card positions${single ? ' single' : ''}` }, side, ...figures.map((figure) => figure && h('div', { class: 'figure' }, figure)));
}
