// Ask a server for the mask of an image, over REST. Node 18 or newer; in a page, fetch works alike, with a
// server that runs with --rest_api_enable_cors_support.
//   node serving/examples/request.mjs photo.jpg http://localhost:8501 mask.png
import { readFile, writeFile } from "node:fs/promises";

const [image, server = "http://localhost:8501", mask = "mask.png"] = process.argv.slice(2);
const b64 = (await readFile(image)).toString("base64");
const response = await fetch(`${server}/v1/models/groupvit:predict`, {
  method: "POST",
  body: JSON.stringify({ instances: [{ image_bytes: { b64 } }] }),
});
const answer = await response.json();
if (!response.ok) throw new Error(answer.error);
const [found] = answer.predictions;
await writeFile(mask, Buffer.from(found.mask_bytes.b64, "base64"));
found.class_names.forEach((name, i) => console.log(`${name}: ${(100 * found.class_areas[i]).toFixed(1)}%`));
