import { en, type WordKey } from './en.ts';
import { zh } from './zh.ts';
import { h } from '../dom.ts';
import { inChinese } from './phrases.ts';

export type { WordKey };
export type Language = 'en' | 'zh';

let language: Language = 'en';

export function speak(next: Language): void {
  language = next;
}

/** A text of the page; `{name}` is replaced by data, which stays text. */
export function say(key: WordKey, data: Record<string, string | number> = {}): string {
  return (language === 'zh' ? zh : en)[key].replace(/\{(\w+)\}/g, (whole, name: string) => (name in data ? String(data[name]) : whole));
}

/** Names of facts that the page knows are said in its language; others stay as they are. */
export function named(name: string): string {
  return language === 'zh' && Object.hasOwn(FACTS, name) ? FACTS[name]! : name;
}

/** A sentence of the file, said in the page's language where the page knows it. */
export function phrase(text: string): string {
  return language === 'zh' ? inChinese(text) : text;
}

const FACTS: Record<string, string> = {
  layers: '层', heads: '头', width: '宽度', 'feed-forward width': '前馈宽度', context: '上下文', positions: '位置', norm: '归一化', image: '图像', patch: '方块',
  patches: '方块', experts: '专家', window: '窗口', 'keys shared by': '共用键的', classes: '类别', 'key heads': '键的头', 'key and value heads': '键和值的头',
};

const PIECE = /\\(\w+)\{([^}]*)\}|\^\{([^}]*)\}|_\{([^}]*)\}|([^\\^_]+)/g;

/** A formula from our own notation: `\q{Q}` is a coloured symbol, `^{..}` raises, `_{..}` lowers. */
export function formula(text: string): HTMLElement {
  const element = h('p', { class: 'formula' });
  for (const [, kind, symbol, above, below, plain] of text.matchAll(PIECE)) {
    if (kind) element.append(h('var', { class: kind }, symbol));
    else if (above) element.append(h('sup', {}, above));
    else if (below) element.append(h('sub', {}, below));
    else if (plain) element.append(plain);
  }
  return element;
}
