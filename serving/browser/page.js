// The page: photo and words in, regions, areas and a sentence out. It shows what tf_groupvit/app/results.py shows.

import { Model, MOST_CLASSES, Refusal } from "./model.js";
import { labels } from "./pixels.js";

const SIDE = 1000; // pixels from which on pictures are shown at a half, a third, ... of their size
const STRENGTH = 0.6; // opacity of a region's color over the photo
const NAMED = 8; // classes that the sentence names; the chart has all
const $ = (selector) => document.querySelector(selector);
const [canvas, legend, box, video] = ["#regions canvas", "#regions ul", "#classes", "#camera video"].map($);

let model, page; // the export, and page.json
let photo = null; // { image, shown, name }: ImageData whole, and at the size that is shown
let result = null; // { photo, views: [{ name, names, colors, map }] }
let lit = -1; // the region that is pointed at, or -1

const element = (tag, attributes = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), attributes);
  made.append(...children);
  return made;
};
const percent = (share, digits) => `${(100 * share).toFixed(digits)}%`;
const color = (rgb) => `rgb(${rgb.join(" ")})`;

// ---- what is said ----

function problem(error) {
  if (!(error instanceof Refusal)) console.error(error);
  const stays = result ? " The result shown is still the previous one." : "";
  const words = (error instanceof Refusal ? error.message : `Something went wrong: ${error.message}`) + stays;
  $("#problem").replaceChildren(element("p", { role: "alert", className: "refused", textContent: words }));
}

function status(words) {
  $("#status").replaceChildren(element("p", { role: "status", className: "status", textContent: words }));
}

// Run what a person asked for, one after the other; what it refuses is shown.
let before = Promise.resolve();
const asked = (action) => (event) => {
  before = before.then(() => {
    $("#problem").replaceChildren();
    return action(event);
  }).catch(problem);
};

// ---- photo ----

function pixelsOf(source, width, height) {
  const place = element("canvas", { width, height }).getContext("2d", { willReadFrequently: true });
  place.imageSmoothingQuality = "high";
  place.drawImage(source, 0, 0, width, height);
  return place.getImageData(0, 0, width, height);
}

function choosePhoto(source, width, height, name) {
  const part = Math.max(1, Math.floor(Math.max(width, height) / SIDE));
  const shown = pixelsOf(source, Math.ceil(width / part), Math.ceil(height / part));
  photo = { name, shown, image: part === 1 ? shown : pixelsOf(source, width, height) };
  clear();
}

async function readFile(file) {
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" }).catch(() => {
    throw new Refusal(`${file.name} is no image that this browser reads: choose a PNG, JPEG or WebP file.`);
  });
  choosePhoto(bitmap, bitmap.width, bitmap.height, file.name);
}

function clear() {
  result = null;
  for (const part of ["#view", "#regions"]) $(part).hidden = true;
  for (const part of ["#status", "#areas"]) $(part).replaceChildren();
}

// ---- segmentation ----

// As they are typed: commas or line breaks between them, empty ones dropped.
function words() {
  const found = box.value.split(/[,\n]/).map((word) => word.split(/\s+/).filter(Boolean).join(" ")).filter(Boolean);
  const named = found.map((word) => word.split("|").map((name) => name.trim()));
  const names = named.map(([first]) => first);
  const twice = names.find((name, n) => names.indexOf(name) < n);
  if (!found.length) throw new Refusal("There are no classes yet: type some words, e.g. dog, grass, sky.");
  if (found.length > MOST_CLASSES) {
    throw new Refusal(`There are ${found.length} classes: at most ${MOST_CLASSES} fit, so leave some out.`);
  }
  if (!named.flat().every(Boolean)) throw new Refusal("A class has an empty name beside its |: give it one.");
  if (twice) throw new Refusal(`The class ${twice} is there twice: name each class once.`);
  return { found, names };
}

