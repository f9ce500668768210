// What llama.cpp makes of texts, through the binding node-llama-cpp: token ids, logits after every token, a greedy reply.
// node served_elsewhere.mjs FILE.gguf TEXTS.json OUT TOKENS, in a folder where node-llama-cpp is installed.
import fs from "node:fs";
import path from "node:path";
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";

const here = createRequire(path.join(process.cwd(), "x.js"));
const {getLlama} = await import(pathToFileURL(here.resolve("node-llama-cpp")).href);
const [file, textsFile, out, most] = process.argv.slice(2);
const texts = JSON.parse(fs.readFileSync(textsFile, "utf8"));
const llama = await getLlama({gpu: false, build: "never", maxThreads: 1});
const model = await llama.loadModel({modelPath: file, gpuLayers: 0});
const context = await model.createContext({contextSize: 1024, threads: 1});
const sequence = context.getSequence();
const said = [];
for (const [number, text] of texts.entries()) {
    const ids = model.tokenize(text, true);
    await sequence.clearHistory();
    const asked = ids.map((token) => [token, {generateNext: {logits: true}}]);
    const rows = await sequence.controlledEvaluate(asked);
    const width = rows[0].next.logits.size;
    const logits = new Float32Array(rows.length * width);
    rows.forEach((row, place) => row.next.logits.forEach((value, token) => (logits[place * width + token] = value)));
    fs.writeFileSync(path.join(out, `${number}.f32`), Buffer.from(logits.buffer));
    await sequence.clearHistory();
    const reply = [];
    for await (const token of sequence.evaluate(ids, {temperature: 0})) {
        if (model.isEogToken(token) || reply.push(token) >= Number(most)) break;
    }
    said.push({ids, width, reply, text: model.detokenize(reply)});
}
fs.writeFileSync(path.join(out, "said.json"), JSON.stringify({said, template: model.fileInfo.metadata.tokenizer.chat_template}));
process.exit(0);
