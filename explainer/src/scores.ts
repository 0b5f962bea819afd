/** The four steps of attention as matrices of one head. */
import type { Arrays } from './arrays.ts';
import { dot, visible } from './math.ts';
import type { Attention, Stack } from './types.ts';
import { headWeights } from './weights.ts';

export interface Steps {
  T: number;
  S: number;
  /** Query times key, before scaling; null where the file has neither vectors nor scores they follow from. */
  products: Float32Array | null;
  /** What softmax sees, but for the mask. */
  scores: Float32Array | null;
  visible: Uint8Array;
  weights: Float32Array;
}

export function groupOf(attention: Attention, head: number): number {
  return Math.floor((head * attention.num_key_heads) / attention.num_heads);
}

export function queryVector(arrays: Arrays, attention: Attention, head: number, row: number): Float32Array | null {
  return attention.query ? arrays.slice(attention.query, head, row) : null;
}

export function keyVector(arrays: Arrays, attention: Attention, head: number, column: number): Float32Array | null {
  return attention.key ? arrays.slice(attention.key, groupOf(attention, head), column) : null;
}

export function valueVector(arrays: Arrays, attention: Attention, head: number, column: number): Float32Array | null {
  return attention.value ? arrays.slice(attention.value, groupOf(attention, head), column) : null;
}

/** Whether the scores hold a bias of the position: those of a stack's own attention do, those of its cross-attention never. */
function biased(attention: Attention, stack: Stack): boolean {
  return Boolean(stack.positions.bias) && stack.layers.some((layer) => layer.attention === attention);
}

function products(arrays: Arrays, attention: Attention, stack: Stack, head: number, T: number, S: number): Float32Array | null {
  if (attention.query && attention.key) {
    const h = attention.head_width;
    const queries = arrays.slice(attention.query, head);
    const keys = arrays.slice(attention.key, groupOf(attention, head));
    const result = new Float32Array(T * S);
    for (let t = 0; t < T; t++) {
      const query = queries.subarray(t * h, (t + 1) * h);
      for (let s = 0; s < S; s++) result[t * S + s] = dot(query, keys.subarray(s * h, (s + 1) * h));
    }
    return result;
  }
  // A cap or a bias stands between the products and the scores: dividing by the scale does not give them back.
  if (!attention.scores || attention.cap || biased(attention, stack)) return null;
  return arrays.slice(attention.scores, head).map((v) => v / attention.scale);
}

const known = new WeakMap<Attention, Map<number, Steps>>();

/** The steps of one head; `stack` is the one whose tokens are the queries. */
export function stepsOf(arrays: Arrays, attention: Attention, stack: Stack, head: number): Steps {
  let heads = known.get(attention);
  if (!heads) known.set(attention, (heads = new Map()));
  const found = heads.get(head);
  if (found) return found;
  const [, T, S] = arrays.shape(attention.weights) as [number, number, number];
  const given = attention.visible ? arrays.slice(attention.visible) : null;
  const seen = Uint8Array.from({ length: T * S }, (_, i) => {
    if (attention.visible === undefined) return visible(Math.floor(i / S), i % S, attention) ? 1 : 0;
    return !given || given[i]! > 0 ? 1 : 0;
  });
  const steps: Steps = {
    T, S, visible: seen, weights: headWeights(arrays, attention, head), products: products(arrays, attention, stack, head, T, S),
    scores: attention.scores ? arrays.slice(attention.scores, head) : null,
  };
  heads.set(head, steps);
  return steps;
}

/** The matrix of a step, where the file has it. */
export function matrixOf(steps: Steps, step: number): Float32Array | null {
  return [steps.products, steps.scores, steps.scores ?? steps.weights, steps.weights][step] ?? null;
}
