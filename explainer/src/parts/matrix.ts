/** The matrix of one head in four animated steps: products, scale, mask, softmax. */
import type { App } from '../app.ts';
import { css, look, palette, readable, type Palette } from '../colors.ts';
import { calm, clamp, fit, h, seen, Sheet } from '../dom.ts';
import { matrixOf, stepsOf, type Steps } from '../scores.ts';
import type { Attention } from '../types.ts';
import { say } from '../words/index.ts';

const STEP_NAMES = ['stepProducts', 'stepScale', 'stepMask', 'stepSoftmax'] as const;
const DURATION = 650;

/** One colour and one size for each cell. */
interface Field {
  colors: Uint8ClampedArray;
  sizes: Float32Array;
}

export function rangeOf(values: Float32Array): number {
  let most = 0;
  for (const v of values) if (Number.isFinite(v)) most = Math.max(most, Math.abs(v));
  return most || 1;
}

function fieldOf(steps: Steps, step: number, colors: Palette): Field {
  const count = steps.T * steps.S;
  const field = { colors: new Uint8ClampedArray(count * 3), sizes: new Float32Array(count) };
  const values = matrixOf(steps, step) ?? steps.weights;
  const softmax = step === 3 || values === steps.weights;
  const range = softmax ? 1 : rangeOf(values);
  for (let i = 0; i < count; i++) {
    const hidden = step >= 2 && !steps.visible[i];
    const value = values[i]!;
    const color = hidden ? colors.line : softmax ? look(colors.weights, Math.sqrt(value)) : look(colors.signed, 0.5 + value / (2 * range));
    field.colors.set(color, i * 3);
    field.sizes[i] = hidden ? 0.16 : step === 1 ? 0.86 : 1;
  }
  return field;
}

export class Matrix {
  readonly element: HTMLElement;
  private still = new Sheet('flow-still');
  private marks = new Sheet('flow-chosen');
  private steps: Steps | null = null;
  private shown: Field | null = null;
  private frame = 0;
  /** Width and height of a cell; of a recording, tokens of the transcript are wider than its moments. */
  private cell = 1;
  private row = 1;
  private left = 0;
  private top = 0;
  private colors = palette();

  constructor(
    private app: App,
    private index: () => number,
    private space: number,
  ) {
    this.element = h('div', { class: 'matrix flow', tabindex: 0, role: 'group' }, this.still.element, this.marks.element);
    this.listen();
  }

  private attention(): Attention | null {
    const { app } = this;
    const stack = app.loaded[this.index()]!.trace.stacks[app.state.stack];
    const layer = stack?.layers[app.state.layer];
    return layer?.[app.state.part] ?? layer?.attention ?? null;
  }

  private texts(which: 'rows' | 'columns'): string[] {
    const { app } = this;
    const { trace } = app.loaded[this.index()]!;
    const bridge = which === 'columns' && app.keyStack === app.trace.stacks[0] && app.state.part === 'cross_attention';
    return (bridge ? trace.stacks[0]! : trace.stacks[app.state.stack]!).tokens.map((token) => seen(token.text));
  }

  /** Another head or layer: everything anew, without a transition of the sizes. */
  update(animate: boolean): void {
    const attention = this.attention();
    this.element.hidden = !attention;
    if (!attention) return;
    const { arrays, trace } = this.app.loaded[this.index()]!;
    const steps = stepsOf(arrays, attention, trace.stacks[this.app.state.stack]!, Math.min(this.app.state.head, attention.num_heads - 1));
    const resized = !this.steps || this.steps.T !== steps.T || this.steps.S !== steps.S;
    this.steps = steps;
    if (resized) this.layOut();
    const field = fieldOf(steps, this.app.state.step, this.colors);
    if (animate && this.shown && !resized && !calm()) this.animate(this.shown, field);
    else this.paint(field);
    this.mark();
    return;
  }

  private layOut(): void {
    const { T, S } = this.steps!;
    const narrow = this.space < 420;
    const room = (labels: number): number => clamp((this.space - labels) / Math.max(T, S), 0.5, 64);
    const longest = (which: 'rows' | 'columns'): number => 22 + 7.4 * Math.max(...this.texts(which).map((text) => [...text].length));
    this.left = Math.min(narrow ? 52 : 84, longest('rows'));
    this.top = Math.min(narrow ? 44 : 62, longest('columns'));
    this.cell = this.row = room(this.left + 4);
    if (this.app.keyStack.sound && S > 2 * T) this.row = clamp(240 / T, this.cell, 22);
    const width = this.left + this.cell * S + 6, height = this.top + this.row * T + 6;
    for (const sheet of [this.still, this.marks]) sheet.resize(width, height);
    this.element.style.width = `${width}px`;
    this.element.style.height = `${height}px`;
    this.shown = null;
  }

