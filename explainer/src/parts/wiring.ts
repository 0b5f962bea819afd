/** The parts of a layer on its stream, in the order that this model has. */
import type { App } from '../app.ts';
import { clamp, h, svg } from '../dom.ts';
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

function wire(path: string, kind: string): SVGPathElement {
  return svg('path', { d: path, class: `wire ${kind}`, 'marker-end': 'url(#tip)' });
}

export function wiring(app: App, space: number): HTMLElement {
  const narrow = space < 560;
  const element = h('div', { class: 'wiring' });
  const paint = (): void => {
    const { layer } = app;
    const list = branches(layer);
    const picture = svg('svg', { width: space, height: FLOOR + 36, viewBox: `0 0 ${space} ${FLOOR + 36}`, role: 'group', 'aria-label': say('wiringLabel') });
    picture.append(svg('defs', {}, svg('marker', { id: 'tip', viewBox: '0 0 8 8', refX: 6, refY: 4, markerWidth: 7, markerHeight: 7, orient: 'auto' }, svg('path', { d: 'M0 0 L8 4 L0 8 z', class: 'tip' }))));
    const start = narrow ? 26 : 76, end = space - (narrow ? 26 : 76);
    const step = (end - start) / Math.max(1, list.length);
    const length = (name: NormName): number | null => (layer.norms[name] ? app.arrays.at(layer.norms[name]!, app.token) : null);
    const lengths = [length('residual_before'), ...list.map((branch) => length(branch.after))];
    const most = Math.max(...lengths.map((v) => v ?? 0)) || 1;
    const half = (value: number | null): number => 3 + 10 * ((value ?? most * 0.5) / most);
    const edges = [0, ...list.map((_, i) => start + (i + 1) * step - (narrow ? 20 : 44)), space];
    let upper = '', lower = '';
    for (let i = 0; i < lengths.length; i++) {
      const w = half(lengths[i]!);
      const from = edges[i]!, to = edges[i + 1]!;
      upper += `${i ? 'L' : 'M'}${from + (i ? 14 : 0)} ${STREAM - w} L${to - (i < lengths.length - 1 ? 14 : 0)} ${STREAM - w} `;
      lower = `L${to - (i < lengths.length - 1 ? 14 : 0)} ${STREAM + w} L${from + (i ? 14 : 0)} ${STREAM + w} ` + lower;
    }
    picture.append(svg('path', { d: `${upper}${lower}Z`, class: 'stream' }));
    const value = (x: number, y: number, name: NormName, kind: string): void => {
      if (!layer.norms[name]) return;
      const text = svg('text', { x, y, 'text-anchor': 'middle', class: `value ${kind}` });
      show(app, text, 'plain', app.layerPath('norms', name), app.token);
      picture.append(text);
    };
    value(narrow ? 22 : 38, STREAM - 22, 'residual_before', '');
    list.forEach((branch, i) => {
      const left = start + i * step, sum = edges[i + 1]!;
      const before = layer.order !== 'post', after = layer.order === 'both';
      const tap = left + (narrow ? 4 : 16);
      const w = narrow ? clamp(step - 66, 40, 74) : clamp(step * 0.36, 84, 140);
      const spot = (left + sum) / 2 + (narrow ? 2 : before ? 22 : 0) - (after && !narrow ? 20 : 0);
      const top = STREAM + half(lengths[i]!) + 2;
      picture.append(wire(`M${tap} ${top} L${tap} ${FLOOR - 14} Q${tap} ${FLOOR} ${tap + 12} ${FLOOR} L${spot - w / 2 - 3} ${FLOOR}`, ''));
      picture.append(wire(`M${spot + w / 2} ${FLOOR} L${sum - 12} ${FLOOR} Q${sum} ${FLOOR} ${sum} ${FLOOR - 12} L${sum} ${STREAM + 16}`, branch.kind));
      if (before) picture.append(narrow ? box(tap, STREAM + 52, 30, 20, 'norm', say('norm')) : box((tap + spot - w / 2) / 2, FLOOR, 48, 26, 'norm', say('norm')));
      if (after) picture.append(narrow ? box(sum, STREAM + 52, 30, 20, 'norm', say('norm')) : box((spot + w / 2 + sum) / 2, FLOOR, 48, 26, 'norm', say('norm')));
      if (layer.order === 'post') picture.append(box(sum + (narrow ? 26 : 46), STREAM, narrow ? 30 : 46, 26, 'norm', say('norm')));
      const part = box(spot, FLOOR, w, 38, branch.kind, narrow ? branch.name.slice(0, 9) : branch.name);
      part.addEventListener('click', () => {
        if (branch.kind !== 'hidden') app.set({ part: branch.kind === 'cross' ? 'cross_attention' : 'attention' });
        document.getElementById(branch.goal)?.scrollIntoView({ behavior: 'smooth', block: 'start' });
      });
      picture.append(part);
      picture.append(svg('circle', { cx: sum, cy: STREAM, r: 14, class: 'sum' }), svg('path', { d: `M${sum - 6} ${STREAM} h12 M${sum} ${STREAM - 6} v12`, class: 'plus' }));
      value(sum - (narrow ? 18 : 26), FLOOR - 26, branch.output, branch.kind);
      value(i === list.length - 1 ? space - (narrow ? 22 : 38) : sum + (narrow ? 0 : 8), STREAM - 22, branch.after, '');
    });
    element.replaceChildren(picture);
  };
  app.on(['token', 'hoverToken', 'layer'], paint);
  paint();
  return element;
}
