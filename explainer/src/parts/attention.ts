/** One head: its matrix step by step, what the chosen token reads, and one cell by hand. */
import { traceName, type App } from '../app.ts';
import { css, look, palette, type Palette } from '../colors.ts';
import { h, seen, Sheet } from '../dom.ts';
import { headFacts, type HeadFact } from '../math.ts';
import { keyVector, matrixOf, queryVector, stepsOf, valueVector, type Steps } from '../scores.ts';
import { number, show } from '../values.ts';
import { headWeights, largest, rowOf, thumbnail } from '../weights.ts';
import { formula, say, type WordKey } from '../words/index.ts';
import { Matrix, rangeOf } from './matrix.ts';

const STEPS: WordKey[] = ['stepProducts', 'stepScale', 'stepMask', 'stepSoftmax'];
const FORMULAS = ['\\q{Q}\\k{K}^{⊤}', '\\q{Q}\\k{K}^{⊤} · \\s{s}', '\\q{Q}\\k{K}^{⊤} · \\s{s} + \\m{M}', '\\a{A} = softmax(\\q{Q}\\k{K}^{⊤} · \\s{s} + \\m{M})'];

function steps(app: App): Steps | null {
  return app.attention ? stepsOf(app.arrays, app.attention, app.stack, app.state.head) : null;
}

/** Buttons for the heads, in brackets of those that share keys and values. */
export function headButtons(app: App): HTMLElement {
  const box = h('div', { class: 'heads', role: 'group', 'aria-label': say('heads') });
  const colors = palette();
  let buttons: HTMLButtonElement[] = [];
  const build = (): void => {
    box.replaceChildren();
    buttons = [];
    const attention = app.attention;
    if (!attention) return;
    const shared = Math.max(1, Math.round(attention.num_heads / attention.num_key_heads));
    let bracket = box;
    for (let head = 0; head < attention.num_heads; head++) {
      if (shared > 1 && head % shared === 0) {
        bracket = h('div', { class: 'bracket' }, h('span', { class: 'bracket-name' }, say('keysOf', { group: head / shared })));
        box.append(bracket);
      }
      const picture = thumbnail(app.arrays, attention, head, colors, 48);
      const button = h('button', { type: 'button', class: 'head', 'aria-label': `${say('head')} ${head}`, onclick: () => app.set({ head }) }, picture, h('span', {}, String(head)));
      buttons.push(button);
      bracket.append(button);
    }
    mark();
  };
  const mark = (): void => buttons.forEach((button, head) => {
    button.setAttribute('aria-pressed', String(head === app.state.head));
    button.classList.toggle('off', app.state.off.some((off) => off.stack === app.state.stack && off.layer === app.state.layer && off.part === app.state.part && (off.head === null || off.head === head)));
  });
  app.on(['layer', 'part'], build);
  app.on(['head', 'off'], mark);
  build();
  return box;
}

/** Where the head looks on average. */
export function headWords(app: App): HTMLElement {
  const names: [HeadFact, WordKey][] = [['previous', 'factPrevious'], ['first', 'factFirst'], ['itself', 'factItself'], ['entropy', 'factEntropy']];
  const facts = (head: number): Record<HeadFact, number> => {
    const [, T, S] = app.arrays.shape(app.attention!.weights) as [number, number, number];
    return headFacts(headWeights(app.arrays, app.attention!, head), T, S);
  };
  const list = h('dl', { class: 'facts' });
  const paint = (): void => {
    list.replaceChildren();
    if (!app.attention) return;
    const square = app.keyStack === app.stack;
    for (const [fact, word] of names) {
      if (!square && fact !== 'entropy' && fact !== 'first') continue;
      app.derived.set(`head.${fact}`, (head) => facts(head!)[fact]);
      list.append(h('div', {}, h('dt', {}, say(word)), h('dd', {}, number(app, fact === 'entropy' ? 'fixed' : 'percent', `derived.head.${fact}`, app.state.head))));
    }
  };
  app.on(['layer', 'head', 'part'], paint);
  paint();
  return h('div', { class: 'head-words' }, h('h4', {}, say('headLooks')), list);
}

