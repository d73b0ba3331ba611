// From pixels to the network's input, and from its logits to a mask: the steps of the bundle's card,
// the same as dermseg's preprocess.py and postprocess.py. Plain functions on typed arrays.

/** Average-resize RGBA `pixels` (w x h) to RGB floats (tw x th), each axis on its own: cv2.INTER_AREA. */
export function resizeArea(pixels, w, h, tw, th) {
  const columns = axis(w, tw);
  const rows = axis(h, th);
  const wide = new Float32Array(tw * h * 3);
  for (let y = 0, o = 0; y < h; y++) {
    const line = y * w * 4;
    for (let x = 0; x < tw; x++, o += 3) {
      let r = 0, g = 0, b = 0;
      const { first, weights } = columns[x];
      for (let k = 0; k < weights.length; k++) {
        const i = line + (first + k) * 4, f = weights[k];
        r += f * pixels[i];
        g += f * pixels[i + 1];
        b += f * pixels[i + 2];
      }
      wide[o] = r;
      wide[o + 1] = g;
      wide[o + 2] = b;
    }
  }
  const out = new Float32Array(tw * th * 3);
  for (let y = 0; y < th; y++) {
    const { first, weights } = rows[y];
    for (let k = 0; k < weights.length; k++) {
      const from = (first + k) * tw * 3, to = y * tw * 3, f = weights[k];
      for (let i = 0; i < tw * 3; i++) out[to + i] += f * wide[from + i];
    }
  }
  return out;
}

// Shrinking: the mean over what falls into a target pixel. Enlarging: bilinear between pixel centres.
function axis(from, to) {
  const scale = from / to;
  return Array.from({ length: to }, (_, i) => {
    if (from <= to) {
      const at = Math.min(Math.max((i + 0.5) * scale - 0.5, 0), from - 1);
      const first = Math.min(Math.floor(at), Math.max(from - 2, 0));
      return { first, weights: from === 1 ? [1] : [1 - (at - first), at - first] };
    }
    const begin = i * scale, end = Math.min(begin + scale, from), first = Math.floor(begin);
    const weights = [];
    for (let j = first; j < Math.min(Math.ceil(end), from); j++) {
      weights.push((Math.min(j + 1, end) - Math.max(j, begin)) / scale);
    }
    return { first, weights };
  });
}

/** Network input (3, height, width) from RGBA pixels. */
export function toInput(pixels, w, h, { height, width, mean, std, filters = [] }) {
  if (filters.length) throw new Error(`this page has no filter ${filters.join(", ")}; use dermseg segment`);
  const small = resizeArea(pixels, w, h, width, height);
  const n = height * width, out = new Float32Array(3 * n);
  for (let c = 0; c < 3; c++) {
    for (let i = 0; i < n; i++) out[c * n + i] = (Math.round(small[3 * i + c]) / 255 - mean[c]) / std[c];
  }
  return out;
}

/** Edited probability map on the network's nodes (w x h), of which the mask is `map >= threshold`. */
export function clean(logits, w, h, post, threshold = post.threshold) {
  const map = Float32Array.from(logits, (v) => 1 / (1 + Math.exp(-v / post.temperature)));
  const found = Uint8Array.from(map, (p) => (p >= threshold ? 1 : 0));
  const nodes = Uint8Array.from(found);
  if (post.fill_holes) fillHoles(nodes, w, h);
  const { labels, areas } = components(nodes, w, h);
  const order = areas.map((area, i) => [area, i + 1]).sort((a, b) => b[0] - a[0] || a[1] - b[1]);
  const kept = new Set(
    order
      .filter(([area]) => area >= post.min_area_fraction * w * h)
      .slice(0, post.keep_largest ? 1 : order.length)
      .map(([, label]) => label),
  );
  for (let i = 0; i < map.length; i++) {
    if (nodes[i] && !found[i]) map[i] = Math.max(map[i], (1 + threshold) / 2);
    if (nodes[i] && !kept.has(labels[i])) map[i] = Math.min(map[i], threshold / 2);
  }
  return { map, w, h, threshold, count: kept.size, removed: areas.length - kept.size };
}

function fillHoles(nodes, w, h) {
  const outside = new Uint8Array(w * h), stack = [];
  const visit = (i) => {
    if (!nodes[i] && !outside[i]) {
      outside[i] = 1;
      stack.push(i);
    }
  };
  for (let x = 0; x < w; x++) visit(x), visit((h - 1) * w + x);
  for (let y = 0; y < h; y++) visit(y * w), visit(y * w + w - 1);
  while (stack.length) {
    const i = stack.pop(), x = i % w;
    if (x > 0) visit(i - 1);
    if (x < w - 1) visit(i + 1);
    if (i >= w) visit(i - w);
    if (i < w * (h - 1)) visit(i + w);
  }
  for (let i = 0; i < nodes.length; i++) if (!outside[i]) nodes[i] = 1;
}

