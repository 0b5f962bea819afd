/** The arithmetic of the page: pure functions of arrays. */

export interface Sampling {
  temperature: number;
  /** 0 keeps all tokens. */
  topK: number;
  /** 1 keeps all tokens. */
  topP: number;
}

export interface Distribution {
  /** Of the listed tokens, in their order; 0 where a filter removed one. */
  probabilities: Float64Array;
  kept: Uint8Array;
  /** The probability of all tokens that are not listed. */
  rest: number;
  /** Whether `rest` is known exactly at this temperature. */
  exact: boolean;
  /** In nats, over the listed tokens and the rest as one. */
  entropy: number;
}

export function logSumExp(values: ArrayLike<number>): number {
  let largest = -Infinity;
  for (let i = 0; i < values.length; i++) largest = Math.max(largest, values[i]!);
  if (largest === -Infinity) return -Infinity;
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += Math.exp(values[i]! - largest);
  return largest + Math.log(sum);
}

export function softmax(values: ArrayLike<number>): Float64Array {
  const total = logSumExp(values);
  return Float64Array.from(values, (v) => (total === -Infinity ? 0 : Math.exp(v - total)));
}

/**
 * What the listed tokens get after temperature, top-k and top-p, in this order, as
 * `transformer/ops/logits.py` does it.
 *
 * `restLog` is the log of the sum of exp(logit / temperature) of the tokens that are not listed, or
 * null where it is not known at this temperature.
 */
export function distribution(logits: ArrayLike<number>, restLog: number | null, sampling: Sampling): Distribution {
  const count = logits.length;
  const order = Array.from({ length: count }, (_, i) => i).sort((a, b) => logits[b]! - logits[a]!);
  const kept = new Uint8Array(count).fill(1);
  const largest = logits[order[0]!]!;
  let exact = restLog !== null;
  let rest = restLog ?? -Infinity;
  if (sampling.temperature === 0) {
    for (let i = 0; i < count; i++) kept[i] = logits[i]! >= largest ? 1 : 0;
    rest = -Infinity;
    exact = true;
  } else if (sampling.topK && sampling.topK <= count) {
    const limit = logits[order[sampling.topK - 1]!]!;
    for (let i = 0; i < count; i++) kept[i] = logits[i]! >= limit ? 1 : 0;
    rest = -Infinity;
    exact = true;
  }
  const scaled = Float64Array.from(logits, (v, i) => (kept[i] ? v / (sampling.temperature || 1) : -Infinity));
  if (sampling.topP < 1 && sampling.temperature > 0) {
    const total = logSumExp([...scaled, rest]);
    let before = 0;
    let limit = Infinity;
    for (const i of order) {
      if (!kept[i] || before >= sampling.topP) break;
      limit = scaled[i]!;
      before += Math.exp(scaled[i]! - total);
    }
    for (let i = 0; i < count; i++) if (scaled[i]! < limit) { kept[i] = 0; scaled[i] = -Infinity; }
    if (before >= sampling.topP) rest = -Infinity;
    // Which of the tokens that are not listed stay cannot be known.
    else if (rest > -Infinity) exact = false;
  }
  const total = logSumExp([...scaled, rest]);
  const probabilities = scaled.map((v) => Math.exp(v - total));
  const restShare = Math.exp(rest - total);
  return { probabilities, kept, rest: restShare, exact, entropy: entropy([...probabilities, restShare]) };
}

/** In nats. */
export function entropy(probabilities: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < probabilities.length; i++) {
    const p = probabilities[i]!;
    if (p > 0) sum -= p * Math.log(p);
  }
  return sum;
}

/** An index drawn from `probabilities` with `uniform` in [0, 1). What is left over is index `length`. */
export function draw(probabilities: ArrayLike<number>, uniform: number): number {
  let sum = 0;
  for (let i = 0; i < probabilities.length; i++) {
    sum += probabilities[i]!;
    if (uniform < sum) return i;
  }
  return probabilities.length;
}

export type HeadFact = 'previous' | 'first' | 'itself' | 'entropy';

/** Means over the rows of a [T, S] matrix of weights; the rows' own sums are divided out. */
export function headFacts(weights: ArrayLike<number>, T: number, S: number): Record<HeadFact, number> {
  const facts = { previous: 0, first: 0, itself: 0, entropy: 0 };
  let later = 0;
  for (let t = 0; t < T; t++) {
    let sum = 0;
    for (let s = 0; s < S; s++) sum += weights[t * S + s]!;
    if (!sum) continue;
    const share = (s: number): number => weights[t * S + s]! / sum;
    for (let s = 0; s < S; s++) if (share(s) > 0) facts.entropy -= share(s) * Math.log(share(s)) / T;
    if (t === 0) continue;
    later++;
    facts.first += share(0);
    if (t < S) facts.itself += share(t);
    if (t <= S) facts.previous += share(t - 1);
  }
  for (const name of ['previous', 'first', 'itself'] as const) facts[name] = later ? facts[name] / later : 0;
  return facts;
}

