/** Every number that is shown can be asked for: `window.explainer.value(path, ...indices)`. */
import type { App } from './app.ts';
import { h } from './dom.ts';

const superscript = (exponent: number): string => String(exponent).replace(/[-\d]/g, (c) => (c === '-' ? '⁻' : '⁰¹²³⁴⁵⁶⁷⁸⁹'[Number(c)]!));

function plain(value: number): string {
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e5 || size < 1e-3)) {
    const exponent = Math.floor(Math.log10(size));
    return `${(value / 10 ** exponent).toFixed(1)}·10${superscript(exponent)}`;
  }
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3);
}

export const FORMATS = {
  plain,
  signed: (value: number): string => (value < 0 ? '−' : '+') + plain(Math.abs(value)),
  percent: (value: number): string => value > 0 && value < 0.0005 ? '<0.1 %' : `${(100 * value).toFixed(value >= 0.0995 ? 0 : 1)} %`,
  fixed: (value: number): string => value.toFixed(2),
  whole: (value: number): string => value.toLocaleString('en-US', { maximumFractionDigits: 0 }),
};

export type Format = keyof typeof FORMATS;

/** A value of a trace, of the header, or one that the page derives. */
export function valueOf(app: App, path: string, ...indices: number[]): unknown {
  if (path.startsWith('derived.')) {
    const derive = app.derived.get(path.slice('derived.'.length));
    if (!derive) throw new Error(`there is no ${path} now`);
    return derive(...indices);
  }
  const parts = path.split('.');
  let arrays = app.arrays;
  let node: unknown = app.header;
  if (parts[0] === 'traces') {
    const loaded = app.loaded[Number(parts[1])];
    if (!loaded) throw new Error(`there is no trace ${parts[1]}`);
    arrays = loaded.arrays;
    node = loaded.trace;
    parts.splice(0, 2);
  }
  for (const part of parts) {
    if (typeof node !== 'object' || node === null || !Object.hasOwn(node, part)) throw new Error(`the trace has no ${path}`);
    node = (node as Record<string, unknown>)[part];
  }
  const last = parts[parts.length - 1] ?? '';
  if (LEAVES.has(last) && arrays.has(node)) {
    return indices.length === arrays.shape(node).length ? arrays.at(node, ...indices) : [...arrays.slice(node, ...indices)];
  }
  return indices.reduce<unknown>((list, index) => (list as unknown[])[index], node);
}

/** The fields of the header that name an array. */
const LEAVES = new Set(
  ('table angles bias token_norm position_norm residual_before residual_before_cross residual_middle residual_after ' +
    'attention_output cross_attention_output feed_forward_output norm ' +
    'weights scores query key value mixed_norm visible hidden units probabilities chosen ids logits rest log_sums start end vector').split(' '),
);

/** Shows a number, and writes beside it where it comes from. */
export function show(app: App, element: HTMLElement | SVGElement, format: Format, path: string, ...indices: number[]): void {
  element.dataset['path'] = path;
  element.dataset['at'] = indices.join(',');
  element.dataset['format'] = format;
  element.textContent = FORMATS[format](valueOf(app, path, ...indices) as number);
}

export function number(app: App, format: Format, path: string, ...indices: number[]): HTMLElement {
  const element = h('span', { class: 'number' });
  show(app, element, format, path, ...indices);
  return element;
}