function stepText(app: App): string {
  const attention = app.attention;
  if (!attention) return '';
  const { step } = app.state;
  const scale = String(Number(attention.scale.toPrecision(4)));
  if (step === 0) return say('stepProductsText');
  if (step === 1) {
    if (attention.cap) return say('stepScaleCap', { scale, cap: attention.cap });
    return say(app.stack.positions.bias && app.state.part === 'attention' ? 'stepScaleBias' : 'stepScaleText', { scale });
  }
  if (step === 3) return say('stepSoftmaxText');
  if (attention.window) return `${attention.causal ? say('stepMaskCausal') + ' ' : ''}${say('stepMaskWindow', { window: attention.window })}`;
  return say(attention.causal ? 'stepMaskCausal' : 'stepMaskNone');
}

/** The four buttons, the sentence and formula of the step, and the legend of its colours. */
export function stepper(app: App): HTMLElement {
  const buttons = STEPS.map((name, step) => h('button', { type: 'button', class: 'step', onclick: () => app.set({ step }) }, h('b', {}, String(step + 1)), say(name)));
  let playing = 0;
  const play = h('button', { type: 'button', class: 'play', 'aria-label': say('play'), title: say('play') }, '▶');
  play.addEventListener('click', () => {
    const run = ++playing;
    const first = steps(app)?.products ? 0 : 2;
    const next = (step: number): void => {
      if (run !== playing || step > 3) return;
      app.set({ step });
      window.setTimeout(() => next(step + 1), 1500);
    };
    next(first);
  });
  const text = h('p', { class: 'step-text', 'aria-live': 'polite' });
  const symbols = h('div');
  const legend = new Sheet('legend');
  legend.resize(150, 10);
  const ends = [h('span'), h('span')];
  const paint = (): void => {
    const current = steps(app);
    if (!current) return;
    buttons.forEach((button, step) => {
      button.setAttribute('aria-pressed', String(step === app.state.step));
      button.disabled = matrixOf(current, step) === null;
    });
    if (!matrixOf(current, app.state.step)) return app.set({ step: 3 });
    text.textContent = stepText(app) + (current.scores ? '' : ' ' + say('stepMissing'));
    symbols.replaceChildren(formula(FORMULAS[app.state.step]!));
    const softmax = matrixOf(current, app.state.step) === current.weights;
    const range = softmax ? 1 : rangeOf(matrixOf(current, app.state.step)!);
    app.derived.set('legend.range', () => range);
    const colors = palette();
    const context = legend.clear();
    for (let x = 0; x < 150; x++) {
      context.fillStyle = css(look(softmax ? colors.weights : colors.signed, softmax ? Math.sqrt(x / 150) : x / 150));
      context.fillRect(x, 0, 1.5, 10);
    }
    ends[0]!.replaceChildren(softmax ? '0' : '−', ...(softmax ? [] : [number(app, 'plain', 'derived.legend.range')]));
    ends[1]!.replaceChildren(...(softmax ? ['1'] : ['+', number(app, 'plain', 'derived.legend.range')]));
    return;
  };
  app.on(['step', 'layer', 'head', 'part'], paint);
  paint();
  return h('div', { class: 'stepper' }, h('div', { class: 'steps', role: 'group' }, ...buttons, play), h('div', { class: 'step-words' }, text, symbols), h('div', { class: 'legend-row' }, ends[0]!, legend.element, ends[1]!));
}

