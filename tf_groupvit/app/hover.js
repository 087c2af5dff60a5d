// A pointer over the segmented photo in; the name of the region under it, beside the pointer and in the legend, out.
// Gradio's annotated image lights a region up when its legend is pointed at; this does the reverse.
(() => {
  const alphas = new Map(); // address of a mask -> its opacity, one byte a pixel

  const alphaOf = (mask) => {
    if (!alphas.has(mask.src)) {
      if (alphas.size > 300) alphas.clear();
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [mask.naturalWidth, mask.naturalHeight];
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(mask, 0, 0);
      const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
      alphas.set(mask.src, pixels.filter((_, index) => index % 4 === 3));
    }
    return alphas.get(mask.src);
  };

  // Where in a picture that keeps its ratio inside its box (object-fit: contain) the pointer is: an index of pixels.
  const pixelAt = (picture, event) => {
    const box = picture.getBoundingClientRect();
    const scale = Math.min(box.width / picture.naturalWidth, box.height / picture.naturalHeight);
    const x = Math.floor((event.clientX - box.left - (box.width - picture.naturalWidth * scale) / 2) / scale);
    const y = Math.floor((event.clientY - box.top - (box.height - picture.naturalHeight * scale) / 2) / scale);
    const inside = x >= 0 && y >= 0 && x < picture.naturalWidth && y < picture.naturalHeight;
    return inside ? y * picture.naturalWidth + x : -1;
  };

  const tip = document.createElement("div");
  tip.id = "tip";
  tip.hidden = true;
  let lit = null;

  const light = (entry) => {
    if (entry === lit) return;
    lit?.dispatchEvent(new MouseEvent("mouseout", { bubbles: true }));
    entry?.dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
    lit = entry;
  };

  document.addEventListener("pointermove", (event) => {
    const frame = event.target.closest?.("#regions .image-container");
    const masks = frame ? [...frame.querySelectorAll("img.mask")].filter((mask) => mask.complete) : [];
    const found = masks.findIndex((mask) => alphaOf(mask)[pixelAt(mask, event)] > 0);
    const entry = found < 0 ? null : document.querySelectorAll("#regions .legend-item")[found];
    if (frame || lit) light(entry);
    tip.hidden = !entry;
    if (!entry) return;
    if (!tip.isConnected) document.body.append(tip);
    tip.textContent = entry.textContent.trim();
    tip.style.left = `${Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 4)}px`;
    tip.style.top = `${event.clientY + 14}px`;
  });
})();
