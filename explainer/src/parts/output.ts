/** What comes out: the next token with its sliders, or the output of whatever head the model has. */
import { traceName, type App, type Loaded } from '../app.ts';
import { css, look, palette } from '../colors.ts';
import { clamp, h, seen, Sheet } from '../dom.ts';
import { bestSpan, cosine, distribution, draw, softmax, type Distribution, type Sampling } from '../math.ts';
import type { NextToken, Output, Token } from '../types.ts';
import { number, show } from '../values.ts';
import { largest } from '../weights.ts';
import { formula, say } from '../words/index.ts';
import { textOf } from './lens.ts';

const SHOWN = 10;

/** The position whose next token is shown: the chosen one of the last stack. */
export function outputPosition(app: App): number {
  const last = app.trace.stacks.length - 1;
  return app.state.stack === last ? app.token : app.trace.stacks[last]!.tokens.length - 1;
}

export function sampled(loaded: Loaded, position: number, sampling: Sampling): Distribution {
  const output = loaded.trace.output as NextToken;
  const { arrays } = loaded;
  let rest: number | null = null;
  const at = output.rest_at?.temperatures.findIndex((t) => Math.abs(t - sampling.temperature) < 1e-6) ?? -1;
  if (output.rest_at && at >= 0) rest = arrays.at(output.rest_at.log_sums, position, at);
  else if (output.rest && sampling.temperature === 1) rest = arrays.at(output.rest, position);
  else if (output.rest && arrays.at(output.rest, position) === -Infinity) rest = -Infinity;
  return distribution(arrays.slice(output.logits, position), rest, sampling);
}

function barRow(name: string, share: number, value: Node, options: { second?: number | null; secondValue?: Node | null; kept?: boolean; chosen?: boolean } = {}): HTMLElement {
  const bar = h('i');
  bar.style.width = `${100 * clamp(share, 0, 1)}%`;
  const track = h('span', { class: 'track' }, bar);
  if (options.second !== undefined && options.second !== null) {
    const other = h('i', { class: 'second' });
    other.style.width = `${100 * clamp(options.second, 0, 1)}%`;
    track.append(other);
  }
  const cell = h('span', { class: 'cell' }, value);
  if (options.secondValue) cell.append(h('small', {}, options.secondValue));
  return h('li', { class: [options.kept === false ? 'removed' : '', options.chosen ? 'chosen' : ''].join(' ').trim() || null }, h('bdi', { class: 'token' }, name), track, cell);
}

/** The bar and the value of a second trace; a question mark where it does not list what the first one shows. */
function second(share: number | undefined, value: () => Node, bar = true): { second: number | null; secondValue: Node } {
  return share === undefined ? { second: null, secondValue: document.createTextNode('?') } : { second: bar ? share : null, secondValue: value() };
}

/** Where `names` has a name: at its own place, or else at the only one; -1 where it has not, or more than once. */
export function sameName(name: string | undefined, names: readonly (string | undefined)[], place: number): number {
  if (name === undefined) return -1;
  if (names[place] === name) return place;
  const at = names.indexOf(name);
  return at === names.lastIndexOf(name) ? at : -1;
}

type Texts = Record<string, string>;

/** Where the ids that another trace lists have our token: by its text, since two vocabularies may number tokens differently. */
export function sameToken(ours: Texts, id: number, theirs: Texts, ids: readonly number[]): number {
  const text = ours[id];
  // Two tokens of one vocabulary may have the same text: the other one is not ours.
  const texts = ids.map((other) => (other !== id && ours[other] === text ? undefined : theirs[other]));
  return sameName(text, texts, ids.indexOf(id));
}

