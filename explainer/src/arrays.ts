/** Decodes the blob of arrays. Nothing is decoded before somebody looks at it. */
import type { ArrayInfo, Id } from './types.ts';

type Stored = Uint8Array | Int8Array | Uint16Array | Int32Array | Float32Array;

const halves: { table: Float32Array | null } = { table: null };

/** The value of 16 bits of a float16 (IEEE 754 binary16). */
export function fromFloat16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

function halfTable(): Float32Array {
  if (!halves.table) halves.table = Float32Array.from({ length: 65536 }, (_, bits) => fromFloat16(bits));
  return halves.table;
}

export function decodeBase64(text: string): Uint8Array {
  const binary = atob(text.trim());
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

const KINDS = { uint8: Uint8Array, int8: Int8Array, uint16: Uint16Array, int32: Int32Array, float16: Uint16Array, float32: Float32Array };

function checkPlace(info: ArrayInfo, size: number): void {
  if (!Object.hasOwn(KINDS, info.dtype)) throw new Error(`an array has the unknown type ${info.dtype}`);
  const length = info.shape.reduce((a, b) => a * b, 1) * KINDS[info.dtype].BYTES_PER_ELEMENT;
  if (!(info.offset >= 0 && info.offset + length <= size)) throw new Error(`an array of shape ${info.shape.join(' x ')} lies outside the file`);
}

function view(bytes: Uint8Array, info: ArrayInfo): Stored {
  const count = info.shape.reduce((a, b) => a * b, 1);
  const Kind = KINDS[info.dtype];
  const length = count * Kind.BYTES_PER_ELEMENT;
  const part = bytes.slice(info.offset, info.offset + length);
  return new Kind(part.buffer, 0, count);
}

/** The arrays of one file, by id. */
export class Arrays {
  private stored = new Map<Id, Stored>();

  constructor(
    private infos: Record<string, ArrayInfo>,
    private bytes: Uint8Array,
  ) {
    for (const info of Object.values(infos)) checkPlace(info, bytes.length);
  }

  has(id: unknown): id is Id {
    return typeof id === 'string' && Object.hasOwn(this.infos, id);
  }

  info(id: Id): ArrayInfo {
    const info = this.infos[id];
    if (!info) throw new Error(`the header has no array ${id}`);
    return info;
  }

  shape(id: Id): number[] {
    return this.info(id).shape;
  }

  private raw(id: Id): Stored {
    let stored = this.stored.get(id);
    if (!stored) this.stored.set(id, (stored = view(this.bytes, this.info(id))));
    return stored;
  }

  private flat(id: Id, index: number): number {
    const info = this.info(id);
    const stored = this.raw(id)[index]!;
    const value = info.dtype === 'float16' ? halfTable()[stored]! : stored;
    if (info.scale === 1 && info.zero === 0) return value;
    const width = info.shape[info.shape.length - 1] ?? 1;
    const scale = typeof info.scale === 'number' ? info.scale : this.flat(info.scale, Math.floor(index / width));
    return info.zero + scale * value;
  }

  private start(id: Id, indices: number[]): [number, number] {
    const shape = this.shape(id);
    let index = 0;
    for (let axis = 0; axis < indices.length; axis++) {
      const size = shape[axis]!;
      const at = indices[axis]!;
      if (!(at >= 0 && at < size)) throw new Error(`index ${at} is outside axis ${axis} of length ${size}`);
      index = index * size + at;
    }
    const count = shape.slice(indices.length).reduce((a, b) => a * b, 1);
    return [index * count, count];
  }

  /** One value. */
  at(id: Id, ...indices: number[]): number {
    return this.flat(id, this.start(id, indices)[0]);
  }

  /** All values below the given leading indices, flat. */
  slice(id: Id, ...indices: number[]): Float32Array {
    const [start, count] = this.start(id, indices);
    const values = new Float32Array(count);
    const info = this.info(id);
    const stored = this.raw(id);
    if (info.dtype === 'float16' && info.scale === 1 && info.zero === 0) {
      const table = halfTable();
      for (let i = 0; i < count; i++) values[i] = table[stored[start + i]!]!;
    } else if (typeof info.scale === 'number' && info.dtype !== 'float16') {
      for (let i = 0; i < count; i++) values[i] = info.zero + info.scale * stored[start + i]!;
    } else for (let i = 0; i < count; i++) values[i] = this.flat(id, start + i);
    return values;
  }
}
