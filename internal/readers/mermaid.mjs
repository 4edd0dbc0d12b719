// Reads a list of flowcharts (JSON, standard input) with Mermaid's own parser. For each it answers the error, or the boxes
// with the text that a browser would show, the frames and the arrows.
import { readFileSync } from "node:fs";
import { JSDOM } from "jsdom";

const dom = new JSDOM("");
globalThis.window = dom.window;
globalThis.document = dom.window.document;
const { default: mermaid } = await import("mermaid");
mermaid.initialize({ startOnLoad: false });

// Mermaid keeps #NN; in a form of its own until it draws.
const decoded = (text) => text.replaceAll("ﬂ°°", "&#").replaceAll("ﬂ°", "&").replaceAll("¶ß", ";");

function shown(label) {
  const element = document.createElement("div");
  element.innerHTML = decoded(label).replaceAll(/<br\s*\/?>/g, "\n");
  return { text: element.textContent, markup: element.childElementCount };
}

const answers = [];
for (const text of JSON.parse(readFileSync(0, "utf8"))) {
  try {
    const { db } = await mermaid.mermaidAPI.getDiagramFromText(text);
    answers.push({
      boxes: Object.fromEntries([...db.getVertices()].map(([id, v]) => [id, { ...shown(v.text ?? ""), shape: v.type ?? "" }])),
      frames: Object.fromEntries(db.getSubGraphs().map((g) => [g.id, shown(g.title)])),
      arrows: db.getEdges().map((e) => [e.start, e.end, decoded(e.text ?? "")]),
    });
  } catch (error) {
    answers.push({ error: String(error.message ?? error) });
  }
}
process.stdout.write(JSON.stringify(answers));
