/** The whole model in one picture: a line for each token, a column for each layer. */
import type { App } from '../app.ts';
import { css, palette, type Palette } from '../colors.ts';
import { calm, clamp, fit, h, seen, Sheet } from '../dom.ts';
import { columns, edge, layerAt, type Columns } from '../geometry.ts';
import type { Attention, Layer, Stack } from '../types.ts';
import { headWeights, largest, meanWeights, rowOf } from '../weights.ts';
import { say } from '../words/index.ts';

const TOP = 26;
const DRAWING = 900;
const MOST_CURVES = 3;

interface Scene {
  app: App;
  index: number;
  stack: Stack;
  columns: Columns;
  row: number;
  colors: Palette;
  /** [L + 1][T], the length of each stream at the edges of the columns, 0..1. */
  lengths: number[][];
}

const y = (scene: Scene, token: number): number => TOP + (token + 0.5) * scene.row;

export function longestLabel(stack: Stack): number {
  return Math.max(...stack.tokens.map((token) => [...seen(token.text)].length));
}

/** Lengths of the streams on a common scale, logarithmic: some tokens are a hundred times longer. */
function streamLengths(app: App, stack: Stack): number[][] {
  const count = stack.tokens.length;
  const read = (id: string | null | undefined): Float32Array | null => (id ? app.arrays.slice(id) : null);
  const rows = stack.layers.map((layer) => read(layer.norms.residual_before));
  rows.push(read(stack.layers[stack.layers.length - 1]?.norms.residual_after));
  let low = Infinity, high = 0;
  for (const row of rows) for (const v of row ?? []) if (v > 0) { low = Math.min(low, v); high = Math.max(high, v); }
  const scale = Math.log(high / low) || 1;
  return rows.map((row) => Array.from({ length: count }, (_, t) => (row && row[t]! > 0 ? 0.22 + 0.78 * (Math.log(row[t]! / low) / scale) : 0.4)));
}

/** The weights that stand for a layer: the chosen head's in the chosen layer, else the mean. */
function weightsOf(scene: Scene, layer: Layer, index: number): { weights: Float32Array; attention: Attention } | null {
  const { app } = scene;
  const attention = layer.attention;
  if (!attention) return null;
  const chosen = app.state.stack === scene.index && app.state.layer === index && app.state.part === 'attention';
  return { attention, weights: chosen ? headWeights(app.arrays, attention, app.state.head) : meanWeights(app.arrays, attention) };
}

function curve(context: CanvasRenderingContext2D, x0: number, y0: number, x1: number, y1: number): void {
  const bend = (x1 - x0) * 0.5;
  context.moveTo(x0, y0);
  context.bezierCurveTo(x0 + bend, y0, x1 - bend, y1, x1, y1);
}

function ribbon(scene: Scene, context: CanvasRenderingContext2D, token: number): void {
  const { columns: c, stack, row } = scene;
  const middle = y(scene, token);
  const half = (l: number): number => Math.max(0.35, (Math.min(row, 16) * 0.62 * scene.lengths[l]![token]!) / 2);
  context.beginPath();
  context.moveTo(c.left + 4, middle - 0.5);
  context.lineTo(edge(c, 0), middle - half(0));
  for (let l = 1; l <= stack.layers.length; l++) context.lineTo(edge(c, l), middle - half(l));
  for (let l = stack.layers.length; l >= 0; l--) context.lineTo(edge(c, l), middle + half(l));
  context.lineTo(c.left + 4, middle + 0.5);
  context.closePath();
  context.fill();
}

