/** Only when the page is served: other prompts, one token more, heads off, patches. */
import type { Ablation, App, Loaded } from '../app.ts';
import { Arrays, decodeBase64 } from '../arrays.ts';
import { h } from '../dom.ts';
import { draw } from '../math.ts';
import type { Header } from '../types.ts';
import { say } from '../words/index.ts';
import { outputPosition, sampled } from './output.ts';

interface Patch {
  prompt: string;
  stack: number;
  layer: number;
  part: string;
  position: number;
}

interface Request {
  prompt: string;
  target: string | null;
  ablate: Ablation[];
  patch: Patch | null;
  append: number | null;
}

async function ask(request: Request): Promise<Loaded[]> {
  const address = new URL('trace', window.location.href);
  address.search = window.location.search;
  const response = await fetch(address, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(request) });
  const answer = (await response.json()) as { header?: Header; arrays?: string; error?: string };
  if (answer.error || !answer.header || typeof answer.arrays !== 'string') throw new Error(answer.error ?? say('failed'));
  const arrays = new Arrays(answer.header.arrays, decodeBase64(answer.arrays));
  return answer.header.traces.map((trace) => ({ trace, arrays }));
}

/** What the page asks for next; every request is answered beside the clean run of the same prompt. */
class Session {
  patch: Patch | null = null;
  private running = false;
  private again = false;
  message: (text: string) => void = () => {};
  /** Runs of other models, or of the same one at other steps, that the file began with. */
  private readonly others: number;

  constructor(
    private app: App,
    public prompt: string,
    public target: string | null,
  ) {
    this.others = app.loaded.length - 1;
  }

  /** Runs the prompt clean, and once more with what is switched off or patched. */
  async run(append: number | null = null, clean = true): Promise<void> {
    if (this.running) {
      this.again = true;
      return;
    }
    this.running = true;
    this.message(say('running'));
    this.app.set({ busy: true });
    try {
      const { app } = this;
      const base = { prompt: this.prompt, target: this.target, append };
      const runs = clean ? await ask({ ...base, ablate: [], patch: null }) : app.loaded.slice(0, this.others + 1);
      if (append !== null) [this.prompt, this.target] = [runs[0]!.trace.prompt, runs[0]!.trace.target ?? this.target];
      const changed = app.state.off.length || this.patch ? await ask({ ...base, prompt: this.prompt, target: this.target, append: null, ablate: app.state.off, patch: this.patch }) : [];
      const beside = changed[0] ? { ...changed[0], trace: { ...changed[0].trace, label: say('changed') } } : null;
      app.loaded.splice(0, app.loaded.length, ...runs, ...(beside ? [beside] : []));
      const last = runs[0]!.trace.stacks[runs[0]!.trace.stacks.length - 1]!;
      const stays = !clean || app.state.token < last.tokens.length - (append === null ? 0 : 1);
      app.state.other = null;
      app.set({ trace: 0, token: stays && append === null ? app.state.token : last.tokens.length - 1, hoverToken: null, hoverSource: null });
      app.state.other = beside ? app.loaded.length - 1 : null;
      this.message('');
      app.rebuild();
    } catch (error) {
      this.message(error instanceof Error ? error.message : say('failed'));
    }
    this.running = false;
    this.app.set({ busy: false });
    if (this.again) {
      this.again = false;
      await this.run(null, false);
    }
  }

  /** Appends the token that the sliders draw at the last position. */
  async append(): Promise<void> {
    const { app } = this;
    const output = app.trace.output;
    if (output.kind !== 'next_token') return;
    const last = app.trace.stacks[app.trace.stacks.length - 1]!.tokens.length - 1;
    const { probabilities } = sampled(app.loaded[app.state.trace]!, last, app.state);
    const index = draw(probabilities, Math.random() * probabilities.reduce((a, b) => a + b, 0));
    await this.run(app.arrays.at(output.ids, last, Math.min(index, probabilities.length - 1)));
  }
}

let session: Session | null = null;

function sessionOf(app: App): Session {
  if (!session) {
    session = new Session(app, app.trace.prompt, app.trace.target ?? null);
  }
  return session;
}

const same = (a: Ablation, b: Ablation): boolean => a.stack === b.stack && a.layer === b.layer && a.head === b.head && a.part === b.part;

/** Switches a head or a part of a layer off, or on again, and runs the model. */
export function toggle(app: App, off: Ablation): void {
  const rest = app.state.off.filter((other) => !same(other, off));
  app.set({ off: rest.length < app.state.off.length ? rest : [...rest, off] });
  void sessionOf(app).run(null, false);
}

