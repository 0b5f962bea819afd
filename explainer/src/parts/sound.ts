/** A recording: its spectrogram, what the chosen token hears above it, and the transcript at its times. */
import type { App } from '../app.ts';
import { css, look, palette, type Palette } from '../colors.ts';
import { clamp, fit, h, seen, Sheet } from '../dom.ts';
import type { Sound, Stack } from '../types.ts';
import { headWeights, meanWeights, rowOf } from '../weights.ts';
import { say } from '../words/index.ts';
import { withPicture } from './picture.ts';

/** The share of the width that stands for the silence behind a recording, and the space before it. */
const SILENCE = 0.07, GAP = 0.012;
const STRIP = 20, AXIS = 22, SPANS = 20;

/** The left and right end of each token, as parts of the width, and where a time is. */
class Times {
  readonly seconds: number;
  private readonly end: number;

  constructor(readonly sound: Sound) {
    const { edges, silent } = sound;
    this.seconds = edges[edges.length - (silent ? 2 : 1)]!;
    this.end = silent ? 1 - SILENCE - GAP : 1;
  }

  at(time: number): number {
    return (time / (this.seconds || 1)) * this.end;
  }

  span(token: number): [number, number] {
    const { edges, silent } = this.sound;
    if (silent && token === edges.length - 2) return [1 - SILENCE, 1];
    return [this.at(edges[token]!), this.at(edges[token + 1]!)];
  }

  under(part: number): number {
    const { edges } = this.sound;
    for (let token = 0; token < edges.length - 1; token++) if (part < this.span(token)[1]) return token;
    return edges.length - 2;
  }
}

/** A strip of shares over the time, each token as wide as it lasts. */
function paintStrip(context: CanvasRenderingContext2D, times: Times, shares: ArrayLike<number>, box: [number, number, number, number], colors: Palette, most = 0): void {
  const [x, y, width, height] = box;
  let largest = most;
  if (!largest) for (let i = 0; i < shares.length; i++) largest = Math.max(largest, shares[i]!);
  for (let token = 0; token < shares.length; token++) {
    const [from, to] = times.span(token);
    context.fillStyle = css(look(colors.weights, Math.sqrt(shares[token]! / (largest || 1))));
    context.fillRect(x + from * width, y, Math.max(0.5, (to - from) * width + 0.3), height);
  }
}

/** Seconds under a picture, as many as have room. */
function paintAxis(context: CanvasRenderingContext2D, times: Times, box: [number, number, number], colors: Palette): void {
  const [x, y, width] = box;
  const step = [0.1, 0.2, 0.5, 1, 2, 5, 10].find((s) => times.at(s) * width > 46) ?? 10;
  context.font = '11px system-ui, sans-serif';
  context.textBaseline = 'top';
  context.textAlign = 'center';
  context.fillStyle = css(colors.soft);
  for (let i = 0; i * step <= times.seconds + 1e-6; i++) {
    const at = x + times.at(i * step) * width;
    context.fillRect(at - 0.5, y, 1, 4);
    if (times.sound.silent && x + width - at < 70) continue;
    // The first and the last stay within the picture.
    context.textAlign = at - x < 12 ? 'left' : x + width - at < 18 ? 'right' : 'center';
    context.fillText(`${Number((i * step).toFixed(1))} s`, at, y + 6);
  }
  if (!times.sound.silent) return;
  context.textAlign = 'right';
  context.fillText(say('silence'), x + width, y + 6);
}

function paintSpectrogram(sheet: Sheet, times: Times, box: [number, number, number, number], then: () => void): void {
  withPicture(times.sound.png, (image) => {
    const [x, y, width, height] = box;
    sheet.context.imageSmoothingEnabled = true;
    sheet.context.drawImage(image, x, y, times.at(times.seconds) * width, height);
    if (times.sound.silent) {
      sheet.context.fillStyle = 'rgb(10,12,32)';
      sheet.context.fillRect(x + (1 - SILENCE) * width, y, SILENCE * width, height);
    }
    then();
  });
}

/** What the chosen token reads of a recording in one head; null where it reads something else. */
function heard(app: App, stack: Stack, head: number): Float32Array | null {
  const { attention } = app;
  if (!attention || app.keyStack !== stack) return null;
  return rowOf(headWeights(app.arrays, attention, head), app.token, stack.tokens.length);
}

/** Chooses the moment under a pointer: the token that reads, or the one that is read. */
function choose(app: App, index: number, token: number): void {
  if (app.state.stack === index) app.set({ token });
  else if (app.state.part === 'cross_attention') app.set({ source: token });
  else app.set({ stack: index, token, part: 'attention' });
}