function curves(scene: Scene, context: CanvasRenderingContext2D, token: number, strong: boolean): void {
  const { columns: c, stack, colors } = scene;
  const count = stack.tokens.length;
  stack.layers.forEach((layer, l) => {
    const found = weightsOf(scene, layer, l);
    if (!found) return;
    const row = rowOf(found.weights, token, count);
    const x0 = edge(c, l) + c.width * 0.06, x1 = edge(c, l) + c.width * 0.66;
    for (const source of largest(row, strong ? 14 : MOST_CURVES)) {
      const weight = row[source]!;
      if (weight < (strong ? 0.015 : 0.1) || (source === token && !strong)) continue;
      context.strokeStyle = css(colors.attention, strong ? 0.18 + 0.8 * weight : 0.02 + 0.26 * weight);
      context.lineWidth = strong ? 0.8 + 3.4 * weight : 0.5 + 1.2 * weight;
      context.beginPath();
      curve(context, x0, y(scene, source), x1, y(scene, token));
      context.stroke();
    }
  });
}

function beads(scene: Scene, context: CanvasRenderingContext2D, token: number, strong: boolean): void {
  const { columns: c, stack, colors, app } = scene;
  stack.layers.forEach((layer, l) => {
    const { feed_forward_output: added, residual_middle: middle } = layer.norms;
    if (!layer.feed_forward && !layer.router) return;
    const ratio = added && middle ? app.arrays.at(added, token) / (app.arrays.at(middle, token) || 1) : 0.4;
    const radius = clamp(Math.sqrt(clamp(ratio, 0, 1.5)) * Math.min(scene.row * 0.44, 6.5), 0.6, c.width * 0.2);
    context.fillStyle = css(colors.hidden, strong ? 1 : 0.62);
    context.beginPath();
    context.arc(edge(c, l) + c.width * 0.82, y(scene, token), radius, 0, 7);
    context.fill();
  });
}

function embeddings(scene: Scene, context: CanvasRenderingContext2D, token: number, strong: boolean): void {
  const { columns: c, stack, colors, app } = scene;
  const { token_norm: word, position_norm: place } = stack.embedding;
  if (!word) return;
  const total = app.arrays.slice(word).map((v) => v || 0);
  const most = Math.max(...total, ...(place ? app.arrays.slice(place).map((v) => v || 0) : [0])) || 1;
  const size = c.embedding - 14;
  const thick = clamp(scene.row * 0.34, 0.8, 5);
  const bar = (value: number, shift: number, color: [number, number, number]): void => {
    context.fillStyle = css(color, strong ? 1 : 0.55);
    context.fillRect(c.left + 6, y(scene, token) + shift - thick / 2, Math.max(1, (value / most) * size), thick);
  };
  bar(total[token]!, place ? -thick * 0.6 : 0, colors.stream);
  if (place) bar(app.arrays.at(place, token) || 0, thick * 0.6, colors.place);
}

/** What stands at the right end of each line: the first guess of the model, where it makes one. */
function ending(app: App, index: number, token: number): string {
  const { output, stacks } = app.trace;
  if (index !== stacks.length - 1) return '';
  if (output.kind === 'next_token') return seen(output.texts[String(app.arrays.at(output.ids, token, 0))] ?? '');
  if (output.kind === 'token_classes') {
    const logits = app.arrays.slice(output.logits, token);
    return output.names[largest(logits, 1)[0]!] ?? '';
  }
  if (output.kind === 'masked_tokens') {
    const at = output.positions.indexOf(token);
    return at < 0 ? '' : seen(output.texts[String(app.arrays.at(output.ids, at, 0))] ?? '');
  }
  return '';
}

function labels(scene: Scene, context: CanvasRenderingContext2D, token: number, strong: boolean): void {
  const { columns: c, stack, colors, app } = scene;
  context.font = `${strong ? 600 : 400} ${clamp(scene.row * 0.72, 10, c.narrow ? 11 : 13)}px ui-monospace, "SF Mono", Menlo, Consolas, monospace`;
  context.textBaseline = 'middle';
  context.textAlign = 'right';
  context.fillStyle = css(strong ? colors.ink : colors.soft);
  context.fillText(fit(context, seen(stack.tokens[token]!.text), c.left - 8), c.left - 2, y(scene, token));
  context.textAlign = 'left';
  context.fillStyle = css(colors.output);
  context.fillText(fit(context, ending(app, scene.index, token), c.right - 14), edge(c, c.layers) + 10, y(scene, token));
}

