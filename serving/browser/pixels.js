// Pixels in, pixels out: the resize before the model, and the labels after it. Both give what tf_groupvit gives.

const BITS = 22; // of the whole numbers that weights become, as in Pillow

function cubic(x) {
  x = Math.abs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

// For each of the new places along an axis: the first old one that counts, and the weights from there on.
function weights(old, size) {
  const scale = old / size, wide = Math.max(scale, 1);
  return Array.from({ length: size }, (_, place) => {
    const center = (place + 0.5) * scale;
    const first = Math.max(Math.trunc(center - 2 * wide + 0.5), 0);
    const end = Math.min(Math.trunc(center + 2 * wide + 0.5), old);
    const found = Array.from({ length: end - first }, (_, i) => cubic((first + i - center + 0.5) / wide));
    const sum = found.reduce((a, b) => a + b, 0);
    return [first, found.map((weight) => Math.round((weight / sum) * 2 ** BITS))];
  });
}

// One pass: (outer, old, inner) -> (outer, size, inner), 8 bits each.
function along(pixels, outer, old, inner, size) {
  const result = new Uint8ClampedArray(outer * size * inner), sums = new Float64Array(inner);
  const taps = weights(old, size);
  for (let o = 0, to = 0; o < outer; o++) {
    for (const [first, factors] of taps) {
      sums.fill(2 ** (BITS - 1));
      for (let i = 0, from = (o * old + first) * inner; i < factors.length; i++) {
        const factor = factors[i];
        for (let n = 0; n < inner; n++) sums[n] += pixels[from++] * factor;
      }
      for (let n = 0; n < inner; n++) result[to++] = Math.floor(sums[n] / 2 ** BITS);
    }
  }
  return result;
}

// RGBA (H, W, 4) of an ImageData -> RGB (height, width, 3), bicubic as of Pillow 13.
export function square({ data, width: W, height: H }, height, width) {
  let pixels = data;
  if (H - height > Math.max(0, 2 * (W - width))) {
    pixels = along(along(pixels, 1, H, W * 4, height), height, W, 4, width);
  } else {
    pixels = along(along(pixels, H, W, 4, width), 1, H, width * 4, height);
  }
  return Uint8Array.from({ length: height * width * 3 }, (_, n) => pixels[Math.floor(n / 3) * 4 + (n % 3)]);
}

// For each of the new places its two old neighbors and the share of the second, as in tf_groupvit's upsampling.
function neighbors(old, size) {
  const scale = Math.fround(old / size);
  return Array.from({ length: size }, (_, n) => {
    const place = Math.max(Math.fround(Math.fround((n + 0.5) * scale) - 0.5), 0);
    const first = Math.min(Math.trunc(place), old - 1);
    return [first, Math.min(first + 1, old - 1), Math.fround(place - first)];
  });
}

// Scores { data, dims: [1, h, w, K] } -> the best of the K at each of the (height, width) pixels, bilinear between.
export function labels({ data, dims: [, h, w, K] }, height, width) {
  const result = new Uint8Array(height * width), row = new Float32Array(w * K);
  const across = neighbors(w, width);
  neighbors(h, height).forEach(([upper, lower, low], y) => {
    const [above, below] = [upper * w * K, lower * w * K];
    for (let n = 0; n < row.length; n++) row[n] = data[above + n] * (1 - low) + data[below + n] * low;
    for (let x = 0; x < width; x++) {
      const [left, right, share] = across[x];
      let best = 0, highest = -Infinity;
      for (let k = 0; k < K; k++) {
        const score = Math.fround(row[left * K + k] * (1 - share) + row[right * K + k] * share);
        if (score > highest) [best, highest] = [k, score];
      }
      result[y * width + x] = best;
    }
  });
  return result;
}