function hover(app: App, index: number, token: number | null): void {
  if (app.state.stack === index) app.set({ hoverToken: token });
  else if (app.state.part === 'cross_attention') app.set({ hoverSource: token });
}

/** The spectrogram to choose a moment from, with what the chosen token hears above it. */
export function soundChooser(app: App, index: number, space: number): HTMLElement {
  const stack = app.trace.stacks[index]!;
  const times = new Times(stack.sound!);
  const spans = stack.sound!.ctc?.spans ?? [];
  const tall = clamp(space * 0.16, 80, 150);
  const top = STRIP + 4, below = top + tall + 2 + (spans.length ? SPANS : 0);
  const sheet = new Sheet('sound', '');
  sheet.resize(space, below + AXIS);
  const colors = palette();
  const paint = (): void => {
    const context = sheet.clear();
    const shares = heard(app, stack, app.state.head);
    if (shares) paintStrip(context, times, shares, [0, 0, space, STRIP], colors);
    context.strokeStyle = css(colors.line);
    context.strokeRect(0.5, 0.5, space - 1, STRIP - 1);
    paintAxis(context, times, [0, below, space], colors);
    context.font = '12px ui-monospace, "SF Mono", Menlo, Consolas, monospace';
    context.textBaseline = 'middle';
    context.textAlign = 'center';
    for (const { text, begin, end } of spans) {
      const [from, to] = [times.at(begin) * space, times.at(end) * space];
      context.fillStyle = css(colors.output, 0.5);
      context.fillRect(from, top + tall + 2, Math.max(2, to - from), 3);
      context.fillStyle = css(colors.ink);
      context.fillText(seen(text), (from + to) / 2, top + tall + 13);
    }
    paintSpectrogram(sheet, times, [0, top, space, tall], () => {
      const own = app.state.stack === index;
      for (const [token, color] of [[own ? app.token : -1, colors.query], [app.keyStack === stack ? app.source : -1, colors.key]] as const) {
        if (token < 0) continue;
        const [from, to] = times.span(Math.min(token, stack.tokens.length - 1));
        sheet.context.strokeStyle = css(color);
        sheet.context.lineWidth = 2;
        sheet.context.strokeRect(from * space + 1, 1, Math.max(1, (to - from) * space - 2), top + tall - 2);
      }
    });
    sheet.element.setAttribute('aria-label', say('soundLabel', { token: app.stack.tokens[app.token]?.text ?? '', head: app.state.head }));
  };
  const under = (event: PointerEvent | MouseEvent): number => times.under(sheet.place(event)[0] / space);
  sheet.element.addEventListener('pointermove', (event) => { if (event.pointerType !== 'touch') hover(app, index, under(event)); });
  sheet.element.addEventListener('pointerleave', () => app.set({ hoverToken: null, hoverSource: null }));
  sheet.element.addEventListener('click', (event) => choose(app, index, under(event)));
  const box = h('div', { class: 'chooser', tabindex: 0, role: 'group', 'aria-label': say('tokensLabel', { name: stack.name }) }, sheet.element);
  box.addEventListener('keydown', (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = app.state.stack === index ? app.state.token : app.state.source;
    choose(app, index, clamp(at + step, 0, stack.tokens.length - 1));
  });
  app.on(['token', 'hoverToken', 'source', 'hoverSource', 'layer', 'head', 'part'], paint, box);
  paint();
  return h('div', {}, box, h('p', { class: 'caption' }, say(spans.length ? 'soundCaptionCtc' : 'soundCaption')));
}