function heads(scene: Scene, context: CanvasRenderingContext2D): void {
  const { columns: c, stack, colors, app } = scene;
  const chosen = app.state.stack === scene.index ? app.state.layer : -1;
  context.font = '600 11px system-ui, sans-serif';
  context.textBaseline = 'middle';
  context.textAlign = 'center';
  const every = Math.ceil(20 / c.width);
  stack.layers.forEach((layer, l) => {
    if (l === chosen) {
      context.fillStyle = css(colors.attention, colors.dark ? 0.16 : 0.08);
      context.beginPath();
      context.roundRect(edge(c, l), 2, c.width, TOP + scene.row * stack.tokens.length, 8);
      context.fill();
    }
    if (l % every && l !== chosen) return;
    context.fillStyle = css(l === chosen ? colors.attention : colors.soft);
    context.fillText(layer.name.slice(0, 6), edge(c, l) + c.width / 2, 13);
  });
}

/** Which rows have room for their label when not all have. */
function labelled(scene: Scene): Set<number> {
  const every = Math.max(1, Math.ceil(13 / scene.row));
  return new Set(scene.stack.tokens.flatMap((_, t) => (t % every === 0 ? [t] : [])));
}

function paintStill(scene: Scene, sheet: Sheet): void {
  const context = sheet.clear();
  const count = scene.stack.tokens.length;
  for (let t = 0; t < count; t++) {
    context.fillStyle = css(scene.colors.stream, 0.3);
    ribbon(scene, context, t);
  }
  for (let t = 0; t < count; t++) curves(scene, context, t, false);
  for (let t = 0; t < count; t++) {
    embeddings(scene, context, t, false);
    beads(scene, context, t, false);
  }
}

/** Words and the mark of the chosen layer, which do not fade with the other tokens. */
function paintWords(scene: Scene, sheet: Sheet): void {
  const context = sheet.clear();
  heads(scene, context);
  for (const t of labelled(scene)) labels(scene, context, t, false);
}

/** The chosen token on top of the still picture. */
function paintChosen(scene: Scene, sheet: Sheet, progress: number): void {
  const context = sheet.clear();
  const { app, colors, columns: c } = scene;
  if (app.state.stack !== scene.index) return;
  const token = app.token;
  // As the data flows: what lies to the left is computed first.
  const front = c.left + (c.total - c.left) * progress;
  context.save();
  context.beginPath();
  context.rect(0, 0, front, sheet.height);
  context.clip();
  context.fillStyle = css(colors.stream);
  ribbon(scene, context, token);
  curves(scene, context, token, true);
  beads(scene, context, token, true);
  embeddings(scene, context, token, true);
  context.restore();
  if (progress < 1) {
    const glow = context.createRadialGradient(front, y(scene, token), 0, front, y(scene, token), 22);
    glow.addColorStop(0, css(colors.attention, 0.9));
    glow.addColorStop(1, css(colors.attention, 0));
    context.fillStyle = glow;
    context.fillRect(front - 22, y(scene, token) - 22, 44, 44);
  }
  const found = scene.stack.layers[app.state.layer] ? weightsOf(scene, app.layer, app.state.layer) : null;
  const near = new Set<number>([token]);
  if (found) for (const source of largest(rowOf(found.weights, token, scene.stack.tokens.length), 5)) near.add(source);
  const taken: number[] = [];
  for (const t of near) if (!taken.some((n) => Math.abs(n - t) * scene.row < 11)) taken.push(t);
  // The words below are covered where these stand, or would touch them.
  const covered = [...labelled(scene)].filter((t) => taken.some((n) => Math.abs(n - t) * scene.row < 12));
  context.fillStyle = css(colors.card);
  for (const t of [...taken, ...covered]) for (const [x, width] of [[0, c.left], [edge(c, c.layers) + 6, c.right]] as const) context.fillRect(x, y(scene, t) - 7, width, 14);
  for (const t of taken) labels(scene, context, t, t === token);
}

