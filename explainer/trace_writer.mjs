// Writes the trace file (format 1) for the samples: a header in JSON and one blob of arrays.

const KINDS = { uint8: Uint8Array, int8: Int8Array, uint16: Uint16Array, int32: Int32Array, float16: Uint16Array, float32: Float32Array };

/** The nearest float16, as 16 bits (round half to even is not needed for samples). */
export function toFloat16(value) {
  const float = new Float32Array([value]);
  const bits = new Uint32Array(float.buffer)[0];
  const sign = (bits >>> 16) & 0x8000;
  const exponent = ((bits >>> 23) & 0xff) - 127 + 15;
  const mantissa = bits & 0x7fffff;
  if (exponent >= 31) return sign | 0x7c00;
  if (exponent <= 0) {
    if (exponent < -10) return sign;
    return sign | ((mantissa | 0x800000) >> (14 - exponent));
  }
  return (sign | (exponent << 10) | (mantissa >> 13)) + ((mantissa >> 12) & 1);
}

/** Collects arrays; `header` closes the file. */
export class TraceWriter {
  constructor() {
    this.arrays = {};
    this.parts = [];
    this.offset = 0;
  }

  add(dtype, shape, values, scale = 1, zero = 0) {
    const id = String(Object.keys(this.arrays).length);
    const stored = new KINDS[dtype](values.length);
    for (let i = 0; i < values.length; i++) {
      const value = (values[i] - zero) / (typeof scale === 'string' ? 1 : scale);
      stored[i] = dtype === 'float16' ? toFloat16(values[i]) : dtype === 'float32' ? values[i] : Math.round(value);
    }
    this.arrays[id] = { dtype, shape, offset: this.offset, scale, zero };
    this.parts.push(Buffer.from(stored.buffer));
    this.offset += stored.byteLength;
    return id;
  }

  half(shape, values) {
    return this.add('float16', shape, values);
  }

  weights(shape, values) {
    return this.add('uint8', shape, values, 1 / 255);
  }

  /** int8 with one scale per row of the last axis. */
  rows(shape, values) {
    const width = shape[shape.length - 1];
    const count = values.length / width;
    const scales = new Float32Array(count);
    const scaled = new Float32Array(values.length);
    for (let r = 0; r < count; r++) {
      let largest = 1e-9;
      for (let c = 0; c < width; c++) largest = Math.max(largest, Math.abs(values[r * width + c]));
      scales[r] = largest / 127;
      for (let c = 0; c < width; c++) scaled[r * width + c] = values[r * width + c] / scales[r];
    }
    const scale = this.add('float32', shape.slice(0, -1), scales);
    return this.add('int8', shape, scaled, scale);
  }

  blob() {
    return Buffer.concat(this.parts).toString('base64');
  }
}

/** JSON that is safe inside a script element. */
export function escapeJson(value) {
  return JSON.stringify(value).replace(/[<>&\u2028\u2029]/g, (c) => '\\u' + c.charCodeAt(0).toString(16).padStart(4, '0'));
}

/** The self-contained page, as Python writes it. */
export function page(header, blob, script, css, hash) {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src '${hash(script)}'; style-src '${hash(css)}'; img-src data:; base-uri 'none'; form-action 'none'">
<title>How a transformer thinks</title>
<style>${css}</style>
</head>
<body>
<script type="application/json" id="trace">${escapeJson(header)}</script>
<script type="text/plain" id="arrays">${blob}</script>
<script>${script}</script>
</body>
</html>
`;
}
