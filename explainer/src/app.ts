/** What is looked at, and who wants to know when that changes. */
import { Arrays } from './arrays.ts';
import { line } from './dom.ts';
import type { Attention, AttentionPart, Header, Layer, Stack, Trace } from './types.ts';

export interface Loaded {
  trace: Trace;
  arrays: Arrays;
}

export interface Ablation {
  stack: number;
  layer: number;
  head: number | null;
  part: AttentionPart | 'feed_forward';
}

export interface State {
  trace: number;
  /** A second trace beside the first, or null. */
  other: number | null;
  stack: number;
  layer: number;
  head: number;
  part: AttentionPart;
  /** The query: which token reads. */
  token: number;
  /** The key: which token is read. */
  source: number;
  hoverToken: number | null;
  hoverSource: number | null;
  step: number;
  temperature: number;
  topK: number;
  topP: number;
  language: 'en' | 'zh';
  theme: 'light' | 'dark';
  off: Ablation[];
  busy: boolean;
}

export type Key = keyof State;

interface Listener {
  keys: Set<Key>;
  run: () => void;
  /** Where it draws; a pointer that moves elsewhere does not make it draw while it is out of sight. */
  place: Element | undefined;
  stale: boolean;
}

/** What a trace is called: its label, and what was changed in it. */
export function traceName(trace: Trace): string {
  return line([trace.label, ...(trace.edits ?? [])].join(' \u2014 '));
}

export class App {
  readonly loaded: Loaded[];
  state: State;
  readonly derived = new Map<string, (...indices: number[]) => number>();
  private listeners: Listener[] = [];
  private near = new WeakMap<Element, boolean>();
  private observer: IntersectionObserver | null = null;
  private changed = new Set<Key>();
  private waiting = false;
  rebuild: () => void = () => {};

  constructor(
    readonly header: Header,
    arrays: Arrays,
    state: Partial<State>,
  ) {
    this.loaded = header.traces.map((trace) => ({ trace, arrays }));
    this.state = {
      trace: 0, other: null, stack: header.traces[0]!.stacks.length - 1, layer: 0, head: 0, part: 'attention', token: 0, source: 0,
      hoverToken: null, hoverSource: null, step: 3, temperature: 1, topK: 0, topP: 1, language: 'en', theme: 'light', off: [], busy: false, ...state,
    };
  }

  get arrays(): Arrays {
    return this.loaded[this.state.trace]!.arrays;
  }

  get trace(): Trace {
    return this.loaded[this.state.trace]!.trace;
  }

  get stack(): Stack {
    return this.trace.stacks[this.state.stack]!;
  }

  get layer(): Layer {
    return this.stack.layers[this.state.layer]!;
  }

  /** The chosen attention; of a layer without cross-attention its own. */
  get attention(): Attention | null {
    return this.layer[this.state.part] ?? this.layer.attention;
  }

  /** The stack whose tokens are the keys of the chosen attention. */
  get keyStack(): Stack {
    return this.state.part === 'cross_attention' && this.layer.cross_attention ? this.trace.stacks[0]! : this.stack;
  }

  /** The query that is shown: the one under the pointer, else the chosen one. */
  get token(): number {
    return this.state.hoverToken ?? this.state.token;
  }

  get source(): number {
    return this.state.hoverSource ?? this.state.source;
  }

  path(...parts: (string | number)[]): string {
    return ['traces', this.state.trace, ...parts].join('.');
  }

  layerPath(...parts: (string | number)[]): string {
    return this.path('stacks', this.state.stack, 'layers', this.state.layer, ...parts);
  }

  attentionPath(name: string): string {
    return this.layerPath(this.layer[this.state.part] ? this.state.part : 'attention', name);
  }

  on(keys: Key[], run: () => void, place?: Element): void {
    this.listeners.push({ keys: new Set(keys), run, place, stale: false });
    if (!place) return;
    this.observer ??= new IntersectionObserver((entries) => this.see(entries), { rootMargin: '120px' });
    this.observer.observe(place);
  }

  private see(entries: IntersectionObserverEntry[]): void {
    for (const { target, isIntersecting } of entries) {
      this.near.set(target, isIntersecting);
      if (!isIntersecting) continue;
      for (const listener of this.listeners) if (listener.place === target && listener.stale) { listener.stale = false; listener.run(); }
    }
  }

  forget(): void {
    this.listeners = [];
    this.observer?.disconnect();
    this.observer = null;
    this.derived.clear();
  }

  set(change: Partial<State>): void {
    const next = this.settle({ ...this.state, ...change });
    for (const key of Object.keys(next) as Key[]) if (next[key] !== this.state[key]) this.changed.add(key);
    this.state = next;
    if (this.changed.size && !this.waiting) {
      this.waiting = true;
      requestAnimationFrame(() => this.flush());
    }
  }

  flush(): void {
    this.waiting = false;
    const changed = this.changed;
    this.changed = new Set();
    if (['trace', 'other', 'stack', 'language', 'theme'].some((key) => changed.has(key as Key))) return this.rebuild();
    const hovering = [...changed].every((key) => key === 'hoverToken' || key === 'hoverSource');
    for (const listener of [...this.listeners]) {
      if (![...changed].some((key) => listener.keys.has(key))) continue;
      listener.stale = hovering && listener.place !== undefined && this.near.get(listener.place) === false;
      if (!listener.stale) listener.run();
    }
    return;
  }

  /** Keeps every index inside what it points into. */
  private settle(next: State): State {
    const inside = (value: number, length: number): number => Math.max(0, Math.min(length - 1, value));
    next.trace = inside(next.trace, this.loaded.length);
    if (next.other !== null && (next.other === next.trace || next.other >= this.loaded.length)) next.other = null;
    const trace = this.loaded[next.trace]!.trace;
    next.stack = inside(next.stack, trace.stacks.length);
    const stack = trace.stacks[next.stack]!;
    next.layer = inside(next.layer, stack.layers.length);
    const layer = stack.layers[next.layer];
    if (!layer?.[next.part]) next.part = layer?.attention ? 'attention' : next.part;
    next.head = inside(next.head, layer?.[next.part]?.num_heads ?? 1);
    next.token = inside(next.token, stack.tokens.length);
    const keys = next.part === 'cross_attention' ? trace.stacks[0]! : stack;
    next.source = inside(next.source, keys.tokens.length);
    if (next.hoverToken !== null && next.hoverToken >= stack.tokens.length) next.hoverToken = null;
    if (next.hoverSource !== null && next.hoverSource >= keys.tokens.length) next.hoverSource = null;
    return next;
  }
}