function slider(name: string, range: { min: number; max: number; step: number; value: number }, text: (v: number) => string, change: (v: number) => void): { row: HTMLElement; set: (v: number) => void } {
  const out = h('output', {}, text(range.value));
  const input = h('input', { type: 'range', min: range.min, max: range.max, step: range.step, value: range.value, 'aria-label': name });
  const said = (): void => { out.textContent = text(Number(input.value)); input.setAttribute('aria-valuetext', text(Number(input.value))); };
  input.addEventListener('input', () => { said(); change(Number(input.value)); });
  said();
  return { row: h('label', { class: 'slider' }, h('span', {}, name), input, out), set: (v) => { input.value = String(v); said(); } };
}

function sliders(app: App, listed: number): { element: HTMLElement; reset: () => void } {
  const most = Math.min(50, listed) + 1;
  const list = [
    slider(say('temperature'), { min: 0, max: 2, step: 0.1, value: app.state.temperature }, (v) => (v === 0 ? say('greedy') : v.toFixed(1)), (v) => app.set({ temperature: Math.round(v * 10) / 10 })),
    slider(say('topK'), { min: 1, max: most, step: 1, value: app.state.topK || most }, (v) => (v === most ? say('all') : String(v)), (v) => app.set({ topK: v === most ? 0 : v })),
    slider(say('topP'), { min: 0.05, max: 1, step: 0.05, value: app.state.topP }, (v) => (v === 1 ? say('all') : v.toFixed(2)), (v) => app.set({ topP: Math.round(v * 100) / 100 })),
  ];
  const reset = (): void => {
    app.set({ temperature: 1, topK: 0, topP: 1 });
    [1, most, 1].forEach((v, i) => list[i]!.set(v));
  };
  return { element: h('div', { class: 'sliders' }, ...list.map((part) => part.row)), reset };
}

function nextToken(app: App): HTMLElement[] {
  const output = app.trace.output as NextToken;
  const other = (): Loaded | null => (app.state.other === null ? null : app.loaded[app.state.other]!);
  const sampling = (): Sampling => ({ temperature: app.state.temperature, topK: app.state.topK, topP: app.state.topP });
  let known: { key: string; found: Distribution } | null = null;
  const now = (): Distribution => {
    const { temperature, topK, topP, trace } = app.state;
    const key = [temperature, topK, topP, trace, outputPosition(app)].join();
    if (known?.key !== key) known = { key, found: sampled(app.loaded[trace]!, outputPosition(app), sampling()) };
    return known.found;
  };
  const theirs = (): Distribution | null => {
    const beside = other();
    return beside && beside.trace.output.kind === 'next_token' && outputPosition(app) < beside.arrays.shape(beside.trace.output.logits)[0]! ? sampled(beside, outputPosition(app), sampling()) : null;
  };
  const idAt = (i: number): number => app.arrays.at(output.ids, outputPosition(app), i);
  const otherIndex = (i: number): number => {
    const { arrays, trace } = other()!;
    const theirs = trace.output as NextToken;
    return sameToken(output.texts, idAt(i), theirs.texts, [...arrays.slice(theirs.ids, outputPosition(app))]);
  };
  app.derived.set('output.probability', (i) => now().probabilities[i!]!);
  app.derived.set('output.rest', () => now().rest);
  app.derived.set('output.entropy', () => now().entropy);
  app.derived.set('output.other', (i) => theirs()?.probabilities[otherIndex(i!)] ?? NaN);
  let drawn: number[] = [];
  const list = h('ol', { class: 'bars output-bars' });
  const after = h('p', { class: 'after' });
  const tally = h('p', { class: 'drawn', 'aria-live': 'polite' });
  const legend = h('p', { class: 'legend-pair' });
  const paint = (): void => {
    const { probabilities, kept, rest, exact } = now();
    const beside = theirs();
    const stack = app.trace.stacks[app.trace.stacks.length - 1]!;
    after.replaceChildren(say('afterToken'), ' ', h('bdi', { class: 'token query' }, seen(stack.tokens[outputPosition(app)]!.text)), h('span', { class: 'spread' }, `${say('entropy')} `, number(app, 'fixed', 'derived.output.entropy'), ` ${say('nats')}`));
    const logits = app.arrays.slice(output.logits, outputPosition(app));
    const best = largest(logits, SHOWN);
    list.replaceChildren(...best.map((i) => barRow(seen(textOf(app, idAt(i))), probabilities[i]!, number(app, 'percent', 'derived.output.probability', i), {
      kept: kept[i] === 1, chosen: drawn[drawn.length - 1] === i, ...(beside ? second(beside.probabilities[otherIndex(i)], () => number(app, 'percent', 'derived.output.other', i)) : {}),
    })));
    const more = [...probabilities].reduce((sum, p, i) => (best.includes(i) ? sum : sum + p), rest);
    app.derived.set('output.more', () => more);
    if (probabilities.length > SHOWN || rest > 0) list.append(barRow(say('rest'), more, exact ? number(app, 'percent', 'derived.output.more') : document.createTextNode('?'), { kept: true }));
    if (!exact) list.append(h('li', { class: 'soft note' }, say('restUnknown')));
    legend.hidden = !beside;
    if (beside) legend.replaceChildren(h('i', { class: 'first' }), h('bdi', {}, traceName(app.trace)), h('i', { class: 'second' }), h('bdi', {}, traceName(other()!.trace)));
    tally.replaceChildren(...(drawn.length ? [`${say('drawn')} `, ...drawn.slice(-7).map((i) => h('bdi', { class: 'token' }, i < probabilities.length ? seen(textOf(app, idAt(i))) : say('rest')))] : []));
  };
  const { element, reset } = sliders(app, app.arrays.shape(output.logits)[1]!);
  const drawing = h('button', { type: 'button', onclick: () => { drawn.push(draw(now().probabilities, Math.random())); paint(); } }, say('draw'));
  const resetting = h('button', { type: 'button', class: 'quiet', onclick: () => { drawn = []; reset(); paint(); } }, say('reset'));
  app.on(['token', 'hoverToken'], () => { drawn = []; paint(); }, list);
  app.on(['temperature', 'topK', 'topP'], paint);
  paint();
  return [after, list, legend, element, h('div', { class: 'buttons' }, drawing, resetting), tally];
}