/** A strip for each of some rows, with its name, over the time of a recording. */
function strips(stack: Stack, names: readonly string[], space: number, label: string, row: (i: number) => ArrayLike<number>, marked: () => number, lasting?: number): { sheet: Sheet; height: number; left: number; paint: () => void } {
  const times = new Times(stack.sound!);
  const colors = palette();
  const height = clamp(300 / names.length, 7, 18);
  const left = Math.min(space < 420 ? 58 : 96, 16 + 7.4 * Math.max(...names.map((name) => [...name].length)));
  const sheet = new Sheet('sound', label);
  sheet.resize(space, names.length * height + AXIS + 2);
  const wide = space - left;
  const paint = (): void => {
    const context = sheet.clear();
    const every = Math.ceil(10 / height);
    const mark = marked();
    names.forEach((name, i) => {
      const values = row(i);
      if (lasting) {
        for (let r = 0; r < values.length; r++) {
          context.fillStyle = css(look(colors.weights, Math.sqrt(values[r]!)));
          const from = times.at(r * lasting);
          if (from > 1) break;
          context.fillRect(left + from * wide, i * height, Math.max(0.5, times.at(lasting) * wide + 0.3), height - 1);
        }
      } else paintStrip(context, times, values, [left, i * height, wide, height - 1], colors);
      if (i % every && i !== mark) return;
      context.font = `${i === mark ? 700 : 400} ${clamp(height * 0.8, 9, 12)}px ui-monospace, "SF Mono", Menlo, Consolas, monospace`;
      context.textAlign = 'right';
      context.textBaseline = 'middle';
      context.fillStyle = css(i === mark ? colors.query : colors.soft);
      context.fillText(fit(context, name, left - 10), left - 6, (i + 0.5) * height);
    });
    if (mark >= 0) {
      context.strokeStyle = css(colors.query);
      context.lineWidth = 1.5;
      context.strokeRect(left - 0.5, mark * height - 0.5, wide, height);
    }
    paintAxis(context, times, [left, names.length * height + 1, wide], colors);
  };
  return { sheet, height, left, paint };
}

/** When each token of the transcript was heard: cross-attention as strips over the time. */
export function soundBridge(app: App, space: number): HTMLElement {
  const last = app.trace.stacks.length - 1;
  const stack = app.trace.stacks[0]!, target = app.trace.stacks[last]!;
  const count = stack.tokens.length;
  const text = h('p', { class: 'says' });
  const layer = () => target.layers[Math.min(app.state.layer, target.layers.length - 1)]!;
  const chosen = (): boolean => app.state.stack === last && app.state.part === 'cross_attention';
  const weights = (): Float32Array => {
    const attention = layer().cross_attention!;
    return chosen() ? headWeights(app.arrays, attention, app.state.head) : meanWeights(app.arrays, attention);
  };
  const found = strips(stack, target.tokens.map((token) => seen(token.text)), space, say('soundBridgeLabel'), (i) => rowOf(weights(), i, count), () => (app.state.stack === last ? app.token : -1));
  const { sheet, height } = found;
  const paint = (): void => {
    text.textContent = say('soundBridgeText', { layer: layer().name, head: chosen() ? `${say('head')} ${app.state.head}` : say('onlyShown') });
    found.paint();
  };
  const under = (event: PointerEvent | MouseEvent): number => clamp(Math.floor(sheet.place(event)[1] / height), 0, target.tokens.length - 1);
  sheet.element.addEventListener('pointermove', (event) => { if (event.pointerType !== 'touch' && app.state.stack === last) app.set({ hoverToken: under(event) }); });
  sheet.element.addEventListener('pointerleave', () => app.set({ hoverToken: null }));
  sheet.element.addEventListener('click', (event) => app.set({ stack: last, token: under(event), part: 'cross_attention' }));
  app.on(['token', 'hoverToken', 'layer', 'head', 'part'], paint, sheet.element);
  paint();
  return h('div', { class: 'bridge-box' }, h('h3', {}, say('soundBridge')), text, sheet.element);
}

/** The probability of each token of the transcript at every vector, as CTC hears it. */
export function ctcRows(app: App, space: number): HTMLElement | null {
  const stack = app.trace.stacks[0]!;
  const ctc = stack.sound?.ctc;
  if (!ctc) return null;
  const { sheet, paint } = strips(stack, ctc.names.map(seen), space, say('ctc'), (i) => app.arrays.slice(ctc.probabilities, i), () => -1, ctc.second);
  paint();
  return h('div', { class: 'bridge-box' }, h('h3', {}, say('ctc')), h('p', { class: 'says' }, say('ctcText')), sheet.element);
}

/** What each head of the layer hears for the chosen token. */
export function soundHeads(app: App, space: number): HTMLElement | null {
  const stack = app.trace.stacks.find((one) => one.sound);
  if (!stack) return null;
  const box = h('div');
  const build = (): void => {
    box.hidden = app.keyStack !== stack;
    const { attention } = app;
    if (box.hidden || !attention) return;
    const names = Array.from({ length: attention.num_heads }, (_, head) => `${say('head')} ${head}`);
    const { sheet, height, paint } = strips(stack, names, space, say('soundHeads'), (head) => heard(app, stack, head)!, () => app.state.head);
    paint();
    sheet.element.addEventListener('click', (event) => app.set({ head: clamp(Math.floor(sheet.place(event)[1] / height), 0, names.length - 1) }));
    box.replaceChildren(h('h4', {}, say('soundHeads')), sheet.element);
  };
  app.on(['token', 'hoverToken', 'layer', 'head', 'part'], build, box);
  build();
  return box;
}
