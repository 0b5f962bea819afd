/** What the model would say after each layer: a table of layers and tokens. */
import type { App } from '../app.ts';
import { css, look, palette, readable } from '../colors.ts';
import { h, seen } from '../dom.ts';
import type { Stack } from '../types.ts';
import { number } from '../values.ts';
import { say } from '../words/index.ts';

/** The text of a token id, from wherever the trace has it. */
export function textOf(app: App, id: number): string {
  const { output, stacks } = app.trace;
  if ('texts' in output && Object.hasOwn(output.texts, String(id))) return output.texts[String(id)]!;
  for (const stack of stacks) for (const token of stack.tokens) if (token.id === id) return token.text;
  return `#${id}`;
}

export function lensStack(app: App): number {
  return app.trace.stacks.findIndex((stack) => stack.layers.some((layer) => layer.lens));
}

const WINDOW = 48;

interface Table {
  element: HTMLElement;
  mark: () => void;
  shows: (token: number) => boolean;
}

function table(app: App, stack: Stack, chosen: number, choose: (token: number, layer: number) => void): Table {
  const colors = palette();
  const cells = new Map<string, HTMLTableCellElement>();
  const body = h('tbody');
  // Of a long prompt the part around the chosen token.
  const first = Math.max(0, Math.min(chosen - WINDOW / 2, stack.tokens.length - WINDOW));
  const last = Math.min(stack.tokens.length, first + WINDOW);
  for (let t = first; t < last; t++) {
    const row = h('tr', {}, h('th', { scope: 'row' }, h('bdi', {}, seen(stack.tokens[t]!.text))));
    stack.layers.forEach((layer, l) => {
      if (!layer.lens) return row.append(h('td'));
      const probability = app.arrays.at(layer.lens.probabilities, t, 0);
      const color = look(colors.weights, Math.min(0.62, probability * 0.62));
      const cell = h('td', { onclick: () => choose(t, l) }, h('bdi', {}, seen(textOf(app, app.arrays.at(layer.lens.ids, t, 0)))));
      cell.style.backgroundColor = css(color);
      cell.style.color = readable(color);
      cells.set(`${t},${l}`, cell);
      return row.append(cell);
    });
    body.append(row);
  }
  const head = h('tr', {}, h('td'), ...stack.layers.map((layer) => h('th', { scope: 'col' }, layer.name)));
  let marked: HTMLElement | undefined;
  const mark = (): void => {
    marked?.classList.remove('chosen');
    marked = cells.get(`${app.token},${app.state.layer}`);
    marked?.classList.add('chosen');
  };
  return { element: h('table', { class: 'lens' }, h('caption', { class: 'hidden' }, say('lensLabel')), h('thead', {}, head), body), mark, shows: (token) => token >= first && token < last };
}

export function lens(app: App): HTMLElement | null {
  const index = lensStack(app);
  if (index < 0) return null;
  const stack = app.trace.stacks[index]!;
  const make = (chosen: number): Table => table(app, stack, chosen, (token, layer) => app.set({ stack: index, token, layer }));
  let shown = make(app.state.stack === index ? app.state.token : stack.tokens.length - 1);
  const scroll = h('div', { class: 'scroll-x lens-scroll', tabindex: 0, role: 'region', 'aria-label': say('lensLabel') }, shown.element);
  const title = h('h4');
  const list = h('ol', { class: 'bars output-bars' });
  const paint = (): void => {
    if (app.state.stack === index && app.state.hoverToken === null && !shown.shows(app.state.token)) {
      shown = make(app.state.token);
      scroll.replaceChildren(shown.element);
    }
    shown.mark();
    const layer = app.state.stack === index ? app.state.layer : stack.layers.length - 1;
    const token = app.state.stack === index ? app.token : stack.tokens.length - 1;
    const found = stack.layers[layer]?.lens;
    title.textContent = say('lensTop', { layer: stack.layers[layer]!.name, token: seen(stack.tokens[token]!.text) });
    list.replaceChildren();
    if (!found) return;
    const count = app.arrays.shape(found.ids)[1]!;
    const path = app.path('stacks', index, 'layers', layer, 'lens', 'probabilities');
    for (let i = 0; i < count; i++) {
      const bar = h('i');
      bar.style.width = `${100 * app.arrays.at(found.probabilities, token, i)}%`;
      list.append(h('li', {}, h('bdi', { class: 'token' }, seen(textOf(app, app.arrays.at(found.ids, token, i)))), h('span', { class: 'track' }, bar), number(app, 'percent', path, token, i)));
    }
  };
  app.on(['token', 'hoverToken', 'layer'], paint, list);
  paint();
  return h('div', { class: 'lens-box' }, scroll, h('div', { class: 'lens-top' }, title, list));
}