type Scores = Extract<Output, { kind: 'classes' | 'token_classes' }>;

const isScores = (output: Output): output is Scores => output.kind === 'classes' || output.kind === 'token_classes';

/** What makes shares of the scores; without a word of it in the file, a softmax. */
function kindOf(output: Scores): 'softmax' | 'sigmoid' | 'number' {
  return output.kind === 'classes' ? (output.kind_of_scores ?? 'softmax') : 'softmax';
}

function classes(app: App, output: Scores): HTMLElement[] {
  const list = h('ol', { class: 'bars output-bars' });
  const after = h('p', { class: 'after' });
  const path = app.path('output', 'logits');
  const kind = kindOf(output);
  const at = (): number[] => (output.kind === 'token_classes' ? [app.token] : []);
  const shares = (arrays = app.arrays, source: Scores = output): ArrayLike<number> => {
    if (at().some((token) => token >= arrays.shape(source.logits)[0]!)) return [];
    const logits = arrays.slice(source.logits, ...at());
    return kind === 'softmax' ? softmax(logits) : kind === 'sigmoid' ? logits.map((v) => 1 / (1 + Math.exp(-v))) : logits;
  };
  app.derived.set('output.probability', (i) => shares()[i!]!);
  const paint = (): void => {
    const values = shares();
    const beside = app.state.other === null ? null : app.loaded[app.state.other]!;
    const others = beside && isScores(beside.trace.output) && beside.trace.output.kind === output.kind ? beside.trace.output : null;
    const theirs = beside && others && kindOf(others) === kind ? shares(beside.arrays, others) : null;
    const otherIndex = (i: number): number => (others ? sameName(output.names[i] ?? String(i), others.names, i) : -1);
    app.derived.set('output.other', (i) => theirs?.[otherIndex(i!)] ?? NaN);
    after.replaceChildren(...(output.kind === 'token_classes' ? [h('bdi', { class: 'token query' }, seen(app.stack.tokens[app.token]!.text))] : []));
    list.replaceChildren(...largest(values, SHOWN).map((i) => {
      const value = kind === 'number' ? number(app, 'signed', path, ...at(), i) : number(app, 'percent', 'derived.output.probability', i);
      return barRow(seen(output.names[i] ?? String(i)), kind === 'number' ? 0 : values[i]!, value, theirs ? second(theirs[otherIndex(i)], () => number(app, kind === 'number' ? 'signed' : 'percent', 'derived.output.other', i), kind !== 'number') : {});
    }));
  };
  app.on(['token', 'hoverToken'], paint, list);
  paint();
  return [after, list];
}