async function segment() {
  if (!photo) throw new Refusal("There is no photo yet: drop one, take one, paste one, or choose an example.");
  const { found, names } = words();
  $("#segment").textContent = "Segmenting ...";
  await new Promise((painted) => setTimeout(painted)); // the model leaves no time for it
  const seen = await model.see(photo.image, found, $("#refine").checked)
    .finally(() => { $("#segment").textContent = "Segment"; });
  const { width, height } = photo.shown;
  const views = [{ name: "Classes", names, colors: page.colors.classes, map: labels(seen.scores, height, width) }];
  for (let stage = 1; seen[`groups_${stage}`]; stage++) {
    const map = labels(seen[`groups_${stage}`], height, width);
    const last = !seen[`groups_${stage + 1}`];
    const groups = Array.from({ length: seen[`groups_${stage}`].dims[3] }, (_, number) =>
      last ? `group ${number}: ${names[best(seen.group_scores, number)]}` : `group ${number}`);
    views.push({ name: `Groups of stage ${stage}`, names: groups, colors: page.colors.groups, map });
  }
  result = { photo, views };
  tell();
  offer(views);
  show();
  // On a phone the result lies below the form.
  if (window.innerWidth < 700) $("#status").scrollIntoView({ behavior: "smooth" });
}

function best({ data, dims: [, , K] }, group) {
  const row = data.slice(group * K, (group + 1) * K);
  return row.indexOf(Math.max(...row));
}

// Names that are there with their share of the pixels and their number, the largest first.
function present({ map, names }) {
  const sizes = new Uint32Array(names.length);
  for (const number of map) sizes[number]++;
  return names.map((name, number) => ({ name, number, share: sizes[number] / map.length }))
    .filter(({ share }) => share).sort((one, other) => other.share - one.share);
}

// ---- what is shown ----

function tell() {
  const [classes] = result.views, there = present(classes);
  const { width, height } = result.photo.image;
  const named = there.slice(0, NAMED).map(({ name, share }) => `${name} ${percent(share, 0)}`);
  if (there.length > NAMED) named.push(`and ${there.length - NAMED} more`);
  status(`Segmented ${width}x${height} pixels: ${named.join(", ")}.`);
  canvas.ariaLabel = `The photo under its masks: ${named.join(", ")}`;
  const rows = there.map(({ name, number, share }) => {
    const bar = element("span", { className: "bar", ariaHidden: "true" });
    bar.style.cssText = `width:${percent(share, 2)};background:${color(classes.colors[number])}`;
    return element("tr", {}, element("th", { scope: "row", textContent: name }),
      element("td", {}, bar, element("span", { className: "share", textContent: percent(share, 1) })));
  });
  const head = element("thead", {}, element("tr", {},
    ...["Class", "Area"].map((textContent) => element("th", { scope: "col", textContent }))));
  const caption = element("caption", { textContent: "Part of the picture that each class covers" });
  $("#areas").replaceChildren(element("table", { className: "areas" }, caption, head, element("tbody", {}, ...rows)));
  const absent = classes.names.filter((name) => !there.some((row) => row.name === name));
  if (!absent.length) return;
  const count = absent.length === 1 ? "1 class is" : `${absent.length} classes are`;
  $("#areas").append(element("details", { className: "absent" },
    element("summary", { textContent: `${count} not in the picture` }), element("p", { textContent: absent.join(", ") })));
}

function offer(views) {
  const chosen = $("#view :checked")?.value;
  const choices = views.map(({ name }, n) => {
    const radio = element("input", { type: "radio", name: "view", value: name, checked: name === chosen || n === 0 });
    return element("label", {}, radio, ` ${name}`);
  });
  $("#view").replaceChildren($("#view legend"), ...choices);
  for (const part of ["#view", "#regions"]) $(part).hidden = false;
}

export const current = () => result.views.find(({ name }) => name === $("#view :checked").value);

function show() {
  const view = current();
  legend.replaceChildren(...present(view).map(({ name, number }) => {
    const mark = element("i");
    mark.style.background = color(view.colors[number]);
    const entry = element("button", { type: "button" }, mark, name);
    entry.dataset.number = number;
    return element("li", {}, entry);
  }));
  lit = -1;
  paint();
}

// The photo under the colors of its regions; where one is pointed at, under that one's alone.
function paint() {
  const { map, colors } = current(), { shown } = result.photo;
  const pixels = new ImageData(new Uint8ClampedArray(shown.data), shown.width, shown.height);
  map.forEach((number, n) => {
    if (lit >= 0 && number !== lit) return;
    for (let c = 0; c < 3; c++) {
      pixels.data[4 * n + c] = (1 - STRENGTH) * shown.data[4 * n + c] + STRENGTH * colors[number][c];
    }
  });
  [canvas.width, canvas.height] = [shown.width, shown.height];
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  for (const entry of legend.querySelectorAll("button")) entry.classList.toggle("lit", +entry.dataset.number === lit);
}

