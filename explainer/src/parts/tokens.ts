/** The tokens as a row of buttons, shaded by how much the chosen token reads from them. */
import type { App } from '../app.ts';
import { css, palette } from '../colors.ts';
import { h, seen } from '../dom.ts';
import type { Stack } from '../types.ts';
import { headWeights, rowOf } from '../weights.ts';
import { say } from '../words/index.ts';

/** Shares of the chosen row of the chosen head, one per token of `stack`; null where it reads elsewhere. */
export function readShares(app: App, stack: Stack): Float32Array | null {
  const attention = app.attention;
  if (!attention || app.keyStack !== stack) return null;
  return rowOf(headWeights(app.arrays, attention, app.state.head), app.token, stack.tokens.length);
}

export function tokenRow(app: App, index: number, only: (kind: string) => boolean = () => true): HTMLElement {
  const stack = app.trace.stacks[index]!;
  const colors = palette();
  const row = h('div', { class: 'chips', role: 'group', 'aria-label': say('tokensLabel', { name: stack.name }) });
  const buttons = new Map<number, HTMLButtonElement>();
  const choose = (token: number): void => {
    if (app.state.stack === index) app.set({ token });
    else if (app.state.part === 'cross_attention' && index === 0) app.set({ source: token });
    else app.set({ stack: index, token, part: 'attention' });
  };
  stack.tokens.forEach((token, i) => {
    if (!only(token.kind)) return;
    const button = h(
      'button',
      { type: 'button', class: `chip ${token.kind}`, tabindex: -1, title: token.id >= 0 ? `${say('id')} ${token.id}` : null, onclick: () => choose(i), onfocus: () => { if (app.state.stack === index) app.set({ token: i }); } },
      h('bdi', {}, seen(token.text)),
    );
    button.addEventListener('pointerenter', (event) => {
      if (event.pointerType !== 'touch' && app.state.stack === index) app.set({ hoverToken: i });
    });
    buttons.set(i, button);
    row.append(button);
  });
  row.addEventListener('pointerleave', () => app.set({ hoverToken: null }));
  row.addEventListener('keydown', (event) => {
    const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const keys = [...buttons.keys()];
    const at = keys.findIndex((i) => buttons.get(i) === document.activeElement);
    buttons.get(keys[Math.min(keys.length - 1, Math.max(0, at + step))]!)?.focus();
  });
  const paint = (): void => {
    const shares = readShares(app, stack);
    const chosen = app.state.stack === index ? app.token : -1;
    const tab = app.state.stack === index && buttons.has(app.state.token) ? app.state.token : buttons.keys().next().value;
    for (const [i, button] of buttons) {
      const share = shares ? Math.sqrt(Math.min(1, shares[i] ?? 0)) : 0;
      button.style.backgroundColor = share > 0.02 && i !== chosen ? css(colors.attention, 0.42 * share) : '';
      button.classList.toggle('chosen', i === chosen);
      button.classList.toggle('source', app.keyStack === stack && i === app.source && i !== chosen);
      button.setAttribute('aria-pressed', String(i === chosen));
      button.tabIndex = i === tab ? 0 : -1;
    }
  };
  app.on(['token', 'hoverToken', 'source', 'hoverSource', 'layer', 'head', 'part'], paint, row);
  paint();
  return row;
}
