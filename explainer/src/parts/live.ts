/** Only when the page is served: other prompts, one token more, heads off, patches. */
import type { Ablation, App, Loaded } from '../app.ts';
import { Arrays, decodeBase64 } from '../arrays.ts';
import { h, line } from '../dom.ts';
import { draw } from '../math.ts';
import type { Header, Trace } from '../types.ts';
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
  append: number[] | null;
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

/** What the page asks for next. With something switched off or patched the answer has the clean run too. */
class Session {
  patch: Patch | null = null;
  /** Tokens that were drawn after the prompt, as ids: joined as text they might be cut otherwise. */
  drawn: number[] = [];
  message: (text: string) => void = () => {};
  private readonly first: [string, string | null];
  private running = false;
  private again = false;
  /** What the last answer was for: a request that fails changes nothing. */
  private good: { prompt: string; target: string | null; patch: Patch | null; drawn: number[]; off: Ablation[] } | null = null;

  constructor(
    private app: App,
    public prompt: string,
    public target: string | null,
  ) {
    this.first = [prompt, target];
  }

  async run(): Promise<void> {
    if (this.running) {
      this.again = true;
      return;
    }
    this.running = true;
    this.app.set({ busy: true });
    this.message(say('running'));
    try {
      // What is asked for: all of it may change while the model runs.
      const { prompt, target, patch } = this;
      const { off } = this.app.state;
      const drawn = [...this.drawn];
      this.show(await ask({ prompt, target, ablate: off, patch, append: drawn.length ? drawn : null }));
      this.good = { prompt, target, patch, drawn, off };
      this.message('');
    } catch (error) {
      this.message(error instanceof Error ? error.message : say('failed'));
      const { off, ...rest } = this.good ?? { prompt: this.first[0], target: this.first[1], patch: null, drawn: [], off: [] };
      Object.assign(this, { ...rest, drawn: [...rest.drawn] });
      this.app.set({ off });
    }
    this.running = false;
    this.app.set({ busy: false });
    if (this.again) {
      this.again = false;
      await this.run();
    }
  }

  /** Keeps the chosen token where the text is as long as before; else the last one is chosen. */
  private show(runs: Loaded[]): void {
    const { app } = this;
    const length = (loaded: Loaded): number => loaded.trace.stacks[loaded.trace.stacks.length - 1]!.tokens.length;
    const stays = length(app.loaded[0]!) === length(runs[0]!);
    const changed = runs.findIndex(({ trace }) => (trace.edits ?? []).length > 0);
    app.loaded.splice(0, app.loaded.length, ...runs);
    const last = runs[0]!.trace.stacks.length - 1;
    // Indices may point outside the new runs: `set` brings them back.
    Object.assign(app.state, { trace: 0, other: null, hoverToken: null, hoverSource: null });
    app.set({ other: changed > 0 ? changed : runs.length > 1 ? 1 : null, ...(stays ? {} : { stack: last, token: length(runs[0]!) - 1 }) });
    app.rebuild();
  }

  /** Appends the token that the sliders draw at the last position. */
  async append(): Promise<void> {
    const { app } = this;
    const { output, stacks } = app.loaded[0]!.trace;
    if (output.kind !== 'next_token') return;
    const last = stacks[stacks.length - 1]!.tokens.length - 1;
    const { probabilities } = sampled(app.loaded[0]!, last, app.state);
    // Tokens that are not listed cannot be drawn: their share goes to the others.
    const index = draw(probabilities, Math.random() * probabilities.reduce((a, b) => a + b, 0));
    this.drawn.push(app.loaded[0]!.arrays.at(output.ids, last, Math.min(index, probabilities.length - 1)));
    await this.run();
  }

  begin(prompt: string, target: string | null): void {
    Object.assign(this, { prompt, target, drawn: [], patch: null });
    void this.run();
  }
}

let session: Session | null = null;

/** The target that the next requests send: one that the model wrote is not held, so that each prompt gets its own. */
export function givenTarget(header: Header, trace: Trace): string | null {
  return header.family === 'encoder-decoder' && (trace.written ?? true) ? null : (trace.target ?? null);
}

function sessionOf(app: App): Session {
  if (!session) {
    session = new Session(app, app.trace.prompt, givenTarget(app.header, app.trace));
  }
  return session;
}

const same = (a: Ablation, b: Ablation): boolean => a.stack === b.stack && a.layer === b.layer && a.head === b.head && a.part === b.part;

/** Switches a head or a part of a layer off, or on again, and runs the model. */
export function toggle(app: App, off: Ablation): void {
  const rest = app.state.off.filter((other) => !same(other, off));
  app.set({ off: rest.length < app.state.off.length ? rest : [...rest, off] });
  void sessionOf(app).run();
}

function promptForm(app: App): HTMLElement {
  const current = sessionOf(app);
  const prompt = h('textarea', { id: 'prompt', rows: 2, maxlength: 20000, spellcheck: 'false' });
  prompt.value = current.prompt;
  // Where nothing is typed the model writes the target: what it wrote stands there as a hint.
  const target = h('textarea', { id: 'target', rows: 2, maxlength: 20000, spellcheck: 'false', placeholder: current.target === null ? line(app.trace.target ?? '') : null });
  target.value = current.target ?? '';
  const state = h('p', { class: 'state', role: 'status' });
  current.message = (text) => { state.textContent = text; };
  // The target of an encoder-decoder; for encoders the second of a pair, or the context of a question.
  const two = app.trace.stacks.length > 1 || typeof app.trace.target === 'string';
  const run = (): void => current.begin(prompt.value, two && target.value ? target.value : null);
  const form = h('form', { class: 'live' }, h('label', { for: 'prompt' }, say('prompt')), prompt);
  if (two) form.append(h('label', { for: 'target' }, say('target')), target);
  form.append(h('div', { class: 'buttons' }, h('button', { type: 'submit' }, say('run')), app.trace.output.kind === 'next_token' ? h('button', { type: 'button', onclick: () => void current.append() }, say('step')) : null, state));
  form.addEventListener('submit', (event) => { event.preventDefault(); run(); });
  prompt.addEventListener('keydown', (event) => { if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) run(); });
  return form;
}

/** Whether the prompt is a file, which a page cannot choose. */
function readsFile(app: App): boolean {
  return app.header.family === 'image' || Boolean(app.trace.stacks[0]!.sound);
}

export function live(app: App): HTMLElement | null {
  return app.header.live && !readsFile(app) ? promptForm(app) : null;
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
    if (off.length) box.append(h('button', { type: 'button', class: 'quiet', onclick: () => { app.set({ off: [] }); void sessionOf(app).run(); } }, say('allOn')));
  };
  app.on(['layer', 'head', 'part', 'off'], paint);
  paint();
  return box;
}

const PATCHED = ['residual_before', 'attention_output', 'residual_middle', 'feed_forward_output', 'residual_after'];

/** Takes one vector from the run of another prompt. */
export function patching(app: App): HTMLElement | null {
  if (!app.header.live || readsFile(app)) return null;
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
    void current.run();
  };
  const remove = (): void => {
    current.patch = null;
    void current.run();
  };
  return h('details', { class: 'card patch' }, h('summary', {}, say('patch')), text, prompt, h('div', { class: 'buttons' }, part, h('button', { type: 'button', onclick: apply }, say('patchDo')), h('button', { type: 'button', class: 'quiet', onclick: remove }, say('reset'))));
}
