/** A thumbnail of every head, under the column of its layer. */
import type { App } from '../app.ts';
import { css, palette, type Palette } from '../colors.ts';
import { clamp, h, Sheet } from '../dom.ts';
import { columns, edge, layerAt, type Columns } from '../geometry.ts';
import type { AttentionPart, Stack } from '../types.ts';
import { change } from '../math.ts';
import { headWeights, thumbnail } from '../weights.ts';
import { longestLabel } from './flow.ts';
import { say } from '../words/index.ts';

interface Row {
  part: AttentionPart;
  head: number;
  y: number;
  /** The heads that share keys with it: first of its group, and how many. */
  group: number;
  opens: boolean;
}

/** Rows of heads, with a gap between groups that share keys and before cross-attention. */
function rowsOf(app: App, index: number, size: number): { rows: Row[]; height: number } {
  const rows: Row[] = [];
  let y = 4;
  for (const part of ['attention', 'cross_attention'] as const) {
    const most = app.trace.stacks[index]!.layers.map((layer) => layer[part]).sort((a, b) => (b?.num_heads ?? 0) - (a?.num_heads ?? 0))[0];
    if (!most) continue;
    if (rows.length) y += 18;
    const shared = Math.max(1, Math.round(most.num_heads / most.num_key_heads));
    for (let head = 0; head < most.num_heads; head++) {
      const opens = head % shared === 0;
      if (opens && head && shared > 1) y += 5;
      rows.push({ part, head, y, group: Math.floor(head / shared), opens });
      y += size + 4;
    }
  }
  return { rows, height: y + 4 };
}

/** How far the second trace is from the first in one head; 0 where they cannot be compared. */
function changeOf(app: App, index: number, part: AttentionPart, layer: number, head: number): number {
  const other = app.state.other === null ? null : app.loaded[app.state.other]!;
  const ours = app.trace.stacks[index]!.layers[layer]?.[part], theirs = other?.trace.stacks[index]?.layers[layer]?.[part];
  if (!other || !ours || !theirs) return 0;
  const [N, T, S] = app.arrays.shape(ours.weights) as [number, number, number];
  if (head >= N || other.arrays.shape(theirs.weights).join() !== [N, T, S].join()) return 0;
  return change(headWeights(app.arrays, ours, head), headWeights(other.arrays, theirs, head), T, S);
}

interface Scene {
  app: App;
  index: number;
  stack: Stack;
  columns: Columns;
  rows: Row[];
  /** Side of a thumbnail. */
  size: number;
  colors: Palette;
}

const left = (scene: Scene, layer: number): number => edge(scene.columns, layer) + (scene.columns.width - scene.size) / 2;

/** The number of a head, and the bracket of those that share keys with it. */
function names(scene: Scene, context: CanvasRenderingContext2D, row: Row): void {
  const { columns: c, rows, size, colors } = scene;
  const end = c.left + c.embedding;
  const group = rows.filter((other) => other.part === row.part && other.group === row.group);
  context.fillStyle = css(colors.soft);
  const every = Math.ceil(13 / (size + 4));
  if (row.head % every === 0) context.fillText(row.head === 0 ? `${say(row.part === 'attention' ? 'head' : 'cross')} 0` : String(row.head), end - 14, row.y + size / 2);
  if (group.length === 1 || !row.opens) return;
  const foot = group[group.length - 1]!.y + size;
  context.strokeStyle = css(colors.key);
  context.lineWidth = 1.5;
  context.beginPath();
  context.moveTo(end - 5, row.y + 2);
  context.lineTo(end - 9, row.y + 2);
  context.lineTo(end - 9, foot - 2);
  context.lineTo(end - 5, foot - 2);
  context.stroke();
  if (c.narrow) return;
  context.fillStyle = css(colors.key);
  context.fillText(say('keysOf', { group: row.group }), end - 42, (row.y + foot) / 2);
}

