/** The feed-forward part of a layer: its units, or its router and experts. */
import type { App } from '../app.ts';
import { bitmap, css, palette } from '../colors.ts';
import { clamp, h, seen, Sheet } from '../dom.ts';
import { number } from '../values.ts';
import { largest } from '../weights.ts';
import { formula, say } from '../words/index.ts';
import { rangeOf } from './matrix.ts';

/** A map with a row for each token, and a frame around the chosen one. */
function tokenMap(app: App, space: number, label: string, values: () => { rows: number; columns: number; flat: Float32Array; signed: boolean } | null, decorate?: (context: CanvasRenderingContext2D, cell: [number, number]) => void): HTMLElement {
  const still = new Sheet('flow-still');
  const marks = new Sheet('flow-chosen');
  const box = h('div', { class: 'flow map', role: 'img', 'aria-label': label }, still.element, marks.element);
  const colors = palette();
  let cell: [number, number] = [1, 1];
  let rows = 1;
  const paint = (): void => {
    const found = values();
    box.hidden = !found;
    if (!found) return;
    rows = found.rows;
    cell = [space / found.columns, clamp(330 / found.rows, 1.5, 20)];
    const height = cell[1] * rows;
    for (const sheet of [still, marks]) sheet.resize(space, height);
    box.style.height = `${height}px`;
    box.style.width = `${space}px`;
    const range = found.signed ? rangeOf(found.flat) : 1;
    const picture = bitmap(found.columns, rows, found.signed ? colors.units : colors.weights, (i) => (found.signed ? 0.5 + found.flat[i]! / (2 * range) : Math.sqrt(found.flat[i]!)));
    const context = still.clear();
    context.imageSmoothingEnabled = false;
    context.drawImage(picture, 0, 0, space, height);
    decorate?.(context, cell);
    mark();
  };
  const mark = (): void => {
    const context = marks.clear();
    context.strokeStyle = css(colors.query);
    context.lineWidth = 2;
    context.strokeRect(1, app.token * cell[1] - 0.5, space - 2, cell[1] + 1);
  };
  marks.element.addEventListener('pointermove', (event) => { if (event.pointerType !== 'touch') app.set({ hoverToken: clamp(Math.floor(marks.place(event)[1] / cell[1]), 0, rows - 1) }); });
  marks.element.addEventListener('pointerleave', () => app.set({ hoverToken: null }));
  marks.element.addEventListener('click', (event) => app.set({ token: clamp(Math.floor(marks.place(event)[1] / cell[1]), 0, rows - 1) }));
  app.on(['layer'], paint);
  app.on(['token', 'hoverToken'], mark, box);
  paint();
  return box;
}

function bars(rows: { name: string; share: number; value: HTMLElement; chosen?: boolean; negative?: boolean }[]): HTMLElement[] {
  return rows.map(({ name, share, value, chosen, negative }) => {
    const bar = h('i', { class: negative ? 'negative' : null });
    bar.style.width = `${100 * clamp(share, 0, 1)}%`;
    return h('li', { class: chosen ? 'chosen' : null }, h('span', { class: 'token' }, name), h('span', { class: 'track' }, bar), value);
  });
}

export function units(app: App, space: number): HTMLElement {
  const list = h('ol', { class: 'bars hidden-bars' });
  const title = h('h4');
  const missing = h('p', { class: 'soft' }, say('hiddenMissing'));
  const paint = (): void => {
    const part = app.layer.feed_forward;
    missing.hidden = Boolean(part?.hidden);
    title.hidden = list.hidden = !part?.hidden;
    if (!part?.hidden) return;
    title.replaceChildren(`${say('units')} `, h('bdi', { class: 'token query' }, seen(app.stack.tokens[app.token]!.text)));
    const row = app.arrays.slice(part.hidden, app.token);
    const most = rangeOf(row);
    list.replaceChildren(...bars(largest(row.map(Math.abs), 8).map((i) => ({
      name: `${say('unit')} ${part.units ? app.arrays.at(part.units, i) : i}`, share: Math.abs(row[i]!) / most, negative: row[i]! < 0,
      value: number(app, 'signed', app.layerPath('feed_forward', 'hidden'), app.token, i),
    }))));
  };
  app.on(['token', 'hoverToken', 'layer'], paint, title);
  paint();
  const map = tokenMap(app, space, say('hiddenLabel'), () => {
    const hidden = app.layer.feed_forward?.hidden;
    if (!hidden) return null;
    const [rows, columns] = app.arrays.shape(hidden) as [number, number];
    return { rows, columns, flat: app.arrays.slice(hidden), signed: true };
  });
  return h('div', { class: 'pair' }, h('div', {}, map, h('p', { class: 'caption' }, say('hiddenLabel')), missing), h('div', {}, title, list));
}

