/** The first screen: the tokens, the whole model in one picture, and what comes out. */
import type { App } from './app.ts';
import { h } from './dom.ts';
import { bridge } from './parts/bridge.ts';
import { flow } from './parts/flow.ts';
import { live } from './parts/live.ts';
import { output } from './parts/output.ts';
import { pictureChooser } from './parts/picture.ts';
import { rail } from './parts/rail.ts';
import { ctcRows, soundBridge, soundChooser } from './parts/sound.ts';
import { tokenRow } from './parts/tokens.ts';
import { say } from './words/index.ts';

export function chapter(number: number, title: string, ...content: (Node | null)[]): HTMLElement {
  return h('section', { class: 'chapter' }, h('h2', {}, h('span', { class: 'count', 'aria-hidden': 'true' }, String(number)), title), ...content);
}

function tokens(app: App, space: number): HTMLElement {
  const { stacks } = app.trace;
  const { image, sound } = stacks[0]!;
  const chooser = (i: number): HTMLElement => (stacks[i]!.image ? pictureChooser(app, i, Math.min(300, space)) : stacks[i]!.sound ? soundChooser(app, i, space) : tokenRow(app, i));
  const rows = stacks.map((stack, i) => h('div', { class: 'stack-tokens' }, stacks.length > 1 ? h('h3', { class: 'stack-name' }, stack.name) : null, chooser(i)));
  const text = image?.kind === 'board' ? 'tokensTextBoard' : image ? 'tokensTextImage' : sound ? 'tokensTextSound' : 'tokensText';
  return h('div', { class: 'tokens' }, h('p', { class: 'says lead' }, say(text)), ...rows, live(app));
}

/** The page number of each station: tokens and layers in the first screen, then the chapters. */
export function hero(app: App, space: number): HTMLElement {
  const wide = space >= 1000;
  const room = (wide ? space - 356 : space) - 34;
  const { stacks } = app.trace;
  const model = h('div', { class: 'card model-picture' }, h('p', { class: 'says' }, say('flowText')));
  stacks.forEach((stack, i) => {
    if (i === 1 && stack.layers.some((layer) => layer.cross_attention)) model.append(stacks[0]!.sound ? soundBridge(app, room) : bridge(app, room));
    if (stacks.length > 1) model.append(h('h3', { class: 'stack-name' }, stack.name));
    model.append(flow(app, i, room), rail(app, i, room));
  });
  const ctc = ctcRows(app, room);
  if (ctc) model.append(ctc);
  model.append(h('p', { class: 'caption' }, [say('rail'), ...(app.state.other === null ? [] : [say('railChange')]), say('railKeys')].join(' ')));
  return h('div', { class: 'hero' }, chapter(1, say('tokens'), tokens(app, space)), chapter(2, say('flow'), h('div', { class: 'split' }, model, h('div', { class: 'side' }, output(app)))));
}
