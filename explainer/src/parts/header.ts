/** The head of the page: what model this is, which trace, which language, which light. */
import { traceName, type App } from '../app.ts';
import { h, line } from '../dom.ts';
import { number } from '../values.ts';
import { named, phrase, say } from '../words/index.ts';

function remember(name: string, value: string): void {
  try {
    window.localStorage.setItem(`explainer-${name}`, value);
  } catch {
    // A page that is opened from the disk may have no storage; then nothing is remembered.
  }
}

function traceSelect(app: App, name: string, value: number | null, none: boolean, choose: (index: number | null) => void): HTMLElement {
  const select = h('select', { 'aria-label': name });
  if (none) select.append(h('option', { value: '' }, say('nothing')));
  app.loaded.forEach(({ trace }, i) => select.append(h('option', { value: i }, traceName(trace))));
  select.value = value === null ? '' : String(value);
  select.addEventListener('change', () => choose(select.value === '' ? null : Number(select.value)));
  return h('label', { class: 'trace-select' }, h('span', {}, name), select);
}

export function header(app: App): HTMLElement {
  const { model, title, notes } = app.header;
  const facts = h('dl', { class: 'model' });
  const add = (name: string, ...value: (Node | string)[]): void => facts.append(h('div', {}, h('dt', {}, name), h('dd', {}, ...value)));
  add(say('parameters'), number(app, 'whole', 'model.num_parameters'));
  if (model.vocab_size) add(say('vocabulary'), number(app, 'whole', 'model.vocab_size'));
  for (const [name, value] of model.words) if (!['parameters', 'vocabulary'].includes(name)) add(line(named(name)), line(phrase(value)));
  const language = h('button', { type: 'button', id: 'language', lang: app.state.language === 'en' ? 'zh' : 'en', 'aria-label': say('languageLabel'), onclick: () => { const next = app.state.language === 'en' ? 'zh' : 'en'; remember('language', next); app.set({ language: next }); } }, say('language'));
  const theme = h('button', { type: 'button', id: 'theme', title: say('theme'), onclick: () => { const next = app.state.theme === 'dark' ? 'light' : 'dark'; remember('theme', next); app.set({ theme: next }); } }, say(app.state.theme === 'dark' ? 'light' : 'dark'));
  const choice = app.loaded.length > 1 ? h('div', { class: 'traces' }, traceSelect(app, say('shown'), app.state.trace, false, (i) => app.set({ trace: i ?? 0 })), traceSelect(app, say('compare'), app.state.other, true, (i) => app.set({ other: i }))) : null;
  const edits = app.loaded.flatMap(({ trace }) => trace.edits ?? []);
  return h(
    'header', { class: 'page-header' },
    h('div', { class: 'bar' }, h('p', { class: 'eyebrow' }, say('pageTitle')), h('div', { class: 'buttons' }, language, theme)),
    h('h1', {}, h('bdi', {}, line(title))), h('p', { class: 'family' }, `${line(model.name)} · ${app.header.family}`), facts, choice,
    edits.length ? h('ul', { class: 'notes edits' }, ...edits.map((edit) => h('li', {}, h('bdi', {}, line(edit))))) : null,
    notes.length ? h('ul', { class: 'notes', 'aria-label': say('notes') }, ...notes.map((note) => h('li', {}, h('bdi', {}, line(phrase(note)))))) : null,
  );
}
