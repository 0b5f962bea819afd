/** The parts of a layer on its stream, in the order that this model has. */
import type { App } from '../app.ts';
import { calm, clamp, h, svg } from '../dom.ts';
import type { Layer, NormName } from '../types.ts';
import { show } from '../values.ts';
import { say } from '../words/index.ts';

interface Branch {
  name: string;
  kind: 'attention' | 'cross' | 'hidden';
  goal: string;
  output: NormName;
  /** The stream after this branch. */
  after: NormName;
}

function branches(layer: Layer): Branch[] {
  const list: Branch[] = [];
  if (layer.attention) list.push({ name: say('attention'), kind: 'attention', goal: 'part-attention', output: 'attention_output', after: layer.cross_attention ? 'residual_before_cross' : 'residual_middle' });
  if (layer.cross_attention) list.push({ name: say('crossAttention'), kind: 'cross', goal: 'part-attention', output: 'cross_attention_output', after: 'residual_middle' });
  if (layer.feed_forward || layer.router) list.push({ name: say(layer.router ? 'experts' : 'feedForward'), kind: 'hidden', goal: 'part-feed-forward', output: 'feed_forward_output', after: 'residual_after' });
  return list;
}

const STREAM = 46;
const FLOOR = 124;

function box(x: number, y: number, width: number, height: number, kind: string, text: string): SVGGElement {
  return svg('g', { class: `box ${kind}` }, svg('rect', { x: x - width / 2, y: y - height / 2, width, height, rx: 9 }), svg('text', { x, y: y + 4.5, 'text-anchor': 'middle' }, text));
}

function plus(x: number, y: number): SVGGElement {
  return svg('g', {}, svg('circle', { cx: x, cy: y, r: 14, class: 'sum' }), svg('path', { d: `M${x - 6} ${y} h12 M${x} ${y - 6} v12`, class: 'plus' }));
}

function wire(path: string, kind: string): SVGPathElement {
  return svg('path', { d: path, class: `wire ${kind}`, 'marker-end': 'url(#tip)' });
}

type Picture = SVGSVGElement;

interface Drawing {
  app: App;
  layer: Layer;
  list: Branch[];
  /** Half the thickness of the stream before the first branch and after each. */
  halves: number[];
  value: (x: number, y: number, name: NormName, kind: string) => void;
  press: (part: SVGGElement, branch: Branch) => SVGGElement;
}

/** On wide screens the stream runs from left to right. */
function across({ layer, list, halves, value, press }: Drawing, picture: Picture, space: number): void {
  const start = 76, step = (space - 152) / Math.max(1, list.length);
  const edges = [0, ...list.map((_, i) => start + (i + 1) * step - 44), space];
  let upper = '', lower = '';
  halves.forEach((w, i) => {
    const from = edges[i]! + (i ? 14 : 0), to = edges[i + 1]! - (i < halves.length - 1 ? 14 : 0);
    upper += `${i ? 'L' : 'M'}${from} ${STREAM - w} L${to} ${STREAM - w} `;
    lower = `L${to} ${STREAM + w} L${from} ${STREAM + w} ${lower}`;
  });
  picture.append(svg('path', { d: `${upper}${lower}Z`, class: 'stream' }));
  value(38, STREAM - 22, 'residual_before', '');
  list.forEach((branch, i) => {
    const sum = edges[i + 1]!, tap = start + i * step + 16;
    const before = layer.order !== 'post', after = layer.order === 'both';
    const w = clamp(step * 0.36, 84, 140);
    const spot = (start + i * step + sum) / 2 + (before ? 22 : 0) - (after ? 20 : 0);
    picture.append(wire(`M${tap} ${STREAM + halves[i]! + 2} L${tap} ${FLOOR - 14} Q${tap} ${FLOOR} ${tap + 12} ${FLOOR} L${spot - w / 2 - 3} ${FLOOR}`, ''));
    picture.append(wire(`M${spot + w / 2} ${FLOOR} L${sum - 12} ${FLOOR} Q${sum} ${FLOOR} ${sum} ${FLOOR - 12} L${sum} ${STREAM + 16}`, branch.kind));
    if (before) picture.append(box((tap + spot - w / 2) / 2, FLOOR, 48, 26, 'norm', say('norm')));
    if (after) picture.append(box((spot + w / 2 + sum) / 2, FLOOR, 48, 26, 'norm', say('norm')));
    if (layer.order === 'post') picture.append(box(sum + 46, STREAM, 46, 26, 'norm', say('norm')));
    picture.append(press(box(spot, FLOOR, w, 38, branch.kind, branch.name), branch), plus(sum, STREAM));
    value(sum - 26, FLOOR - 26, branch.output, branch.kind);
    value(i === list.length - 1 ? space - 38 : sum + 8, STREAM - 22, branch.after, '');
  });
}