function paintStill(scene: Scene, sheet: Sheet): void {
  const { app, index, stack, rows, size, colors } = scene;
  const context = sheet.clear();
  context.imageSmoothingEnabled = false;
  context.font = '11px system-ui, sans-serif';
  context.textAlign = 'right';
  context.textBaseline = 'middle';
  for (const row of rows) {
    names(scene, context, row);
    stack.layers.forEach((layer, l) => {
      const attention = layer[row.part];
      if (!attention || row.head >= attention.num_heads) return;
      const x = left(scene, l);
      context.fillStyle = css(colors.line);
      context.fillRect(x - 0.5, row.y - 0.5, size + 1, size + 1);
      context.drawImage(thumbnail(app.arrays, attention, row.head, colors, Math.max(16, size * 2)), x, row.y, size, size);
      const changed = changeOf(app, index, row.part, l, row.head);
      if (changed <= 0.004) return;
      context.fillStyle = css(colors.output);
      context.fillRect(x, row.y + size + 0.5, Math.max(1, size * changed), 3);
    });
  }
}

/** What is switched off, and which head is chosen. */
function paintMarks(scene: Scene, sheet: Sheet): void {
  const { app, index, rows, size, colors } = scene;
  const context = sheet.clear();
  for (const off of app.state.off) {
    if (off.stack !== index || off.part === 'feed_forward') continue;
    const x = left(scene, off.layer);
    for (const row of rows) {
      if (row.part !== off.part || (off.head !== null && off.head !== row.head)) continue;
      context.fillStyle = css(colors.card, 0.75);
      context.fillRect(x, row.y, size, size);
      context.strokeStyle = css(colors.output);
      context.lineWidth = 2;
      context.beginPath();
      context.moveTo(x + 3, row.y + 3);
      context.lineTo(x + size - 3, row.y + size - 3);
      context.stroke();
    }
  }
  if (app.state.stack !== index) return;
  const row = rows.find((other) => other.part === app.state.part && other.head === app.state.head);
  if (!row) return;
  context.strokeStyle = css(colors.attention);
  context.lineWidth = 2.5;
  context.beginPath();
  context.roundRect(left(scene, app.state.layer) - 2.5, row.y - 2.5, size + 5, size + 5, 4);
  context.stroke();
}

function listen({ app, index, rows, size, columns: c }: Scene, box: HTMLElement, sheet: Sheet): void {
  sheet.element.addEventListener('click', (event) => {
    const [x, y] = sheet.place(event);
    const layer = layerAt(c, x);
    const row = rows.find((other) => y >= other.y - 2 && y < other.y + size + 2);
    if (layer !== null && row) app.set({ stack: index, layer, head: row.head, part: row.part });
  });
  box.addEventListener('keydown', (event) => {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (step) {
      const at = rows.findIndex((row) => row.part === app.state.part && row.head === app.state.head);
      const next = rows[clamp(at + step, 0, rows.length - 1)]!;
      app.set({ stack: index, part: next.part, head: next.head });
    } else if (event.key === 'ArrowLeft' || event.key === 'ArrowRight') {
      app.set({ stack: index, layer: app.state.layer + (event.key === 'ArrowLeft' ? -1 : 1) });
    } else return;
    event.preventDefault();
  });
}

export function rail(app: App, index: number, space: number): HTMLElement {
  const stack = app.trace.stacks[index]!;
  const c = columns(space, stack.layers.length, longestLabel(stack));
  const most = app.trace.stacks.length > 1 ? 32 : (stack.layers[0]?.attention?.num_heads ?? 0) <= 6 ? 58 : 44;
  const size = Math.floor(clamp(c.width - 5, 11, most));
  const { rows, height } = rowsOf(app, index, size);
  const scene: Scene = { app, index, stack, columns: c, rows, size, colors: palette() };
  const still = new Sheet('flow-still');
  const marks = new Sheet('flow-chosen');
  for (const sheet of [still, marks]) sheet.resize(c.total, height);
  const box = h('div', { class: 'flow rail', tabindex: 0, role: 'group' }, still.element, marks.element);
  box.style.height = `${height}px`;
  box.style.width = `${c.total}px`;
  if (app.state.other !== null) app.derived.set(`rail.change.${index}`, (layer, head) => changeOf(app, index, 'attention', layer!, head!));
  const mark = (): void => {
    paintMarks(scene, marks);
    box.setAttribute('aria-label', say('railLabel', { layer: app.layer.name, head: app.state.head }));
  };
  listen(scene, box, marks);
  app.on(['layer', 'head', 'part', 'off'], mark);
  paintStill(scene, still);
  mark();
  return h('div', { class: 'scroll-x' }, box);
}
