// A small painted picture as a PNG, for the samples of image models.
import { deflateSync, crc32 } from 'node:zlib';

function chunk(kind, data) {
  const body = Buffer.concat([Buffer.from(kind, 'latin1'), data]);
  const out = Buffer.alloc(body.length + 8);
  out.writeUInt32BE(data.length, 0);
  body.copy(out, 4);
  out.writeUInt32BE(crc32(body), body.length + 4);
  return out;
}

function png(width, height, pixel) {
  const raw = Buffer.alloc(height * (width * 3 + 1));
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const [r, g, b] = pixel(x / width, y / height);
      const at = y * (width * 3 + 1) + 1 + x * 3;
      raw[at] = r; raw[at + 1] = g; raw[at + 2] = b;
    }
  }
  const head = Buffer.alloc(13);
  head.writeUInt32BE(width, 0);
  head.writeUInt32BE(height, 4);
  head[8] = 8;
  head[9] = 2;
  return Buffer.concat([Buffer.from([137, 80, 78, 71, 13, 10, 26, 10]), chunk('IHDR', head), chunk('IDAT', deflateSync(raw)), chunk('IEND', Buffer.alloc(0))]);
}

const mix = (a, b, t) => a.map((v, i) => v + (b[i] - v) * Math.min(1, Math.max(0, t)));

/** A bird on a hill at sunset. */
export function landscape(size) {
  const image = png(size, size, (x, y) => {
    let color = mix([66, 92, 160], [250, 196, 140], y * 1.5);
    const sun = Math.hypot(x - 0.72, y - 0.42);
    color = mix([255, 236, 190], color, (sun - 0.09) / 0.12);
    const far = 0.6 + 0.05 * Math.sin(x * 9) + 0.03 * Math.sin(x * 23);
    if (y > far) color = mix([92, 84, 128], [70, 70, 110], (y - far) * 4);
    const near = 0.78 + 0.08 * Math.sin(x * 4 + 2.2);
    if (y > near) color = mix([44, 74, 62], [22, 40, 38], (y - near) * 4);
    const body = ((x - 0.33) / 0.15) ** 2 + ((y - 0.6) / 0.1) ** 2;
    const head = ((x - 0.45) / 0.062) ** 2 + ((y - 0.49) / 0.06) ** 2;
    if (body < 1 || head < 1) color = mix([206, 70, 52], [120, 30, 40], (y - 0.45) * 3);
    if (Math.hypot(x - 0.465, y - 0.48) < 0.012) color = [20, 20, 24];
    if (x > 0.5 && x < 0.56 && Math.abs(y - 0.5) < (0.56 - x) * 0.35) color = [240, 180, 60];
    if (x > 0.12 && x < 0.24 && Math.abs(y - 0.64 + (x - 0.24) * 0.4) < 0.02) color = [120, 34, 44];
    if ((Math.abs(x - 0.31) < 0.006 || Math.abs(x - 0.36) < 0.006) && y > 0.68 && y < near) color = [200, 150, 60];
    return color;
  });
  return 'data:image/png;base64,' + image.toString('base64');
}
