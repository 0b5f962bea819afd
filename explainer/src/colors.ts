/** The colours of the style sheet, for canvases. */

export type Rgb = [number, number, number];
export type Ramp = Uint8ClampedArray;

export interface Palette {
  paper: Rgb; card: Rgb; ink: Rgb; soft: Rgb; line: Rgb;
  query: Rgb; key: Rgb; value: Rgb; attention: Rgb; hidden: Rgb; stream: Rgb; output: Rgb; place: Rgb;
  dark: boolean;
  /** 256 colours from nothing to one. */
  weights: Ramp;
  /** 256 colours from the most negative to the most positive. */
  signed: Ramp;
  /** The same for units of feed-forward parts. */
  units: Ramp;
}

function parse(text: string): Rgb {
  const value = parseInt(text.trim().replace('#', ''), 16);
  return [(value >> 16) & 255, (value >> 8) & 255, value & 255];
}

export function css(color: Rgb, alpha = 1): string {
  return `rgba(${color[0]},${color[1]},${color[2]},${alpha})`;
}

export function mix(a: Rgb, b: Rgb, t: number): Rgb {
  return [0, 1, 2].map((i) => Math.round(Math.sqrt(a[i]! ** 2 * (1 - t) + b[i]! ** 2 * t))) as Rgb;
}

function ramp(stops: Rgb[]): Ramp {
  const colors = new Uint8ClampedArray(256 * 3);
  for (let i = 0; i < 256; i++) {
    const at = (i / 255) * (stops.length - 1);
    const low = Math.min(stops.length - 2, Math.floor(at));
    colors.set(mix(stops[low]!, stops[low + 1]!, at - low), i * 3);
  }
  return colors;
}

export function palette(): Palette {
  const style = getComputedStyle(document.documentElement);
  const get = (name: string): Rgb => parse(style.getPropertyValue(`--${name}`) || '#888888');
  const dark = document.documentElement.dataset['theme'] === 'dark';
  const card = get('card'), attention = get('attention');
  return {
    paper: get('paper'), card, ink: get('ink'), soft: get('soft'), line: get('line'),
    query: get('query'), key: get('key'), value: get('value'), attention, hidden: get('hidden'), stream: get('stream'), output: get('output'), place: get('place'),
    dark,
    weights: ramp(dark ? [card, mix(card, attention, 0.45), attention, [240, 234, 255]] : [card, mix(card, attention, 0.4), attention, [40, 16, 92]]),
    units: ramp([get('key'), card, get('hidden'), mix(get('hidden'), dark ? [255, 255, 255] : [40, 20, 0], 0.35)].flatMap((color, i) => (i === 0 ? [color, mix(color, card, 0.5)] : [color]))),
    signed: ramp([mix(get('key'), dark ? [255, 255, 255] : [0, 0, 40], 0.25), get('key'), card, get('query'), mix(get('query'), dark ? [255, 255, 255] : [40, 0, 0], 0.25)]),
  };
}

/** Black or white, whichever is read better on `color` (WCAG 2, relative luminance). */
export function readable(color: Rgb): string {
  const [r, g, b] = color.map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4)) as Rgb;
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? '#000000' : '#ffffff';
}

/** The colour of `t` in 0..1. */
export function look(colors: Ramp, t: number): Rgb {
  const i = Math.round(Math.min(1, Math.max(0, t)) * 255) * 3;
  return [colors[i]!, colors[i + 1]!, colors[i + 2]!];
}

/** Draws a matrix as an image, one pixel per cell; `shade` gives 0..1 of a flat index, or NaN for none. */
export function bitmap(columns: number, rows: number, colors: Ramp, shade: (index: number) => number): HTMLCanvasElement {
  const canvas = document.createElement('canvas');
  canvas.width = Math.max(1, columns);
  canvas.height = Math.max(1, rows);
  const context = canvas.getContext('2d')!;
  const image = context.createImageData(canvas.width, canvas.height);
  for (let i = 0; i < columns * rows; i++) {
    const t = shade(i);
    if (Number.isNaN(t)) continue;
    const at = Math.round(Math.min(1, Math.max(0, t)) * 255) * 3;
    image.data[i * 4] = colors[at]!;
    image.data[i * 4 + 1] = colors[at + 1]!;
    image.data[i * 4 + 2] = colors[at + 2]!;
    image.data[i * 4 + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return canvas;
}