function maskedTokens(app: App, output: Extract<Output, { kind: 'masked_tokens' }>): HTMLElement[] {
  const list = h('ol', { class: 'bars output-bars' });
  const after = h('p', { class: 'after' });
  const row = (): number => Math.max(0, output.positions.indexOf(app.token));
  const rest = (): number => (output.rest ? app.arrays.at(output.rest, row()) : -Infinity);
  const shares = (): Distribution => distribution(app.arrays.slice(output.logits, row()), rest(), { temperature: 1, topK: 0, topP: 1 });
  app.derived.set('output.probability', (i) => shares().probabilities[i!]!);
  app.derived.set('output.rest', () => shares().rest);
  const paint = (): void => {
    if (!output.positions.length) return list.replaceChildren();
    const { probabilities } = shares();
    const position = output.positions[row()]!;
    after.replaceChildren(h('bdi', { class: 'token query' }, seen(app.trace.stacks[0]!.tokens[position]!.text)), ` (${position})`);
    return list.replaceChildren(...largest(probabilities, SHOWN).map((i) => barRow(seen(textOf(app, app.arrays.at(output.ids, row(), i))), probabilities[i]!, number(app, 'percent', 'derived.output.probability', i))));
  };
  app.on(['token', 'hoverToken'], paint, list);
  paint();
  return [after, list];
}

/** The tokens behind the question: the text between the first separator and the last; else all. */
function answerable(tokens: Token[]): boolean[] {
  const separator = tokens.findIndex((token, i) => i > 0 && token.kind === 'special');
  const behind = tokens.map((token, i) => separator > 0 && i > separator && token.kind === 'text');
  return behind.includes(true) ? behind : tokens.map(() => true);
}