/** The sources of the chosen row, largest share first, beside those of a second trace. */
export function reading(app: App): HTMLElement {
  const title = h('h4');
  const list = h('ol', { class: 'bars' });
  const paint = (): void => {
    const current = steps(app);
    if (!current) return;
    const row = rowOf(current.weights, app.token, current.S);
    title.replaceChildren(h('bdi', { class: 'token query' }, seen(app.stack.tokens[app.token]!.text)), ` ${say('reads')}`);
    const other = app.state.other === null ? null : app.loaded[app.state.other]!;
    const theirs = other?.trace.stacks[app.state.stack]?.layers[app.state.layer]?.[app.state.part] ?? null;
    const path = app.attentionPath('weights');
    list.replaceChildren(...largest(row, 8).map((source) => {
      const bar = h('i');
      bar.style.width = `${100 * row[source]!}%`;
      const item = h('li', { class: source === app.source ? 'chosen' : null }, h('bdi', { class: 'token' }, seen(app.keyStack.tokens[source]!.text)), h('span', { class: 'track' }, bar), number(app, 'percent', path, app.state.head, app.token, source));
      if (theirs && other) {
        const [N, T, S] = other.arrays.shape(theirs.weights) as [number, number, number];
        if (app.state.head < N && app.token < T && source < S) {
          const second = h('i', { class: 'second' });
          second.style.width = `${100 * other.arrays.at(theirs.weights, app.state.head, app.token, source)}%`;
          item.children[1]!.append(second);
        }
      }
      item.addEventListener('pointerenter', () => app.set({ hoverSource: source }));
      item.addEventListener('click', () => app.set({ source }));
      return item;
    }));
  };
  list.addEventListener('pointerleave', () => app.set({ hoverSource: null }));
  app.on(['token', 'hoverToken', 'layer', 'head', 'part', 'other'], paint, list);
  app.on(['source', 'hoverSource'], () => [...list.children].forEach((item, i) => {
    const current = steps(app);
    if (current) item.classList.toggle('chosen', largest(rowOf(current.weights, app.token, current.S), 8)[i] === app.source);
  }), list);
  paint();
  return h('div', { class: 'reading' }, title, list);
}

function strip(sheet: Sheet, values: ArrayLike<number>, colors: Palette, range = rangeOf(Float32Array.from(values))): void {
  const context = sheet.clear();
  const width = sheet.width / values.length;
  for (let i = 0; i < values.length; i++) {
    context.fillStyle = css(look(colors.signed, 0.5 + values[i]! / (2 * range)));
    context.fillRect(i * width, 0, Math.max(0.5, width - (width > 4 ? 1 : 0)), sheet.height);
  }
}

/** Query times key of the chosen cell, feature by feature, then the steps as numbers. */
export function byHand(app: App, space: number): HTMLElement {
  const colors = palette();
  const sheets = ['query', 'key', 'product'].map(() => new Sheet('strip'));
  for (const sheet of sheets) sheet.resize(space - 76, 15);
  const names = [h('bdi', { class: 'token query' }), h('bdi', { class: 'token key' }), h('span', { class: 'token' })];
  const strips = h('div', { class: 'strips' }, ...sheets.flatMap((sheet, i) => [names[i]!, sheet.element]));
  const chain = h('p', { class: 'chain' });
  app.derived.set('attention.product', (head, row, column) => stepsOf(app.arrays, app.attention!, app.stack, head!).products![row! * steps(app)!.S + column!]!);
  const paint = (): void => {
    const attention = app.attention, current = steps(app);
    if (!attention || !current) return;
    const { head } = app.state;
    const [row, column] = [app.token, app.source];
    const query = queryVector(app.arrays, attention, head, row), key = keyVector(app.arrays, attention, head, column);
    strips.hidden = !query || !key;
    if (query && key) {
      names[0]!.textContent = seen(app.stack.tokens[row]!.text);
      names[1]!.textContent = seen(app.keyStack.tokens[column]!.text);
      names[2]!.textContent = say('product');
      strip(sheets[0]!, query, colors);
      strip(sheets[1]!, key, colors);
      strip(sheets[2]!, query.map((v, i) => v * key[i]!), colors);
    }
    chain.replaceChildren();
    const add = (name: string, value: HTMLElement): void => chain.append(...(chain.childNodes.length ? [h('span', { class: 'arrow', 'aria-hidden': 'true' }, '→')] : []), h('span', { class: 'link' }, h('small', {}, name), value));
    if (current.products) add('q · k', number(app, 'plain', 'derived.attention.product', head, row, column));
    if (attention.scores) add(say('scaled'), number(app, 'plain', app.attentionPath('scores'), head, row, column));
    if (!current.visible[row * current.S + column]) add(say('stepMask'), h('span', { class: 'number' }, '−∞'));
    add(say('share'), number(app, 'percent', app.attentionPath('weights'), head, row, column));
    if (attention.mixed_norm) {
      const value = h('span', { class: 'number' });
      show(app, value, 'plain', app.attentionPath('mixed_norm'), head, row);
      add(say('mixed'), value);
    }
  };
  app.on(['token', 'hoverToken', 'source', 'hoverSource', 'layer', 'head', 'part'], paint, chain);
  paint();
  return h('div', { class: 'by-hand' }, h('h4', {}, say('arithmetic')), strips, chain);
}