/** The largest total variation between the rows of two [T, S] matrices of shares, 0..1. */
export function change(a: ArrayLike<number>, b: ArrayLike<number>, T: number, S: number): number {
  let most = 0;
  for (let t = 0; t < T; t++) {
    let sum = 0;
    for (let s = 0; s < S; s++) sum += Math.abs(a[t * S + s]! - b[t * S + s]!);
    most = Math.max(most, sum / 2);
  }
  return Math.min(1, most);
}

/** The first and the last token of the most probable answer; as the task's default, of at most 30 tokens. */
export function bestSpan(start: ArrayLike<number>, end: ArrayLike<number>, may: boolean[], longest = 30): [number, number] {
  let best: [number, number] = [Math.max(0, may.indexOf(true)), Math.max(0, may.indexOf(true))];
  for (let s = 0; s < start.length; s++) {
    for (let e = s; e < Math.min(end.length, s + longest) && may[s] && may[e]; e++) {
      if (start[s]! * end[e]! > start[best[0]]! * end[best[1]]!) best = [s, e];
    }
  }
  return best;
}

export function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}

export function norm(a: ArrayLike<number>): number {
  return Math.sqrt(dot(a, a));
}

/** Whether row t may look at column s. T queries are the last of S keys. */
export function visible(t: number, s: number, rule: { causal: boolean; window: number | null }): boolean {
  if (rule.causal && s > t) return false;
  if (rule.window !== null && rule.window > 0) return rule.causal ? t - s < rule.window : Math.abs(t - s) < rule.window;
  return true;
}

/** The columns (sine, cosine) of each pair of a sinusoidal table, whichever way it is laid out. */
export function sinusoidPairs(table: Float32Array, T: number, D: number): [number, number][] {
  const half = D / 2;
  const first = (layout: 'interleaved' | 'halves', i: number): [number, number] => (layout === 'interleaved' ? [2 * i, 2 * i + 1] : [i, half + i]);
  const unit = (layout: 'interleaved' | 'halves'): number => {
    let worst = 0;
    for (let i = 0; i < half; i++) {
      const [a, b] = first(layout, i);
      for (let t = 0; t < T; t++) worst = Math.max(worst, Math.abs(table[t * D + a]! ** 2 + table[t * D + b]! ** 2 - 1));
    }
    return worst;
  };
  const layout = unit('interleaved') <= unit('halves') ? 'interleaved' : 'halves';
  return Array.from({ length: Math.floor(half) }, (_, i) => first(layout, i));
}

export interface TableChecks {
  /** The least distance between two positions, and which two. */
  nearest: number;
  nearestPair: [number, number];
  largest: number;
  /** The largest difference between a row and the row `shift` before it, turned; null without pairs. */
  rotationError: number | null;
}

/** What a reader can check of a table of positions. */
export function checkTable(table: Float32Array, T: number, D: number, pairs: [number, number][] | null, shift: number): TableChecks {
  let nearest = Infinity;
  let nearestPair: [number, number] = [0, 0];
  let largest = 0;
  const row = (t: number): Float32Array => table.subarray(t * D, (t + 1) * D);
  for (let t = 0; t < T; t++) {
    for (const v of row(t)) largest = Math.max(largest, Math.abs(v));
    for (let s = 0; s < t; s++) {
      const a = row(t), b = row(s);
      let sum = 0;
      for (let d = 0; d < D; d++) sum += (a[d]! - b[d]!) ** 2;
      if (sum < nearest) [nearest, nearestPair] = [sum, [s, t]];
    }
  }
  let rotationError: number | null = null;
  if (pairs && T > shift && T > 1) {
    rotationError = 0;
    pairs.forEach(([a, b]) => {
      // The angle of one step is read off the table itself: rows 0 and 1.
      const angle = Math.atan2(table[D + a]!, table[D + b]!) - Math.atan2(table[a]!, table[b]!);
      const c = Math.cos(angle * shift), s = Math.sin(angle * shift);
      for (let t = 0; t + shift < T; t++) {
        const sine = table[t * D + a]!, cosine = table[t * D + b]!;
        const later = (t + shift) * D;
        rotationError = Math.max(rotationError!, Math.abs(sine * c + cosine * s - table[later + a]!), Math.abs(cosine * c - sine * s - table[later + b]!));
      }
    });
  }
  return { nearest: Math.sqrt(nearest), nearestPair, largest, rotationError };
}

/** How alike the directions of two vectors are, from -1 to 1. */
export function cosine(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let product = 0, ours = 0, theirs = 0;
  for (let i = 0; i < Math.min(a.length, b.length); i++) {
    product += a[i]! * b[i]!;
    ours += a[i]! ** 2;
    theirs += b[i]! ** 2;
  }
  return product / Math.max(1e-12, Math.sqrt(ours * theirs));
}
