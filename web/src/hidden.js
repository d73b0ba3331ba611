// An alpha channel that hides everything was not meant as one: it is left out, as on the command line.

/** Whether everything in a picture is transparent. */
export function isHidden(bitmap) {
  const { width, height } = bitmap, rows = Math.max(1, Math.floor(2 ** 20 / width));
  const strip = new OffscreenCanvas(width, Math.min(rows, height)).getContext("2d", { willReadFrequently: true });
  for (let top = 0; top < height; top += rows) {
    strip.clearRect(0, 0, width, rows);
    strip.drawImage(bitmap, 0, -top);
    const { data } = strip.getImageData(0, 0, width, Math.min(rows, height - top));
    for (let i = 3; i < data.length; i += 4) if (data[i]) return false;
  }
  return true;
}

/** The picture without its alpha channel. A 2D canvas forgets the colours of what is transparent, WebGL does not. */
export async function uncovered(blob) {
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const { width, height } = bitmap, gl = new OffscreenCanvas(1, 1).getContext("webgl");
  if (!gl) throw new Error("WebGL is missing");
  const texture = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, texture);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
  gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
  gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
  const image = new ImageData(width, height);
  gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(image.data.buffer));
  const error = gl.getError();
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  bitmap.close();
  if (error) throw new Error(`WebGL error ${error} at ${width} x ${height}`);
  for (let i = 3; i < image.data.length; i += 4) image.data[i] = 255;
  return createImageBitmap(image);
}