/** The values of the largest sources, each as strong as its share, and their sum: what the head writes. */
export function mixture(app: App, space: number): HTMLElement {
  const colors = palette();
  const rows = h('div', { class: 'strips mixture' });
  const pool: [HTMLElement, Sheet, HTMLElement][] = [];
  const box = h('div', {}, h('h4', {}, say('mixture')), rows);
  const paint = (): void => {
    const { attention } = app;
    const current = steps(app);
    box.hidden = !attention?.value;
    if (!attention?.value || !current) return;
    const shares = rowOf(current.weights, app.token, current.S);
    const total = new Float32Array(attention.head_width);
    for (let s = 0; s < current.S; s++) if (shares[s]! > 0) valueVector(app.arrays, attention, app.state.head, s)!.forEach((v, i) => { total[i]! += v * shares[s]!; });
    const best = largest(shares, 4).filter((s) => shares[s]! > 0.005);
    const range = rangeOf(total);
    const lines = [...best, -1];
    while (pool.length < lines.length) {
      const sheet = new Sheet('strip');
      sheet.resize(space - 132, 13);
      pool.push([h('bdi', { class: 'token' }), sheet, h('span', { class: 'number' })]);
    }
    lines.forEach((source, i) => {
      const [name, sheet, share] = pool[i]!;
      name.textContent = source < 0 ? 'Σ' : seen(app.keyStack.tokens[source]!.text);
      strip(sheet, source < 0 ? total : valueVector(app.arrays, attention, app.state.head, source)!.map((v) => v * shares[source]!), colors, range);
      if (source >= 0) show(app, share, 'percent', app.attentionPath('weights'), app.state.head, app.token, source);
      if (source < 0) { share.textContent = ''; delete share.dataset['path']; }
    });
    rows.replaceChildren(...lines.flatMap((_, i) => [pool[i]![0], pool[i]![1].element, pool[i]![2]]));
  };
  app.on(['token', 'hoverToken', 'layer', 'head', 'part'], paint, box);
  paint();
  return box;
}

export function matrices(app: App, space: number): HTMLElement {
  const { other } = app.state;
  const list = [new Matrix(app, () => app.state.trace, space)];
  if (other !== null) list.push(new Matrix(app, () => app.state.other ?? app.state.trace, space));
  app.on(['layer', 'head', 'part', 'step'], () => list.forEach((matrix) => matrix.update(true)));
  app.on(['token', 'hoverToken', 'source', 'hoverSource'], () => list.forEach((matrix) => matrix.mark()), list[0]!.element);
  list.forEach((matrix) => matrix.update(false));
  return h('div', { class: 'matrices' }, ...list.map((matrix, i) => h('figure', {}, matrix.element, other === null ? null : h('figcaption', {}, traceName(app.loaded[i ? other : app.state.trace]!.trace)))));
}
