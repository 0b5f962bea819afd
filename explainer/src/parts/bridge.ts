/** Cross-attention as bands between the source above and the target below. */
import type { App } from '../app.ts';
import { css, palette } from '../colors.ts';
import { fit, h, seen, Sheet } from '../dom.ts';
import { headWeights, meanWeights } from '../weights.ts';
import { say } from '../words/index.ts';

const HEIGHT = 168;

export function bridge(app: App, space: number): HTMLElement {
  const source = app.trace.stacks[0]!.tokens, target = app.trace.stacks[1]!.tokens;
  const sheet = new Sheet('bridge', say('bridgeLabel'));
  sheet.resize(space, HEIGHT);
  const colors = palette();
  const text = h('p', { class: 'says' });
  const x = (i: number, count: number): number => 10 + ((space - 20) * (i + 0.5)) / count;
  const paint = (): void => {
    const onDecoder = app.state.stack === 1;
    const layers = app.trace.stacks[1]!.layers;
    const layer = layers[Math.min(app.state.layer, layers.length - 1)]!;
    const attention = layer.cross_attention;
    const chosen = onDecoder && app.state.part === 'cross_attention';
    text.textContent = say('bridgeText', { layer: layer.name, head: chosen ? `${say('head')} ${app.state.head}` : say('onlyShown') });
    const context = sheet.clear();
    if (!attention) return;
    const weights = chosen ? headWeights(app.arrays, attention, app.state.head) : meanWeights(app.arrays, attention);
    const focus = onDecoder ? app.token : -1;
    const band = Math.min(26, (space - 20) / Math.max(source.length, target.length) * 0.8);
    const draw = (t: number, strong: boolean): void => {
      for (let s = 0; s < source.length; s++) {
        const weight = weights[t * source.length + s]!;
        if (weight < 0.02) continue;
        context.strokeStyle = css(colors.attention, strong ? 0.25 + 0.7 * weight : 0.04 + 0.3 * weight);
        context.lineWidth = Math.max(0.6, band * weight);
        context.beginPath();
        context.moveTo(x(s, source.length), 30);
        context.bezierCurveTo(x(s, source.length), HEIGHT / 2, x(t, target.length), HEIGHT / 2, x(t, target.length), HEIGHT - 30);
        context.stroke();
      }
    };
    for (let t = 0; t < target.length; t++) if (t !== focus) draw(t, false);
    if (focus >= 0) draw(focus, true);
    context.font = '12.5px ui-monospace, "SF Mono", Menlo, Consolas, monospace';
    context.textAlign = 'center';
    context.textBaseline = 'middle';
    source.forEach((token, s) => {
      const lit = focus >= 0 ? weights[focus * source.length + s]! : 0;
      context.fillStyle = css(lit > 0.15 ? colors.attention : colors.soft);
      context.fillText(fit(context, seen(token.text), (space - 20) / source.length - 3), x(s, source.length), 16);
    });
    target.forEach((token, t) => {
      context.fillStyle = css(t === focus ? colors.query : colors.soft);
      context.fillText(fit(context, seen(token.text), (space - 20) / target.length - 3), x(t, target.length), HEIGHT - 16);
    });
  };
  const under = (event: PointerEvent | MouseEvent): number => Math.min(target.length - 1, Math.max(0, Math.floor(((sheet.place(event)[0] - 10) / (space - 20)) * target.length)));
  sheet.element.addEventListener('pointermove', (event) => { if (event.pointerType !== 'touch' && app.state.stack === 1) app.set({ hoverToken: under(event) }); });
  sheet.element.addEventListener('pointerleave', () => app.set({ hoverToken: null }));
  sheet.element.addEventListener('click', (event) => app.set({ stack: 1, token: under(event), part: 'cross_attention' }));
  app.on(['token', 'hoverToken', 'layer', 'head', 'part'], paint, sheet.element);
  paint();
  return h('div', { class: 'bridge-box' }, h('h3', {}, say('bridge')), text, sheet.element);
}