function light(number) {
  if (!result || number === lit) return;
  lit = number;
  paint();
}

// ---- what a person does ----

const tip = element("div", { id: "tip", hidden: true });

function point(event) {
  const frame = canvas.getBoundingClientRect(), { width, height } = result.photo.shown;
  const scale = Math.min(frame.width / width, frame.height / height);
  const x = Math.floor((event.clientX - frame.left - (frame.width - width * scale) / 2) / scale);
  const y = Math.floor((event.clientY - frame.top - (frame.height - height * scale) / 2) / scale);
  const inside = x >= 0 && y >= 0 && x < width && y < height;
  light(inside ? current().map[y * width + x] : -1);
  tip.hidden = !inside;
  if (!inside) return;
  tip.textContent = current().names[lit];
  tip.style.left = `${Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 4)}px`;
  tip.style.top = `${event.clientY + 14}px`;
}

const segmentFile = asked(async (file) => {
  await readFile(file);
  await segment();
});

function stopCamera() {
  video.srcObject?.getTracks().forEach((track) => track.stop());
  video.srcObject = null;
  for (const part of [video, $("#take")]) part.hidden = true;
  $("#open").textContent = "Use the camera";
}

async function openCamera() {
  if (video.srcObject) return stopCamera();
  const wanted = { video: { facingMode: "environment" } };
  video.srcObject = await Promise.resolve().then(() => navigator.mediaDevices.getUserMedia(wanted)).catch(() => {
    throw new Refusal("There is no camera that this page may use: allow it, or choose a file instead.");
  });
  for (const part of [video, $("#take")]) part.hidden = false;
  $("#open").textContent = "Close the camera";
  await video.play();
}

async function takePhoto() {
  choosePhoto(video, video.videoWidth, video.videoHeight, "photo");
  stopCamera();
  await segment();
}

function listen() {
  const drop = $("#photo"), input = $("#photo input");
  input.addEventListener("change", () => input.files.length && segmentFile(input.files[0]));
  const over = (is) => (event) => {
    event.preventDefault();
    drop.classList.toggle("over", is);
  };
  document.addEventListener("dragover", over(true));
  document.addEventListener("dragleave", over(false));
  document.addEventListener("drop", (event) => {
    over(false)(event);
    if (event.dataTransfer.files.length) segmentFile(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) segmentFile(event.clipboardData.files[0]);
  });
  $("#open").addEventListener("click", asked(openCamera));
  $("#take").addEventListener("click", asked(takePhoto));
  $("#segment").addEventListener("click", asked(segment));
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !event.shiftKey) return;
    event.preventDefault();
    $("#segment").click();
  });
  $("#view").addEventListener("change", show);
  $("#refine").addEventListener("change", () => photo && $("#segment").click());
  canvas.addEventListener("pointermove", point);
  canvas.addEventListener("pointerleave", () => {
    tip.hidden = true;
    light(-1);
  });
  for (const [kind, is] of [["pointerover", true], ["focusin", true], ["pointerout", false], ["focusout", false]]) {
    legend.addEventListener(kind, ({ target }) => light(is ? +(target.closest("button")?.dataset.number ?? -1) : -1));
  }
  document.body.append(tip);
}

function addExamples() {
  $("#examples").replaceChildren(...page.examples.map(({ file, words }, n) => {
    const button = element("button", { type: "button" }, element("img", { src: file, alt: `Example photo ${n + 1}` }));
    button.addEventListener("click", asked(async () => {
      box.value = words;
      const answer = await fetch(file);
      await readFile(new File([await answer.blob()], file.split("/").pop()));
      await segment();
    }));
    return button;
  }));
}

async function start() {
  page = await (await fetch("page.json")).json();
  $("#note").textContent = page.note;
  box.value = page.words;
  model = await Model.load("model");
  addExamples();
  listen();
  $("#segment").disabled = false;
  $("#status").replaceChildren();
  performance.mark("loaded");
}

start().catch((error) => {
  $("#status").replaceChildren();
  problem(error);
});