function promptForm(app: App): HTMLElement {
  const current = sessionOf(app);
  const prompt = h('textarea', { id: 'prompt', rows: 2, maxlength: 20000, spellcheck: 'false' });
  prompt.value = current.prompt;
  const target = h('textarea', { id: 'target', rows: 2, maxlength: 20000, spellcheck: 'false' });
  target.value = current.target ?? '';
  const state = h('p', { class: 'state', role: 'status' });
  current.message = (text) => { state.textContent = text; };
  const run = (): void => {
    current.prompt = prompt.value;
    current.target = app.trace.stacks.length > 1 && target.value ? target.value : null;
    void current.run();
  };
  const form = h('form', { class: 'live' }, h('label', { for: 'prompt' }, say('prompt')), prompt);
  if (app.trace.stacks.length > 1) form.append(h('label', { for: 'target' }, say('target')), target);
  form.append(h('div', { class: 'buttons' }, h('button', { type: 'submit' }, say('run')), app.trace.output.kind === 'next_token' ? h('button', { type: 'button', onclick: () => void current.append() }, say('step')) : null, state));
  form.addEventListener('submit', (event) => { event.preventDefault(); run(); });
  prompt.addEventListener('keydown', (event) => { if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) run(); });
  return form;
}

export function live(app: App): HTMLElement | null {
  return app.header.live && app.header.family !== 'image' ? promptForm(app) : null;
}

/** The switches of the chosen head and layer. */
export function switches(app: App): HTMLElement | null {
  if (!app.header.live) return null;
  const box = h('div', { class: 'switches buttons' });
  const paint = (): void => {
    const { stack, layer, head, part, off } = app.state;
    const one = (item: Ablation, name: string): HTMLElement => {
      const isOff = off.some((other) => same(other, item));
      return h('button', { type: 'button', class: isOff ? 'off' : null, 'aria-pressed': String(isOff), onclick: () => toggle(app, item) }, name);
    };
    const isOff = off.some((other) => same(other, { stack, layer, head, part }));
    box.replaceChildren(one({ stack, layer, head, part }, say(isOff ? 'switchOn' : 'switchOff')), h('span', { class: 'soft' }, `${say('switchLayer')}:`));
    if (app.layer.attention) box.append(one({ stack, layer, head: null, part: 'attention' }, say('attention')));
    if (app.layer.cross_attention) box.append(one({ stack, layer, head: null, part: 'cross_attention' }, say('crossAttention')));
    if (app.layer.feed_forward || app.layer.router) box.append(one({ stack, layer, head: null, part: 'feed_forward' }, say(app.layer.router ? 'experts' : 'feedForward')));
    if (off.length) box.append(h('button', { type: 'button', class: 'quiet', onclick: () => { app.set({ off: [] }); void sessionOf(app).run(null, false); } }, say('allOn')));
  };
  app.on(['layer', 'head', 'part', 'off'], paint);
  paint();
  return box;
}

const PATCHED = ['residual_before', 'attention/output', 'residual_middle', 'feed_forward/output', 'residual_after'];

/** Takes one vector from the run of another prompt. */
export function patching(app: App): HTMLElement | null {
  if (!app.header.live || app.header.family === 'image') return null;
  const current = sessionOf(app);
  const prompt = h('textarea', { id: 'patch', rows: 1, maxlength: 20000, 'aria-label': say('patch') });
  prompt.value = current.patch?.prompt ?? '';
  const part = h('select', { 'aria-label': say('patch') }, ...PATCHED.map((name) => h('option', { value: name }, name)));
  const text = h('p', { class: 'says' });
  const paint = (): void => { text.textContent = say('patchText', { part: part.value, layer: app.layer.name }); };
  part.addEventListener('change', paint);
  app.on(['layer'], paint);
  paint();
  const apply = (): void => {
    current.patch = prompt.value ? { prompt: prompt.value, stack: app.state.stack, layer: app.state.layer, part: part.value, position: app.state.stack === app.trace.stacks.length - 1 ? outputPosition(app) : app.token } : null;
    void current.run(null, false);
  };
  const remove = (): void => {
    current.patch = null;
    void current.run(null, false);
  };
  return h('details', { class: 'card patch' }, h('summary', {}, say('patch')), text, prompt, h('div', { class: 'buttons' }, part, h('button', { type: 'button', onclick: apply }, say('patchDo')), h('button', { type: 'button', class: 'quiet', onclick: remove }, say('reset'))));
}
