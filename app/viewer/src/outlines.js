// How are tens of thousands of outlines drawn while one pans? On a canvas, in chunks, one path per chunk and class.

const CHUNK = 512; // image pixels

/** Nuclei of one image, ready to be drawn and found. */
export class Outlines {
  #chunks = new Map();

  /** `features` as the service sends them: one exterior ring each, in image pixels. */
  constructor(features) {
    this.nuclei = features.map(nucleus);
    for (const one of this.nuclei) this.#chunkOf(one).push(one);
  }

  #chunkOf(one) {
    const place = `${Math.floor(one.centre[0] / CHUNK)},${Math.floor(one.centre[1] / CHUNK)}`;
    if (!this.#chunks.has(place)) this.#chunks.set(place, Object.assign([], { box: [Infinity, Infinity, -Infinity, -Infinity] }));
    const chunk = this.#chunks.get(place);
    chunk.box = joined(chunk.box, one.box);
    return chunk;
  }

  /** Stroke what meets `box`, in image coordinates, with lines of `width` image pixels. */
  draw(context, palette, box, width) {
    for (const chunk of this.#chunks.values()) {
      if (!meet(chunk.box, box)) continue;
      chunk.paths ??= pathsOf(chunk);
      for (const [name, path] of chunk.paths) {
        if (palette.shows(name)) stroke(context, path, palette.style(name), width);
      }
    }
  }

  /** The nucleus at a point: the one around it, else the nearest whose centre is within `reach`. */
  at(x, y, reach, palette) {
    let best = null;
    for (const one of this.nuclei) {
      if (!palette.shows(one.name) || !meet(one.box, [x - reach, y - reach, x + reach, y + reach])) continue;
      const distance = contains(one.ring, x, y) ? 0 : Math.hypot(one.centre[0] - x, one.centre[1] - y);
      if (distance <= reach && (!best || distance < best.distance)) best = { one, distance };
    }
    return best?.one ?? null;
  }

  /** Nuclei per class whose centre lies inside a polygon. */
  countIn(polygon, names) {
    const counts = Object.fromEntries(names.map((name) => [name, 0]));
    let total = 0;
    for (const one of this.nuclei) {
      if (!contains(polygon, ...one.centre)) continue;
      total += 1;
      if (one.name !== null) counts[one.name] += 1;
    }
    return { total, counts };
  }
}

/** What the page needs of a feature. */
export function nucleus(feature) {
  const ring = feature.geometry.coordinates[0];
  const box = [Infinity, Infinity, -Infinity, -Infinity];
  for (const [x, y] of ring) {
    box[0] = Math.min(box[0], x);
    box[1] = Math.min(box[1], y);
    box[2] = Math.max(box[2], x);
    box[3] = Math.max(box[3], y);
  }
  return { feature, ring, box, name: feature.properties.classification?.name ?? null, centre: centroid(ring) };
}

/** Stroke one nucleus more strongly than the others. */
export function highlight(context, one, palette, width) {
  const path = pathOf([one]);
  stroke(context, path, { line: "white", rim: "rgb(0 0 0 / .8)" }, 2.4 * width);
  stroke(context, path, palette.style(one.name), 1.4 * width);
}

/** The area of a polygon in square pixels. */
export function area(ring) {
  let twice = 0;
  for (let i = 0, j = ring.length - 1; i < ring.length; j = i++) twice += ring[j][0] * ring[i][1] - ring[i][0] * ring[j][1];
  return Math.abs(twice) / 2;
}

/** Whether two edges of a polygon cross: nobody can say then what lies inside of it. */
export function crossesItself(ring) {
  const edges = ring.map((corner, i) => [corner, ring[(i + 1) % ring.length]]);
  return edges.some((one, i) => edges.slice(i + 1).some((other) => cross(one, other)));
}

function cross([a, b], [c, d]) {
  return side(a, b, c) * side(a, b, d) < 0 && side(c, d, a) * side(c, d, b) < 0;
}

function side([x0, y0], [x1, y1], [x, y]) {
  return Math.sign((x1 - x0) * (y - y0) - (y1 - y0) * (x - x0));
}

function centroid(ring) {
  let twice = 0;
  let x = 0;
  let y = 0;
  for (let i = 0, j = ring.length - 1; i < ring.length; j = i++) {
    const cross = ring[j][0] * ring[i][1] - ring[i][0] * ring[j][1];
    twice += cross;
    x += (ring[j][0] + ring[i][0]) * cross;
    y += (ring[j][1] + ring[i][1]) * cross;
  }
  return twice ? [x / (3 * twice), y / (3 * twice)] : ring[0];
}

function contains(ring, x, y) {
  let inside = false;
  for (let i = 0, j = ring.length - 1; i < ring.length; j = i++) {
    const [x0, y0] = ring[j];
    const [x1, y1] = ring[i];
    if (y0 > y !== y1 > y && x < ((x1 - x0) * (y - y0)) / (y1 - y0) + x0) inside = !inside;
  }
  return inside;
}

function pathsOf(chunk) {
  const byName = grouped(chunk);
  return new Map([...byName].map(([name, nuclei]) => [name, pathOf(nuclei)]));
}

function grouped(chunk) {
  const byName = new Map();
  for (const one of chunk) {
    if (!byName.has(one.name)) byName.set(one.name, []);
    byName.get(one.name).push(one);
  }
  return byName;
}

function pathOf(nuclei) {
  const path = new Path2D();
  for (const { ring } of nuclei) {
    path.moveTo(...ring[0]);
    for (let i = 1; i < ring.length - 1; i++) path.lineTo(...ring[i]);
    path.closePath();
  }
  return path;
}

function stroke(context, path, { line, rim }, width) {
  context.strokeStyle = rim;
  context.lineWidth = 2.2 * width;
  context.stroke(path);
  context.strokeStyle = line;
  context.lineWidth = width;
  context.stroke(path);
}

const meet = (a, b) => a[0] <= b[2] && b[0] <= a[2] && a[1] <= b[3] && b[1] <= a[3];
const joined = (a, b) => [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[2], b[2]), Math.max(a[3], b[3])];