function span(app: App, output: Extract<Output, { kind: 'span' }>): HTMLElement[] {
  const start = softmax(app.arrays.slice(output.start)), end = softmax(app.arrays.slice(output.end));
  const { tokens } = app.trace.stacks[0]!;
  const best = bestSpan(start, end, answerable(tokens));
  app.derived.set('output.start', (t) => start[t!]!);
  app.derived.set('output.end', (t) => end[t!]!);
  const answer = h('p', { class: 'answer' }, h('small', {}, say('answer')), h('bdi', {}, seen(tokens.slice(best[0], best[1] + 1).map((token) => token.text).join(' ').replace(/ ##/g, ''))));
  const half = (title: 'begins' | 'ends', shares: Float64Array, name: string): HTMLElement => h('div', {}, h('h4', {}, say(title)), h('ol', { class: 'bars output-bars' }, ...largest(shares, 4).map((t) => barRow(seen(tokens[t]!.text), shares[t]!, number(app, 'percent', `derived.output.${name}`, t)))));
  return [answer, half('begins', start, 'start'), half('ends', end, 'end')];
}

/** The vector of a text as cells, and how alike those of the other texts are. */
function vector(app: App, output: Extract<Output, { kind: 'vector' }>): HTMLElement[] {
  const colors = palette();
  const cells = new Sheet('strip');
  const list = h('ol', { class: 'bars output-bars' });
  const alike = h('h4', {}, say('alike'));
  const length = h('p', { class: 'after' });
  const of = (i: number): Float32Array | number[] => {
    const { trace, arrays } = app.loaded[i]!;
    return trace.output.kind === 'vector' ? arrays.slice(trace.output.vector) : [];
  };
  app.derived.set('output.cosine', (i) => cosine(of(app.state.trace), of(i!)));
  app.derived.set('output.length', () => Math.hypot(...of(app.state.trace)));
  const paint = (): void => {
    const values = of(app.state.trace);
    const columns = 24, side = 12, range = Math.max(...Array.from(values, Math.abs)) || 1;
    cells.resize(columns * side, Math.ceil(values.length / columns) * side);
    const context = cells.clear();
    for (let i = 0; i < values.length; i++) {
      context.fillStyle = css(look(colors.signed, 0.5 + values[i]! / (2 * range)));
      context.fillRect((i % columns) * side, Math.floor(i / columns) * side, side - 1, side - 1);
    }
    length.replaceChildren(say('vectorSize', { count: String(values.length), pooling: seen(output.pooling) }), ' ', number(app, 'fixed', 'derived.output.length'));
    const others = app.loaded.flatMap((one, i) => (i !== app.state.trace && one.trace.output.kind === 'vector' ? [i] : []));
    alike.hidden = !others.length;
    list.replaceChildren(...others.map((i) => barRow(traceName(app.loaded[i]!.trace), cosine(values, of(i)), number(app, 'fixed', 'derived.output.cosine', i))));
  };
  app.on(['trace', 'other'], paint, list);
  paint();
  return [length, h('div', { class: 'vector-cells' }, cells.element), alike, list];
}

const WORDS = {
  next_token: ['output', 'outputText', '\\o{p} = softmax(\\x{x}W_{vocabulary} / \\s{τ}) ∈ ℝ^{V}'],
  softmax: ['classes', 'classesText', '\\o{p} = softmax(\\x{x}W) ∈ ℝ^{classes}'],
  sigmoid: ['classes', 'classesTextSigmoid', '\\o{p} = sigmoid(\\x{x}W) ∈ ℝ^{classes}'],
  number: ['number', 'numberText', '\\o{y} = \\x{x}W ∈ ℝ'],
  token_classes: ['tokenClasses', 'tokenClassesText', '\\o{p} = softmax(\\x{X}W) ∈ ℝ^{T × classes}'],
  masked_tokens: ['maskedTokens', 'maskedTokensText', '\\o{p} = softmax(\\x{x}_{mask}W) ∈ ℝ^{V}'],
  vector: ['vector', 'vectorText', '\\o{v} = pool(\\x{X}) ∈ ℝ^{D}'],
  span: ['span', 'spanText', '\\o{p} = softmax(\\x{X}W) ∈ ℝ^{T × 2}'],
} as const;

/** The loss on the prompt itself, beside that of the second trace. */
function surprise(app: App): HTMLElement | null {
  const { other, trace } = app.state;
  const runs = [trace, ...(other === null ? [] : [other])].filter((i) => typeof app.loaded[i]!.trace.loss === 'number');
  if (!runs.length) return null;
  const numbers = runs.map((i) => {
    const value = h('b', { class: 'number' });
    show(app, value, 'fixed', `traces.${i}.loss`);
    return value;
  });
  return h('p', { class: 'soft loss' }, `${say('loss')}: `, numbers[0]!, ...(numbers[1] ? [' → ', numbers[1]] : []), ` ${say('nats')}`);
}

export function output(app: App): HTMLElement {
  const { output: out } = app.trace;
  const [title, text, symbols] = WORDS[out.kind === 'classes' ? kindOf(out) : out.kind];
  const body = out.kind === 'next_token' ? nextToken(app) : out.kind === 'masked_tokens' ? maskedTokens(app, out) : out.kind === 'span' ? span(app, out) : out.kind === 'vector' ? vector(app, out) : classes(app, out);
  return h('section', { class: 'card output', id: 'part-output' }, h('h3', {}, say(title)), h('p', { class: 'says' }, say(text)), formula(symbols), ...body, surprise(app));
}
