/** The chapters under the first screen: embedding and position, one layer, the lens. */
import type { App } from './app.ts';
import { h } from './dom.ts';
import { chapter } from './hero.ts';
import { byHand, headButtons, headWords, matrices, mixture, reading, stepper } from './parts/attention.ts';
import { feedForward } from './parts/feed_forward.ts';
import { lens } from './parts/lens.ts';
import { patching, switches } from './parts/live.ts';
import { headPictures } from './parts/picture.ts';
import { soundHeads } from './parts/sound.ts';
import { positions } from './parts/positions.ts';
import { wiring } from './parts/wiring.ts';
import { formula, say } from './words/index.ts';

export function positionsChapter(app: App, space: number): HTMLElement {
  const { stacks } = app.trace;
  const [first, second] = stacks;
  const table = first!.positions.table;
  const width = table ? app.arrays.shape(table)[1]! : (app.header.model.words.find(([name]) => name === 'width')?.[1] ?? 'D');
  const alike = second && second.positions.kind === first!.positions.kind && ['none', 'rotary', 'sinusoidal'].includes(second.positions.kind);
  const shown = alike ? [stacks.length - 1] : stacks.map((_, i) => i);
  return chapter(3, say('positions'), h('p', { class: 'says lead' }, say(first!.image?.kind === 'board' ? 'embeddingTextBoard' : first!.image ? 'embeddingTextImage' : first!.sound ? 'embeddingTextSound' : 'embeddingText', { width })), ...shown.map((i) => positions(app, i, space)));
}

function layerPicker(app: App): HTMLElement {
  const select = h('select', { 'aria-label': say('layer'), id: 'layer' }, ...app.stack.layers.map((layer, i) => h('option', { value: i }, layer.name)));
  select.addEventListener('change', () => app.set({ layer: Number(select.value) }));
  const step = (by: number, sign: string, name: string): HTMLElement => h('button', { type: 'button', 'aria-label': name, onclick: () => app.set({ layer: app.state.layer + by }) }, sign);
  const parts = app.stack.layers.some((layer) => layer.cross_attention) ? (['attention', 'cross_attention'] as const).map((part) => h('button', { type: 'button', class: 'part', onclick: () => app.set({ part }) }, say(part === 'attention' ? 'attention' : 'crossAttention'))) : [];
  const paint = (): void => {
    select.value = String(app.state.layer);
    parts.forEach((button, i) => button.setAttribute('aria-pressed', String((i === 1) === (app.state.part === 'cross_attention'))));
  };
  app.on(['layer', 'part'], paint);
  paint();
  const stacks = app.trace.stacks.length > 1 ? app.trace.stacks.map((stack, i) => h('button', { type: 'button', class: 'part', 'aria-pressed': String(i === app.state.stack), onclick: () => app.set({ stack: i, part: 'attention' }) }, stack.name)) : [];
  return h('div', { class: 'picker buttons' }, ...stacks, h('span', { class: 'layer-step' }, step(-1, '←', `${say('before')} ${say('layer')}`), h('label', {}, `${say('layer')} `, select), step(1, '→', `${say('after')} ${say('layer')}`)), ...parts);
}

function attentionPart(app: App, space: number): HTMLElement {
  const inner = space - 34;
  const wide = space >= 1000;
  const double = app.state.other !== null;
  const matrix = wide ? (double ? 400 : 470) : Math.min(520, inner);
  const side = wide ? inner - (double ? 2 * matrix + 16 : matrix) - 32 : inner;
  const words = h('p', { class: 'says' });
  const group = h('p', { class: 'soft' });
  const symbols = h('div');
  const paint = (): void => {
    const attention = app.attention;
    if (!attention) return;
    words.textContent = say(app.state.part !== 'cross_attention' ? 'attentionText' : app.keyStack.sound ? 'crossTextSound' : 'crossText');
    const { num_heads: N, num_key_heads: K, head_width: width } = attention;
    group.hidden = N === K;
    group.textContent = say('groupText', { heads: N, keys: K });
    symbols.replaceChildren(formula(`head_{n} = softmax(\\q{Q}_{n}\\k{K}^{⊤} · \\s{s} + \\m{M}) \\v{V},  \\q{Q} ∈ ℝ^{${N} × T × ${width}},  \\k{K}, \\v{V} ∈ ℝ^{${K} × S × ${width}}`));
  };
  app.on(['layer', 'part'], paint);
  paint();
  const picture = app.stack.image ? headPictures(app) : null;
  return h(
    'section', { class: 'card', id: 'part-attention' }, h('h3', {}, say('attention')), words, symbols, group, picture ?? headButtons(app), soundHeads(app, inner), switches(app),
    h('div', { class: 'attention-grid' }, h('div', { class: 'left' }, stepper(app), matrices(app, matrix)), h('div', { class: 'right' }, headWords(app), reading(app), byHand(app, Math.max(240, Math.min(side, 560))), mixture(app, Math.max(240, Math.min(side, 560))))),
  );
}

export function attentionChapter(app: App, space: number): HTMLElement | null {
  if (!app.stack.layers.length) return null;
  const section = chapter(4, '');
  const title = section.querySelector('h2')!;
  const name = h('span');
  title.append(name);
  const words = h('p', { class: 'says lead' });
  const paint = (): void => {
    name.textContent = (app.trace.stacks.length > 1 ? `${app.stack.name}: ` : '') + say('block', { layer: app.layer.name });
    words.textContent = say(app.layer.order === 'post' ? 'blockTextPost' : 'blockText');
  };
  app.on(['layer'], paint);
  paint();
  section.append(words, layerPicker(app), h('div', { class: 'card' }, wiring(app, space - 34)), attentionPart(app, space), feedForward(app, space - 34));
  const patch = patching(app);
  if (patch) section.append(patch);
  return section;
}

export function lensChapter(app: App): HTMLElement | null {
  const content = lens(app);
  return content && chapter(5, say('lens'), h('p', { class: 'says lead' }, say('lensText')), h('div', { class: 'card' }, formula('softmax(norm(\\x{x}_{l}) W_{vocabulary}) ∈ ℝ^{T × V}'), content));
}