export function experts(app: App, space: number): HTMLElement {
  const list = h('ol', { class: 'bars hidden-bars' });
  const title = h('h4');
  const paint = (): void => {
    const { router } = app.layer;
    if (!router) return list.replaceChildren();
    title.replaceChildren(h('bdi', { class: 'token query' }, seen(app.stack.tokens[app.token]!.text)));
    const shares = app.arrays.slice(router.probabilities, app.token);
    const chosen = new Set(app.arrays.slice(router.chosen, app.token));
    return list.replaceChildren(...bars(Array.from(shares, (share, i) => ({
      name: `${say('expert')} ${i}`, share, chosen: chosen.has(i), value: number(app, 'percent', app.layerPath('router', 'probabilities'), app.token, i),
    }))));
  };
  app.on(['token', 'hoverToken', 'layer'], paint, title);
  paint();
  const colors = palette();
  const map = tokenMap(app, space, say('routerLabel'), () => {
    const { router } = app.layer;
    if (!router) return null;
    const [rows, columns] = app.arrays.shape(router.probabilities) as [number, number];
    return { rows, columns, flat: app.arrays.slice(router.probabilities), signed: false };
  }, (context, [w, t]) => {
    const { router } = app.layer;
    const [rows, k] = app.arrays.shape(router!.chosen) as [number, number];
    context.fillStyle = css(colors.hidden);
    context.strokeStyle = css(colors.card);
    for (let row = 0; row < rows; row++) {
      for (let i = 0; i < k; i++) {
        context.beginPath();
        context.arc((app.arrays.at(router!.chosen, row, i) + 0.5) * w, (row + 0.5) * t, Math.min(4.5, t * 0.4), 0, 7);
        context.fill();
        context.stroke();
      }
    }
  });
  return h('div', { class: 'pair' }, h('div', {}, map, h('p', { class: 'caption' }, say('routerLabel'))), h('div', {}, title, list));
}

export function feedForward(app: App, space: number): HTMLElement {
  const body = h('div');
  let kind = '';
  const two = space > 640 ? space * 0.58 : space;
  const build = (): void => {
    const { router, feed_forward: part } = app.layer;
    const next = router ? 'experts' : part ? 'units' : '';
    if (next === kind) return;
    kind = next;
    body.replaceChildren();
    if (router) {
      const count = app.arrays.shape(router.probabilities)[1]!;
      body.append(h('p', { class: 'says' }, say('expertsText', { count })), formula(`\\x{y} = Σ_{e ∈ top-${app.arrays.shape(router.chosen)[1]}} \\p{p}_{e} FFN_{e}(\\x{x}),  \\p{p} = softmax(\\x{x}W_{r}) ∈ ℝ^{${count}}`), experts(app, two));
    } else if (part) {
      body.append(h('p', { class: 'says' }, say('feedForwardText', { width: part.width })), formula(`\\x{y} = σ(\\x{x}W_{1}) W_{2},  W_{1} ∈ ℝ^{D × ${part.width}}`), units(app, two));
    }
  };
  app.on(['layer'], build);
  build();
  return h('section', { class: 'card', id: 'part-feed-forward' }, h('h3', {}, say(app.layer.router ? 'experts' : 'feedForward')), body);
}
