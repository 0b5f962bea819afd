/** The picture of an image model, lit where a token looks. */
import type { App } from '../app.ts';
import { css, palette } from '../colors.ts';
import { h, Sheet } from '../dom.ts';
import type { Stack } from '../types.ts';
import { headWeights, rowOf } from '../weights.ts';
import { say } from '../words/index.ts';
import { tokenRow } from './tokens.ts';

const loaded = new Map<string, HTMLImageElement>();

/** Only pictures that lie in the file itself are shown. */
export function withPicture(png: string, then: (image: HTMLImageElement) => void): void {
  if (!/^data:image\/png;base64,[A-Za-z0-9+/=]+$/.test(png)) return;
  const known = loaded.get(png);
  if (known?.complete) return then(known);
  const image = known ?? new Image();
  image.addEventListener('load', () => then(image));
  if (!known) {
    loaded.set(png, image);
    image.src = png;
  }
  return;
}

/** The token of each square, row by row. */
export function patchTokens(stack: Stack): number[] {
  return stack.tokens.flatMap((token, i) => (token.kind === 'patch' ? [i] : []));
}

export interface Light {
  /** One share per token, or null for the plain picture. */
  shares: Float32Array | null;
  chosen: number;
}

export function paintPicture(sheet: Sheet, stack: Stack, light: Light, grid: boolean): void {
  const picture = stack.image!;
  const patches = patchTokens(stack);
  const colors = palette();
  withPicture(picture.png, (image) => {
    const context = sheet.clear();
    const { width, height } = sheet;
    context.drawImage(image, 0, 0, width, height);
    const cw = width / picture.columns, ch = height / picture.rows;
    if (light.shares) {
      let largest = 1e-9;
      for (const token of patches) largest = Math.max(largest, light.shares[token] ?? 0);
      patches.forEach((token, i) => {
        const lit = Math.sqrt((light.shares![token] ?? 0) / largest);
        context.fillStyle = `rgba(12,10,24,${0.76 * (1 - lit)})`;
        context.fillRect((i % picture.columns) * cw, Math.floor(i / picture.columns) * ch, cw + 0.4, ch + 0.4);
      });
    }
    if (grid) {
      context.strokeStyle = 'rgba(255,255,255,.16)';
      context.lineWidth = 1;
      context.beginPath();
      for (let c = 1; c < picture.columns; c++) { context.moveTo(c * cw, 0); context.lineTo(c * cw, height); }
      for (let r = 1; r < picture.rows; r++) { context.moveTo(0, r * ch); context.lineTo(width, r * ch); }
      context.stroke();
    }
    const at = patches.indexOf(light.chosen);
    if (at >= 0) {
      context.strokeStyle = css(colors.query);
      context.lineWidth = Math.max(2, width / 110);
      context.strokeRect((at % picture.columns) * cw, Math.floor(at / picture.columns) * ch, cw, ch);
    }
  });
}

function shares(app: App, head: number): Float32Array | null {
  const attention = app.attention;
  return attention ? rowOf(headWeights(app.arrays, attention, head), app.token, app.stack.tokens.length) : null;
}

/** The picture to choose a square from, with the other tokens beside it. */
export function pictureChooser(app: App, index: number, size: number): HTMLElement {
  const stack = app.trace.stacks[index]!;
  const picture = stack.image!;
  const patches = patchTokens(stack);
  const sheet = new Sheet('picture', say('imageLabel', { head: app.state.head, token: stack.tokens[app.token]?.text ?? '' }));
  const box = h('div', { class: 'chooser', tabindex: 0, role: 'group', 'aria-label': say('tokensLabel', { name: stack.name }) }, sheet.element);
  sheet.resize(size, (size * picture.height) / picture.width);
  const under = (event: PointerEvent | MouseEvent): number | undefined => {
    const [x, y] = sheet.place(event);
    const column = Math.floor((x / sheet.width) * picture.columns), row = Math.floor((y / sheet.height) * picture.rows);
    return patches[Math.min(picture.rows - 1, Math.max(0, row)) * picture.columns + Math.min(picture.columns - 1, Math.max(0, column))];
  };
  sheet.element.addEventListener('pointermove', (event) => { if (event.pointerType !== 'touch') app.set({ hoverToken: under(event) ?? null }); });
  sheet.element.addEventListener('pointerleave', () => app.set({ hoverToken: null }));
  sheet.element.addEventListener('click', (event) => app.set({ token: under(event) ?? app.state.token }));
  box.addEventListener('keydown', (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -picture.columns, ArrowDown: picture.columns }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = patches[Math.max(0, patches.indexOf(app.state.token)) + step];
    if (next !== undefined) app.set({ token: next });
  });
  const paint = (): void => {
    paintPicture(sheet, stack, { shares: shares(app, app.state.head), chosen: app.token }, true);
    sheet.element.setAttribute('aria-label', say('imageLabel', { head: app.state.head, token: stack.tokens[app.token]?.text ?? '' }));
  };
  app.on(['token', 'hoverToken', 'layer', 'head', 'part'], paint, box);
  paint();
  const others = tokenRow(app, index, (kind) => kind !== 'patch');
  return h('div', { class: 'image-tokens' }, box, h('div', {}, others, headPictures(app)));
}

/** One picture for each head of the layer, as seen from the chosen token. */
export function headPictures(app: App): HTMLElement {
  const list = h('div', { class: 'head-pictures' });
  const build = (): void => {
    const attention = app.attention;
    const count = attention?.num_heads ?? 0;
    if (list.childElementCount !== count) {
      list.replaceChildren();
      for (let head = 0; head < count; head++) {
        const sheet = new Sheet('picture');
        sheet.resize(108, (108 * app.stack.image!.height) / app.stack.image!.width);
        sheets[head] = sheet;
        list.append(h('button', { type: 'button', class: 'head-picture', 'aria-label': `${say('head')} ${head}`, onclick: () => app.set({ head }) }, sheet.element, h('span', {}, `${say('head')} ${head}`)));
      }
    }
    for (let head = 0; head < count; head++) {
      paintPicture(sheets[head]!, app.stack, { shares: shares(app, head), chosen: app.token }, false);
      list.children[head]!.classList.toggle('chosen', head === app.state.head);
    }
  };
  const sheets: Sheet[] = [];
  app.on(['token', 'hoverToken', 'layer', 'head', 'part'], build, list);
  build();
  return h('div', {}, h('h4', {}, say('imageHeads')), list);
}