  private animate(from: Field, to: Field): void {
    const { T, S } = this.steps!;
    const start = performance.now();
    const run = ++this.frame;
    const between: Field = { colors: new Uint8ClampedArray(to.colors.length), sizes: new Float32Array(to.sizes.length) };
    const tick = (now: number): void => {
      if (run !== this.frame) return;
      const time = (now - start) / DURATION;
      for (let i = 0; i < T * S; i++) {
        // A wave from the upper left corner.
        const delay = (0.5 * (Math.floor(i / S) / T + (i % S) / S)) * 0.5;
        const x = clamp((time - delay) / 0.5, 0, 1);
        const ease = x * x * (3 - 2 * x);
        for (let c = i * 3; c < i * 3 + 3; c++) between.colors[c] = from.colors[c]! + (to.colors[c]! - from.colors[c]!) * ease;
        between.sizes[i] = (from.sizes[i]! + (to.sizes[i]! - from.sizes[i]!) * ease) * (1 - 0.45 * Math.sin(Math.PI * ease));
      }
      if (time < 1) {
        this.paint(between, false);
        requestAnimationFrame(tick);
      } else this.paint(to);
    };
    this.shown = to;
    requestAnimationFrame(tick);
  }

  private paint(field: Field, last = true): void {
    const { T, S } = this.steps!;
    const { cell, row, left, top, colors } = this;
    if (last) {
      this.frame++;
      this.shown = field;
    }
    const context = this.still.clear();
    if (cell >= 6 && row === cell) {
      for (let i = 0; i < T * S; i++) {
        const size = (cell - Math.max(0.6, cell * 0.08)) * field.sizes[i]!;
        const x = left + (i % S) * cell + (cell - size) / 2, y = top + Math.floor(i / S) * cell + (cell - size) / 2;
        context.fillStyle = `rgb(${field.colors[i * 3]},${field.colors[i * 3 + 1]},${field.colors[i * 3 + 2]})`;
        // Rounded corners cost a path each; below ten points nobody sees them.
        if (cell < 10) context.fillRect(x, y, size, size);
        else {
          context.beginPath();
          context.roundRect(x, y, size, size, size * 0.24);
          context.fill();
        }
      }
    } else {
      const image = new ImageData(S, T);
      for (let i = 0; i < T * S; i++) {
        image.data.set([field.colors[i * 3]!, field.colors[i * 3 + 1]!, field.colors[i * 3 + 2]!, field.sizes[i]! < 0.4 ? 90 : 255], i * 4);
      }
      const canvas = document.createElement('canvas');
      canvas.width = S;
      canvas.height = T;
      canvas.getContext('2d')!.putImageData(image, 0, 0);
      context.imageSmoothingEnabled = false;
      context.drawImage(canvas, left, top, cell * S, row * T);
    }
    context.strokeStyle = css(colors.line);
    context.lineWidth = 1;
    context.strokeRect(left - 1.5, top - 1.5, cell * S + 3, row * T + 3);
    this.labels(context, null, null);
    if (cell >= 34 && row === cell && last) this.numbers(context, field);
  }

  private numbers(context: CanvasRenderingContext2D, field: Field): void {
    const { T, S, visible } = this.steps!;
    const values = matrixOf(this.steps!, this.app.state.step) ?? this.steps!.weights;
    context.font = `${Math.min(12, this.cell * 0.28)}px system-ui, sans-serif`;
    context.textAlign = 'center';
    context.textBaseline = 'middle';
    for (let i = 0; i < T * S; i++) {
      if (this.app.state.step >= 2 && !visible[i]) continue;
      context.fillStyle = readable([field.colors[i * 3]!, field.colors[i * 3 + 1]!, field.colors[i * 3 + 2]!]);
      const text = this.app.state.step === 3 ? values[i]!.toFixed(2) : values[i]!.toFixed(1);
      context.fillText(text, this.left + ((i % S) + 0.5) * this.cell, this.top + (Math.floor(i / S) + 0.5) * this.cell);
    }
  }

