// A mask as a PNG: 8-bit grey, 0 and 255, as the command line writes it. No canvas, whose size browsers limit.
const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

/** PNG (a Blob) of a mask of 0 and 1, row by row. */
export async function maskPng(mask, width, height) {
  const rows = new Uint8Array((width + 1) * height); // each begins with its filter: none
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 1; x <= width; x++) rows[y * (width + 1) + x] = mask[i++] * 255;
  }
  const header = new DataView(new ArrayBuffer(13));
  header.setUint32(0, width);
  header.setUint32(4, height);
  header.setUint8(8, 8); // bits; what follows is 0: grey, deflate, no interlacing
  const packed = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  const data = await new Response(packed).arrayBuffer();
  const signature = Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10);
  const parts = [chunk("IHDR", header.buffer), chunk("IDAT", data), chunk("IEND", new ArrayBuffer(0))];
  return new Blob([signature, ...parts], { type: "image/png" });
}

function chunk(kind, body) {
  const bytes = new Uint8Array(12 + body.byteLength), view = new DataView(bytes.buffer);
  view.setUint32(0, body.byteLength);
  bytes.set(new TextEncoder().encode(kind), 4);
  bytes.set(new Uint8Array(body), 8);
  let crc = ~0;
  for (let i = 4; i < bytes.length - 4; i++) crc = CRC[(crc ^ bytes[i]) & 255] ^ (crc >>> 8);
  view.setUint32(8 + body.byteLength, ~crc);
  return bytes;
}