// 8-connected components, numbered from 1 in reading order.
function components(nodes, w, h) {
  const labels = new Uint32Array(w * h), areas = [];
  for (let start = 0; start < nodes.length; start++) {
    if (!nodes[start] || labels[start]) continue;
    const label = areas.push(0), stack = [start];
    labels[start] = label;
    while (stack.length) {
      const i = stack.pop(), x = i % w, y = (i - x) / w;
      areas[label - 1]++;
      for (let v = Math.max(y - 1, 0); v <= Math.min(y + 1, h - 1); v++) {
        for (let u = Math.max(x - 1, 0); u <= Math.min(x + 1, w - 1); u++) {
          const j = v * w + u;
          if (nodes[j] && !labels[j]) {
            labels[j] = label;
            stack.push(j);
          }
        }
      }
    }
  }
  return { labels, areas };
}

/** The mask at the image's own size, Uint8Array of 0 and 1, bilinear between the nodes. */
export function maskAt({ map, w, h, threshold, count }, width, height) {
  const mask = new Uint8Array(width * height);
  if (!count) return mask;
  const columns = positions(width, w), rows = positions(height, h), line = new Float32Array(w);
  for (let y = 0; y < height; y++) {
    const { node, next, fraction } = rows[y];
    let any = false;
    for (let x = 0; x < w; x++) {
      const a = map[node * w + x];
      line[x] = a + fraction * (map[next * w + x] - a);
      any ||= line[x] >= threshold;
    }
    if (!any) continue;
    for (let x = 0; x < width; x++) {
      const c = columns[x], a = line[c.node];
      if (a + c.fraction * (line[c.next] - a) >= threshold) mask[y * width + x] = 1;
    }
  }
  return mask;
}

function positions(target, source) {
  return Array.from({ length: target }, (_, i) => {
    const at = Math.min(Math.max((i + 0.5) * (source / target) - 0.5, 0), source - 1), node = Math.floor(at);
    return { node, next: Math.min(node + 1, source - 1), fraction: at - node };
  });
}

/** Outline as line segments [x0, y0, x1, y1] in units of the image's width and height (marching squares). */
export function outline({ map, w, h, threshold }) {
  const segments = [];
  // one node more on each side, below the threshold, closes outlines at the edge of the image
  const at = (x, y) => (x < 0 || y < 0 || x >= w || y >= h ? 0 : map[y * w + x]);
  const place = (v, n) => Math.min(Math.max((v + 0.5) / n, 0), 1);
  for (let y = -1; y < h; y++) {
    for (let x = -1; x < w; x++) {
      const corners = [[x, y], [x + 1, y], [x + 1, y + 1], [x, y + 1]];
      const values = corners.map(([u, v]) => at(u, v));
      const points = [];
      for (let k = 0; k < 4; k++) {
        const a = values[k], b = values[(k + 1) % 4];
        if (a >= threshold === b >= threshold) continue;
        const t = (threshold - a) / (b - a), [ux, uy] = corners[k], [vx, vy] = corners[(k + 1) % 4];
        points.push(place(ux + t * (vx - ux), w), place(uy + t * (vy - uy), h));
      }
      for (let k = 0; k + 3 < points.length; k += 4) segments.push(points.slice(k, k + 4));
    }
  }
  return segments;
}

/** Mean probability inside minus mean in a ring around it, on the nodes; `boundary_confidence` of postprocess.py. */
export function confidence(logits, temperature, cleaned) {
  const { map, w, h, threshold, count } = cleaned;
  if (!count) return 0;
  const inside = [];
  for (let i = 0; i < map.length; i++) if (map[i] >= threshold) inside.push(i);
  const reach = Math.max(2, 0.1 * Math.sqrt(inside.length)), r = Math.floor(reach), ring = new Set();
  for (const i of inside) {
    const x = i % w, y = (i - x) / w;
    for (let v = Math.max(y - r, 0); v <= Math.min(y + r, h - 1); v++) {
      for (let u = Math.max(x - r, 0); u <= Math.min(x + r, w - 1); u++) {
        const j = v * w + u;
        if (map[j] < threshold && (u - x) ** 2 + (v - y) ** 2 <= reach * reach) ring.add(j);
      }
    }
  }
  const p = (i) => 1 / (1 + Math.exp(-logits[i] / temperature));
  const mean = (items) => items.reduce((sum, i) => sum + p(i), 0) / items.length;
  const outside = ring.size ? mean([...ring]) : threshold;
  return Math.min(Math.max(mean(inside) - outside, 0), 1);
}