function listen({ app, index, stack, columns: c, row }: Scene, box: HTMLElement, chosen: Sheet): void {
  const count = stack.tokens.length;
  const under = (event: PointerEvent | MouseEvent): [number, number | null] => {
    const [px, py] = chosen.place(event);
    return [clamp(Math.floor((py - TOP) / row), 0, count - 1), layerAt(c, px)];
  };
  chosen.element.addEventListener('pointermove', (event) => {
    if (event.pointerType !== 'touch' && app.state.stack === index) app.set({ hoverToken: under(event)[0] });
  });
  chosen.element.addEventListener('pointerleave', () => app.set({ hoverToken: null }));
  chosen.element.addEventListener('click', (event) => {
    const [token, layer] = under(event);
    app.set({ stack: index, token, layer: layer ?? app.state.layer, part: 'attention' });
  });
  box.addEventListener('keydown', (event) => {
    const move = { ArrowUp: { token: app.state.token - 1 }, ArrowDown: { token: app.state.token + 1 }, ArrowLeft: { layer: app.state.layer - 1 }, ArrowRight: { layer: app.state.layer + 1 } }[event.key];
    if (!move) return;
    event.preventDefault();
    app.set({ stack: index, ...move });
  });
}

export function flow(app: App, index: number, space: number): HTMLElement {
  const stack = app.trace.stacks[index]!;
  const count = stack.tokens.length;
  const still = new Sheet('flow-still');
  const words = new Sheet('flow-words');
  const chosen = new Sheet('flow-chosen');
  const scene: Scene = {
    app, index, stack, columns: columns(space, stack.layers.length, longestLabel(stack)), row: clamp((space < 560 ? 330 : 400) / count, 2.4, 24), colors: palette(), lengths: streamLengths(app, stack),
  };
  const height = TOP + count * scene.row + 6;
  for (const sheet of [still, words, chosen]) sheet.resize(scene.columns.total, height);
  const box = h('div', { class: 'flow', tabindex: 0, role: 'group' }, words.element, still.element, chosen.element);
  box.style.height = `${height}px`;
  box.style.width = `${scene.columns.total}px`;
  listen(scene, box, chosen);
  const dim = (): void => { still.element.style.opacity = app.state.stack === index ? '0.72' : ''; };
  dim();
  const describe = (): void => {
    if (app.state.stack !== index) return box.setAttribute('aria-label', stack.name);
    const found = stack.layers.length ? weightsOf(scene, app.layer, app.state.layer) : null;
    const best = found ? largest(rowOf(found.weights, app.token, count), 1)[0]! : 0;
    return box.setAttribute('aria-label', say('flowLabel', { token: seen(stack.tokens[app.token]!.text), source: seen(stack.tokens[best]!.text), layer: app.layer.name }));
  };
  app.on(['layer', 'head', 'part'], () => { paintStill(scene, still); paintWords(scene, words); });
  let drawing = 0;
  /** Lets the chosen token run through the layers once; under a moving pointer it is there at once. */
  const redraw = (run: boolean): void => {
    const mine = ++drawing;
    if (!run || calm() || app.state.hoverToken !== null || app.state.stack !== index) return paintChosen(scene, chosen, 1);
    const start = performance.now();
    const tick = (now: number): void => {
      if (mine !== drawing) return;
      const x = clamp((now - start) / DRAWING, 0, 1);
      paintChosen(scene, chosen, x * x * (3 - 2 * x));
      if (x < 1) requestAnimationFrame(tick);
    };
    return tick(start);
  };
  app.on(['token'], () => { redraw(true); describe(); }, box);
  app.on(['hoverToken', 'layer', 'head', 'part'], () => { redraw(false); describe(); }, box);
  paintStill(scene, still);
  paintWords(scene, words);
  redraw(true);
  describe();
  return h('div', { class: 'scroll-x' }, box);
}