/** On narrow screens it runs down. */
function down({ layer, list, halves, value, press }: Drawing, picture: Picture, space: number): void {
  const x = 62, step = 104, top = 18;
  const edges = [0, ...list.map((_, i) => top + (i + 1) * step - 14), top + list.length * step + 34];
  let left = '', right = '';
  halves.forEach((w, i) => {
    left += `${i ? 'L' : 'M'}${x - w} ${edges[i]!} L${x - w} ${edges[i + 1]!} `;
    right = `L${x + w} ${edges[i + 1]!} L${x + w} ${edges[i]!} ${right}`;
  });
  picture.append(svg('path', { d: `${left}${right}Z`, class: 'stream' }));
  value(22, 16, 'residual_before', '');
  list.forEach((branch, i) => {
    const tap = top + i * step + 4, sum = edges[i + 1]!, w = Math.min(150, space - 190), spot = space - w / 2 - 8;
    picture.append(wire(`M${x + halves[i]! + 2} ${tap} L${spot - 12} ${tap} Q${spot} ${tap} ${spot} ${tap + 10} L${spot} ${tap + 17}`, ''));
    picture.append(wire(`M${spot} ${tap + 58} L${spot} ${sum - 12} Q${spot} ${sum} ${spot - 12} ${sum} L${x + 17} ${sum}`, branch.kind));
    if (layer.order !== 'post') picture.append(box((x + spot) / 2, tap, 48, 24, 'norm', say('norm')));
    if (layer.order === 'both') picture.append(box((x + spot) / 2 + 20, sum, 48, 24, 'norm', say('norm')));
    if (layer.order === 'post') picture.append(box(x, sum + 27, 48, 22, 'norm', say('norm')));
    picture.append(press(box(spot, tap + 39, w, 38, branch.kind, branch.name), branch), plus(x, sum));
    value(x + 44, sum - 9, branch.output, branch.kind);
    value(22, sum + 32, branch.after, '');
  });
}

export function wiring(app: App, space: number): HTMLElement {
  const narrow = space < 620;
  const element = h('div', { class: 'wiring' });
  const paint = (): void => {
    const { layer } = app;
    const list = branches(layer);
    const height = narrow ? 52 + 104 * list.length : FLOOR + 36;
    const picture = svg('svg', { width: space, height, viewBox: `0 0 ${space} ${height}`, role: 'group', 'aria-label': say('wiringLabel') });
    picture.append(svg('defs', {}, svg('marker', { id: 'tip', viewBox: '0 0 8 8', refX: 6, refY: 4, markerWidth: 10, markerHeight: 10, markerUnits: 'userSpaceOnUse', orient: 'auto' }, svg('path', { d: 'M0 0 L8 4 L0 8 z', class: 'tip' }))));
    const length = (name: NormName): number | null => (layer.norms[name] ? app.arrays.at(layer.norms[name]!, app.token) : null);
    const lengths = [length('residual_before'), ...list.map((branch) => length(branch.after))];
    const most = Math.max(...lengths.map((v) => v ?? 0)) || 1;
    const value = (x: number, y: number, name: NormName, kind: string): void => {
      if (!layer.norms[name]) return;
      const text = svg('text', { x, y, 'text-anchor': 'middle', class: `value ${kind}` });
      show(app, text, 'plain', app.layerPath('norms', name), app.token);
      picture.append(text);
    };
    const press = (part: SVGGElement, branch: Branch): SVGGElement => {
      part.addEventListener('click', () => {
        if (branch.kind !== 'hidden') app.set({ part: branch.kind === 'cross' ? 'cross_attention' : 'attention' });
        document.getElementById(branch.goal)?.scrollIntoView({ behavior: calm() ? 'auto' : 'smooth', block: 'start' });
      });
      return part;
    };
    (narrow ? down : across)({ app, layer, list, halves: lengths.map((v) => 3 + 10 * ((v ?? most * 0.5) / most)), value, press }, picture, space);
    element.replaceChildren(picture);
  };
  app.on(['token', 'hoverToken', 'layer'], paint, element);
  paint();
  return element;
}
