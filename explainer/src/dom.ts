/** Elements without markup: text is always a text node, styles are set through the CSSOM. */

type Child = Node | string | null | undefined | false;
type Attributes = Record<string, string | number | boolean | null | undefined | ((event: Event) => void)>;

const SVG = 'http://www.w3.org/2000/svg';

function fill(element: Element, attributes: Attributes, children: Child[]): void {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === 'function') element.addEventListener(name.replace(/^on/, ''), value);
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  for (const child of children) if (child) element.append(child);
}

export function h<K extends keyof HTMLElementTagNameMap>(tag: K, attributes: Attributes = {}, ...children: Child[]): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  fill(element, attributes, children);
  return element;
}

export function svg<K extends keyof SVGElementTagNameMap>(tag: K, attributes: Attributes = {}, ...children: Child[]): SVGElementTagNameMap[K] {
  const element = document.createElementNS(SVG, tag);
  fill(element, attributes, children);
  return element;
}

/** A canvas with its own pixels per point; `paint` gets a cleared context in points. */
export class Sheet {
  readonly element: HTMLCanvasElement;
  readonly context: CanvasRenderingContext2D;
  width = 0;
  height = 0;

  constructor(className: string, label: string | null = null) {
    this.element = h('canvas', label === null ? { class: className, 'aria-hidden': 'true' } : { class: className, role: 'img', 'aria-label': label });
    this.context = this.element.getContext('2d')!;
  }

  resize(width: number, height: number): void {
    const ratio = Math.min(3, window.devicePixelRatio || 1);
    this.width = width;
    this.height = height;
    const w = Math.round(width * ratio), t = Math.round(height * ratio);
    if (this.element.width !== w) this.element.width = w;
    if (this.element.height !== t) this.element.height = t;
    this.element.style.width = `${width}px`;
    this.element.style.height = `${height}px`;
  }

  clear(): CanvasRenderingContext2D {
    const ratio = this.element.width / (this.width || 1);
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.context.clearRect(0, 0, this.width, this.height);
    return this.context;
  }

  /** The place of a pointer, in points from the upper left corner. */
  place(event: { clientX: number; clientY: number }): [number, number] {
    const box = this.element.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }
}

const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g;

/** A text of the file for a line of the page: what would turn the letters that follow around is replaced. */
export function line(text: string): string {
  return text.replace(CONTROL, '\ufffd');
}

/** A token's text with what would be invisible made visible. Data: never markup. */
export function seen(text: string): string {
  if (text === '') return '∅';
  return text.replace(/\n/g, '↵').replace(/\t/g, '⇥').replace(/^ +| +$/g, (spaces) => '·'.repeat(spaces.length)).replace(CONTROL, '�');
}

/** The longest beginning of `text` that fits, with a sign where it was cut. */
export function fit(context: CanvasRenderingContext2D, text: string, width: number): string {
  if (context.measureText(text).width <= width) return text;
  const letters = [...text].slice(0, 60);
  while (letters.length > 1 && context.measureText(letters.join('') + '…').width > width) letters.pop();
  return letters.join('') + '…';
}

export function calm(): boolean {
  return window.matchMedia('(prefers-reduced-motion: reduce)').matches;
}

export const clamp = (value: number, low: number, high: number): number => Math.min(high, Math.max(low, value));