  private labels(context: CanvasRenderingContext2D, row: number | null, column: number | null): void {
    const { cell, left, top, colors } = this;
    const size = clamp(Math.max(cell, this.row) * 0.62, 9, 12.5);
    // Where cells are smaller than letters, every second, third, ... one has its label.
    const every = Math.ceil(9 / cell), everyRow = Math.ceil(9 / this.row);
    context.font = `${row === null ? 400 : 700} ${size}px ui-monospace, "SF Mono", Menlo, Consolas, monospace`;
    context.textBaseline = 'middle';
    context.textAlign = 'right';
    this.texts('rows').forEach((text, t) => {
      if (row === null ? t % everyRow : t !== row) return;
      context.fillStyle = css(row === null ? colors.soft : colors.query);
      context.fillText(fit(context, text, left - 12), left - 7, top + (t + 0.5) * this.row);
    });
    context.textAlign = 'left';
    this.texts('columns').forEach((text, s) => {
      if (column === null ? s % every : s !== column) return;
      context.save();
      context.translate(left + (s + 0.5) * cell, top - 7);
      context.rotate(-Math.PI / 2);
      context.fillStyle = css(column === null ? colors.soft : colors.key);
      context.fillText(fit(context, text, top - 12), 0, 0);
      context.restore();
    });
  }

  mark(): void {
    const { steps, cell, left, top, colors, app } = this;
    if (!steps || this.element.hidden) return;
    const context = this.marks.clear();
    const row = Math.min(app.token, steps.T - 1), column = Math.min(app.source, steps.S - 1);
    const high = this.row;
    const x = left + column * cell, y = top + row * high;
    context.fillStyle = css(colors.query, 0.08);
    context.fillRect(left, y, cell * steps.S, high);
    context.fillStyle = css(colors.key, 0.08);
    context.fillRect(x, top, cell, high * steps.T);
    context.lineWidth = 1.5;
    context.strokeStyle = css(colors.query, 0.85);
    context.strokeRect(left - 0.5, y - 0.5, cell * steps.S + 1, high + 1);
    context.strokeStyle = css(colors.key, 0.85);
    context.strokeRect(x - 0.5, top - 0.5, cell + 1, high * steps.T + 1);
    context.strokeStyle = css(colors.ink);
    context.lineWidth = 2.5;
    context.beginPath();
    context.roundRect(x - 1, y - 1, cell + 2, high + 2, 3);
    context.stroke();
    const size = clamp(Math.max(cell, high) * 0.62, 9, 12.5) + 5;
    context.fillStyle = css(colors.card);
    context.fillRect(0, y + high / 2 - size / 2, left - 3, size);
    context.fillRect(x + cell / 2 - size / 2, 0, size, top - 3);
    this.labels(context, row, column);
    this.describe(row, column);
  }

  private describe(row: number, column: number): void {
    const step = say(STEP_NAMES[this.app.state.step] ?? 'stepSoftmax');
    this.element.setAttribute('aria-label', say('matrixLabel', { step, query: this.texts('rows')[row] ?? '', key: this.texts('columns')[column] ?? '' }));
  }

  private listen(): void {
    const { app } = this;
    const under = (event: PointerEvent | MouseEvent): [number, number] | null => {
      const [x, y] = this.marks.place(event);
      const column = Math.floor((x - this.left) / this.cell), row = Math.floor((y - this.top) / this.row);
      return this.steps && column >= 0 && row >= 0 && column < this.steps.S && row < this.steps.T ? [row, column] : null;
    };
    this.marks.element.addEventListener('pointermove', (event) => {
      if (event.pointerType === 'touch') return;
      const cell = under(event);
      app.set({ hoverToken: cell?.[0] ?? null, hoverSource: cell?.[1] ?? null });
    });
    this.marks.element.addEventListener('pointerleave', () => app.set({ hoverToken: null, hoverSource: null }));
    this.marks.element.addEventListener('click', (event) => {
      const cell = under(event);
      if (cell) app.set({ token: cell[0], source: cell[1] });
    });
    this.element.addEventListener('keydown', (event) => {
      const { token, source } = app.state;
      const move = { ArrowUp: { token: token - 1 }, ArrowDown: { token: token + 1 }, ArrowLeft: { source: source - 1 }, ArrowRight: { source: source + 1 } }[event.key];
      if (!move) return;
      event.preventDefault();
      app.set(move);
    });
  }
}
