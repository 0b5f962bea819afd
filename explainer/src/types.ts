/** The trace file, format 1, as `transformer/explaining/` writes it. */

/** The id of an array in the header's `arrays`. */
export type Id = string;
export type Optional = Id | null | undefined;

export interface ArrayInfo {
  dtype: 'uint8' | 'int8' | 'uint16' | 'int32' | 'float16' | 'float32';
  shape: number[];
  offset: number;
  /** A value is zero + scale * stored; a string names an array with one scale per row of the last axis. */
  scale: number | string;
  zero: number;
}

export interface Token {
  text: string;
  id: number;
  kind: 'text' | 'special' | 'patch' | 'class' | 'register' | 'frame' | 'silence';
}

export interface Attention {
  num_heads: number;
  num_key_heads: number;
  head_width: number;
  window: number | null;
  causal: boolean;
  scale: number;
  cap: number | null;
  weights: Id;
  scores: Optional;
  query: Optional;
  key: Optional;
  value: Optional;
  mixed_norm: Optional;
  /** [T, S], 1 where a query may look; null: everywhere. */
  visible?: Optional;
}

export type NormName =
  | 'residual_before' | 'residual_before_cross' | 'residual_middle' | 'residual_after'
  | 'attention_output' | 'cross_attention_output' | 'feed_forward_output';

export interface Layer {
  name: string;
  order: 'pre' | 'post' | 'both';
  /** Lengths of vectors, one per token; parts that a layer lacks are missing. */
  norms: Partial<Record<NormName, Optional>>;
  attention: Attention | null;
  cross_attention: Attention | null;
  feed_forward: { hidden: Optional; units: Optional; width: number; experts?: number | null; norm?: Optional } | null;
  router: { probabilities: Id; chosen: Id } | null;
  lens: { ids: Id; probabilities: Id } | null;
}

export interface Picture {
  width: number;
  height: number;
  rows: number;
  columns: number;
  /** Absent: an image. */
  kind?: 'image' | 'board';
  png: string;
}

/** A recording; its tokens last from one edge to the next, in seconds. */
export interface Sound {
  png: string;
  width: number;
  height: number;
  edges: number[];
  /** Whether the last token is the silence behind the recording, which the picture does not have. */
  silent: boolean;
  ctc: Ctc | null;
}

export interface Ctc {
  names: string[];
  /** [names, R], of each vector of the encoder, `second` seconds apart. */
  probabilities: Id;
  second: number;
  spans: { text: string; begin: number; end: number }[];
}

export interface Positions {
  kind: 'learned' | 'sinusoidal' | 'rotary' | 'relative' | 'alibi' | 'none';
  table: Optional;
  angles: Optional;
  bias: Optional;
  words: string;
}

export interface Stack {
  name: string;
  tokens: Token[];
  image: Picture | null;
  sound?: Sound | null;
  positions: Positions;
  embedding: { token_norm: Optional; position_norm: Optional };
  layers: Layer[];
}

export interface NextToken {
  kind: 'next_token';
  logits: Id;
  ids: Id;
  texts: Record<string, string>;
  rest: Optional;
  vocab_size: number;
  rest_at?: { temperatures: number[]; log_sums: Id } | null;
}

export type Output =
  | NextToken
  | { kind: 'classes'; names: string[]; logits: Id; kind_of_scores?: 'softmax' | 'sigmoid' | 'number' }
  | { kind: 'token_classes'; names: string[]; logits: Id }
  | { kind: 'masked_tokens'; positions: number[]; ids: Id; logits: Id; texts: Record<string, string>; rest?: Optional }
  | { kind: 'span'; start: Id; end: Id }
  | { kind: 'vector'; pooling: string; vector: Id };

export interface Trace {
  label: string;
  prompt: string;
  /** The target of an encoder-decoder as a user types it. */
  target?: string | null;
  /** Whether the model wrote that target itself; false where it was given. */
  written?: boolean;
  stacks: Stack[];
  output: Output;
  /** What was changed in this run, one sentence each. */
  edits?: string[];
  /** Nats per next token of the prompt. */
  loss?: number | null;
}

export interface Header {
  format: number;
  title: string;
  family: 'decoder' | 'encoder' | 'encoder-decoder' | 'image' | 'recording';
  model: { name: string; words: [string, string][]; num_parameters: number; vocab_size: number };
  notes: string[];
  live: boolean;
  traces: Trace[];
  arrays: Record<string, ArrayInfo>;
}

export type AttentionPart = 'attention' | 'cross_attention';
