/** Reads the trace from the page and builds everything around it. */
import { App } from './app.ts';
import { Arrays, decodeBase64 } from './arrays.ts';
import { h, line } from './dom.ts';
import { attentionChapter, positionsChapter, lensChapter } from './chapters.ts';
import { header } from './parts/header.ts';
import { hero } from './hero.ts';
import { headFacts } from './math.ts';
import type { Attention, Header } from './types.ts';
import { FORMATS, valueOf } from './values.ts';
import { largest } from './weights.ts';
import { say, speak } from './words/index.ts';

function remembered(name: string): string | null {
  try {
    return window.localStorage.getItem(`explainer-${name}`);
  } catch {
    return null;
  }
}

function read(): App | string {
  const text = (id: string): string => document.getElementById(id)?.textContent ?? '';
  const trace = JSON.parse(text('trace')) as Header;
  if (trace.format !== 1) return say('newer', { format: String(trace.format) });
  const arrays = new Arrays(trace.arrays, decodeBase64(text('arrays')));
  const stacks = trace.traces[0]!.stacks;
  const last = stacks[stacks.length - 1]!;
  const dark = remembered('theme') ?? (window.matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light');
  const masked = trace.traces[0]!.output;
  const token = masked.kind === 'masked_tokens' ? (masked.positions[0] ?? 0) : last.image ? 0 : stacks[0]!.sound ? Math.floor(last.tokens.length / 2) : Math.max(0, last.tokens.length - 1);
  const language = remembered('language') ?? (navigator.language.toLowerCase().startsWith('zh') ? 'zh' : 'en');
  const layer = Math.floor((last.layers.length - 1) / 2);
  // Of speech, what the chosen token hears says more than what it was written after.
  const part = stacks[0]!.sound && last.layers[layer]?.cross_attention ? 'cross_attention' : 'attention';
  const attention = last.layers[layer]?.[part];
  const head = tellingHead(attention, arrays);
  return new App(trace, arrays, {
    source: attention ? largest(arrays.slice(attention.weights, head, token), 1)[0]! : 0,
    theme: dark === 'dark' ? 'dark' : 'light', language: language === 'zh' ? 'zh' : 'en', token,
    layer, head, part, other: trace.traces.length > 1 ? 1 : null,
  });
}

/** The head of a layer that looks at few tokens, and not only at the first: the best one to begin with. */
function tellingHead(attention: Attention | null | undefined, arrays: Arrays): number {
  if (!attention) return 0;
  const [N, T, S] = arrays.shape(attention.weights) as [number, number, number];
  let best = 0, least = Infinity;
  for (let head = 0; head < N; head++) {
    const { entropy, first } = headFacts(arrays.slice(attention.weights, head), T, S);
    const score = entropy / Math.log(S + 1) + 0.8 * first;
    if (score < least) [best, least] = [head, score];
  }
  return best;
}

/** The first screen; the chapters under it come at once, or after the browser has shown the first. */
function build(app: App, atOnce: boolean, done: () => void): void {
  const place = window.scrollY;
  const focused = document.activeElement?.id;
  app.forget();
  speak(app.state.language);
  const root = document.documentElement;
  root.lang = app.state.language;
  root.dataset['theme'] = app.state.theme;
  document.title = `${line(app.header.title)} · ${say('pageTitle')}`;
  const main = h('main', { id: 'model' });
  document.querySelectorAll('body > .page').forEach((element) => element.remove());
  document.body.append(h('div', { class: 'page' }, h('a', { class: 'skip', href: '#model' }, say('skip')), header(app), main));
  const space = main.clientWidth;
  main.append(hero(app, space));
  const rest = (): void => {
    if (!main.isConnected) return done();
    for (const chapter of [positionsChapter, attentionChapter, lensChapter]) {
      const element = chapter(app, space);
      if (element) main.append(element);
    }
    return done();
  };
  if (!atOnce) {
    requestAnimationFrame(() => window.setTimeout(rest));
    return;
  }
  rest();
  window.scrollTo(0, place);
  if (focused) document.getElementById(focused)?.focus();
}

function watch(app: App): void {
  let width = document.documentElement.clientWidth;
  let timer = 0;
  window.addEventListener('resize', () => {
    if (document.documentElement.clientWidth === width) return;
    window.clearTimeout(timer);
    timer = window.setTimeout(() => { width = document.documentElement.clientWidth; app.rebuild(); }, 120);
  });
  // Where nothing has the focus, the arrows that do not scroll choose the layer.
  document.addEventListener('keydown', (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || event.target !== document.body || event.altKey || event.ctrlKey || event.metaKey) return;
    app.set({ layer: app.state.layer + by });
  });
  window.matchMedia('(prefers-color-scheme: dark)').addEventListener('change', (event) => { if (!remembered('theme')) app.set({ theme: event.matches ? 'dark' : 'light' }); });
}

function fail(message: string): void {
  document.querySelectorAll('body > .page').forEach((element) => element.remove());
  document.body.append(h('p', { class: 'failure', role: 'alert' }, message));
}

function start(): void {
  try {
    const app = read();
    if (typeof app === 'string') return fail(app);
    app.rebuild = () => build(app, true, () => {});
    build(app, false, () => offer(app));
    return watch(app);
  } catch (error) {
    return fail(say('damaged', { why: error instanceof Error ? error.message : String(error) }));
  }
}

/** What tests and curious readers can ask. */
function offer(app: App): void {
  Object.defineProperty(window, 'explainer', {
    value: {
      format: app.header.format,
      value: (path: string, ...indices: number[]) => valueOf(app, path, ...indices),
      text: (format: keyof typeof FORMATS, value: number) => FORMATS[format](value),
      state: () => ({ ...app.state }),
      set: (change: Parameters<App['set']>[0]) => { app.set(change); app.flush(); },
    },
  });
}

start();
