// The files of an export in ONNX; names of classes and a picture in, scores and groups out. All of it in this page.

import { square } from "./pixels.js";
import { Tokenizer } from "./tokenizer.js";

export const MOST_CLASSES = 256;

// An error that is meant to be read, in one sentence.
export class Refusal extends Error {}

const missing = (file) => `${file} is missing beside this page: build the page anew with scripts/build.`;

async function fetched(url) {
  const answer = await fetch(url).catch(() => null);
  if (!answer?.ok) throw new Refusal(missing(url));
  return answer;
}

export class Model {
  static async load(folder) {
    if (typeof WebAssembly !== "object") {
      throw new Refusal("This browser has no WebAssembly, which the model needs: use a current one.");
    }
    const model = new Model();
    const runtime = import("./ort.wasm.bundle.min.mjs").catch(() => {
      throw new Refusal(missing("ort.wasm.bundle.min.mjs"));
    });
    const settings = fetched(`${folder}/settings.json`).then((answer) => answer.json());
    const tokenizer = fetched(`${folder}/tokenizer.json`).then((answer) => answer.json());
    [model.ort, model.settings, model.tokenizer] = await Promise.all([runtime, settings, tokenizer]);
    model.tokenizer = new Tokenizer(model.tokenizer);
    const files = ["vision", "text", "sharpen"];
    const sessions = files.map(async (name) => {
      const content = await (await fetched(`${folder}/${name}.onnx`)).arrayBuffer();
      return model.ort.InferenceSession.create(new Uint8Array(content)).catch((error) => {
        throw new Refusal(`The model cannot be opened in this browser: ${error.message}`);
      });
    });
    const opened = await Promise.all(sessions);
    model.files = Object.fromEntries(files.map((name, n) => [name, opened[n]]));
    model.known = new Map(); // prompt -> embedding
    return model;
  }

  // Names of classes, "sofa|couch" with synonyms -> their embeddings as a tensor (K, D). Each prompt is encoded once.
  async embed(names) {
    const { templates } = this.settings;
    const prompts = names.map((name) =>
      name.split("|").flatMap((word) => templates.map((template) => template.replace("{}", () => word.trim()))));
    const fresh = [...new Set(prompts.flat())].filter((prompt) => !this.known.has(prompt));
    if (fresh.length) {
      const { start, end, pad, length } = this.settings.tokens;
      const rows = fresh.flatMap((prompt) => {
        const ids = [start, ...this.tokenizer.encode(prompt).slice(0, length - 2), end];
        return [...ids, ...Array(length - ids.length).fill(pad)];
      });
      const input_ids = new this.ort.Tensor("int32", Int32Array.from(rows), [fresh.length, length]);
      const { text_embeds } = await this.files.text.run({ input_ids });
      const width = text_embeds.dims[1];
      fresh.forEach((prompt, n) => this.known.set(prompt, text_embeds.data.slice(n * width, (n + 1) * width)));
    }
    const rows = prompts.map((row) => {
      const embeds = row.map((prompt) => this.known.get(prompt));
      return embeds[0].map((_, d) => embeds.reduce((sum, embed) => sum + embed[d], 0) / embeds.length);
    });
    const width = rows[0].length, all = new Float32Array(rows.length * width);
    rows.forEach((row, n) => all.set(row, n * width));
    return new this.ort.Tensor("float32", all, [rows.length, width]);
  }

  // An ImageData and names of classes -> what the vision file gives of it, its scores sharpened if they should be.
  async see(image, names, sharpened) {
    const [height, width] = this.settings.size;
    const pixels = new this.ort.Tensor("uint8", square(image, height, width), [1, height, width, 3]);
    const seen = await this.files.vision.run({ pixels, text_embeds: await this.embed(names) });
    if (!sharpened) return seen;
    const { sharp_scores } = await this.files.sharpen.run({ pixels, scores: seen.scores });
    return { ...seen, scores: sharp_scores };
  }
}
