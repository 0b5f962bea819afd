/** Weights of heads, decoded once and kept while they are looked at. */
import type { Arrays } from './arrays.ts';
import { bitmap, type Palette } from './colors.ts';
import type { Attention } from './types.ts';

const means = new WeakMap<Attention, Float32Array>();
const heads = new WeakMap<Attention, Map<number, Float32Array>>();

/** [T, S] of one head, flat. */
export function headWeights(arrays: Arrays, attention: Attention, head: number): Float32Array {
  let known = heads.get(attention);
  if (!known) heads.set(attention, (known = new Map()));
  let weights = known.get(head);
  if (!weights) known.set(head, (weights = arrays.slice(attention.weights, head)));
  return weights;
}

/** [T, S], the mean over the heads, flat. */
export function meanWeights(arrays: Arrays, attention: Attention): Float32Array {
  let mean = means.get(attention);
  if (!mean) {
    const count = attention.num_heads;
    for (let head = 0; head < count; head++) {
      const weights = headWeights(arrays, attention, head);
      mean ??= new Float32Array(weights.length);
      for (let i = 0; i < weights.length; i++) mean[i]! += weights[i]! / count;
    }
    means.set(attention, (mean ??= new Float32Array(0)));
  }
  return mean;
}

/** One row of the weights. */
export function rowOf(weights: Float32Array, row: number, columns: number): Float32Array {
  return weights.subarray(row * columns, (row + 1) * columns);
}

/** The indices of the largest values, largest first. */
export function largest(values: ArrayLike<number>, count: number): number[] {
  const order: number[] = [];
  for (let i = 0; i < values.length; i++) {
    if (order.length === count && values[i]! <= values[order[count - 1]!]!) continue;
    let at = order.length;
    while (at > 0 && values[order[at - 1]!]! < values[i]!) at--;
    order.splice(at, 0, i);
    if (order.length > count) order.pop();
  }
  return order;
}

/** A small picture of a head; where there are more cells than pixels, the largest of each block. */
export function thumbnail(arrays: Arrays, attention: Attention, head: number, colors: Palette, size: number): HTMLCanvasElement {
  const [, T, S] = arrays.shape(attention.weights) as [number, number, number];
  const weights = headWeights(arrays, attention, head);
  const rows = Math.min(T, size), columns = Math.min(S, size);
  const best = new Float32Array(rows * columns);
  for (let t = 0; t < T; t++) {
    const to = Math.floor((t * rows) / T) * columns;
    for (let s = 0; s < S; s++) {
      const at = to + Math.floor((s * columns) / S);
      const weight = weights[t * S + s]!;
      if (weight > best[at]!) best[at] = weight;
    }
  }
  return bitmap(columns, rows, colors.weights, (i) => Math.sqrt(best[i]!));
}
