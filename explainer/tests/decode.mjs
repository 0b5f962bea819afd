// A second decoder of the trace file, written apart from the page's, to compare with.
const SIZES = { uint8: 1, int8: 1, uint16: 2, int32: 4, float16: 2, float32: 4 };

function half(bits) {
  const exponent = (bits >> 10) & 31, fraction = bits & 1023, sign = bits >> 15 ? -1 : 1;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return exponent ? sign * (1024 + fraction) * 2 ** (exponent - 25) : sign * fraction * 2 ** -24;
}

export function stored(buffer, info, index) {
  const at = info.offset + index * SIZES[info.dtype];
  switch (info.dtype) {
    case 'uint8': return buffer.readUInt8(at);
    case 'int8': return buffer.readInt8(at);
    case 'uint16': return buffer.readUInt16LE(at);
    case 'int32': return buffer.readInt32LE(at);
    case 'float16': return half(buffer.readUInt16LE(at));
    default: return buffer.readFloatLE(at);
  }
}

export function valueAt(header, buffer, id, index) {
  const info = header.arrays[id];
  const scale = typeof info.scale === 'string' ? stored(buffer, header.arrays[info.scale], Math.floor(index / info.shape.at(-1))) : info.scale;
  return info.zero + scale * stored(buffer, info, index);
}

const SCALARS = new Set(['name', 'label', 'prompt', 'target', 'text', 'kind', 'order', 'png', 'words', 'kind_of_scores', 'pooling', 'texts', 'names', 'edits', 'tokens']);

/** [path, id] of every array below `node`. */
export function* arraysBelow(node, path) {
  for (const [key, value] of Object.entries(node ?? {})) {
    if (SCALARS.has(key)) continue;
    if (typeof value === 'string') yield [`${path}.${key}`, value];
    else if (typeof value === 'object' && value !== null) yield* arraysBelow(value, `${path}.${key}`);
  }
}

/** The indices of a flat index. */
export function unflatten(index, shape) {
  const indices = [];
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    indices.unshift(index % shape[axis]);
    index = Math.floor(index / shape[axis]);
  }
  return indices;
}
