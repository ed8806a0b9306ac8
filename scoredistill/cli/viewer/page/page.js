// The page of a run: polls the server every few seconds, and shows changes.

import { Plot, short } from "./curve.js";
import { Scenes } from "./scenes.js";

const SECONDS = { training: 3, finished: 15 };
const MANY = 6; // parts with fewer settings, like the objective, are shown open

const byId = id => document.getElementById(id);
const tag = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};
const file = name => `/files/${name.split("/").map(encodeURIComponent).join("/")}`;

const plot = new Plot(byId("plot"), byId("reading"));
const scenes = new Scenes(byId("cards"), () => byId("together").checked);
const seen = {}; // texts of the responses by address
let run = null, curves = {}, key = null, next = 0;

/** The response, or null if it has not changed. */
const news = async address => {
  const answer = await fetch(address, { cache: "no-cache" }), text = await answer.text();
  if (!answer.ok) throw new Error(JSON.parse(text).error);
  if (seen[address] === text) return null;
  seen[address] = text;
  return JSON.parse(text);
};

const poll = async () => {
  try {
    const [about, metrics] = [await news("/run.json"), await news("/curves.json")];
    if (about) showRun(about);
    if (metrics) showCurves(metrics);
    showTrouble(run?.damaged.join("; ") ?? "");
  } catch (error) {
    showTrouble(error instanceof TypeError ? "The viewer does not respond: has it been stopped?" : error.message);
  }
  if (run) showState();
  clearTimeout(next);
  next = setTimeout(poll, 1000 * (run?.finished ? SECONDS.finished : SECONDS.training));
};

const showTrouble = text => {
  byId("trouble").textContent = text;
  byId("trouble").hidden = !text;
};

const showRun = about => {
  const first = run === null, { command, made_with } = (run = about);
  document.title = `${run.name} · scoredistill`;
  byId("name").textContent = run.name;
  byId("prompt").textContent = (run.conditions.find(([name]) => name.startsWith("prompt"))?.[1] ?? "").split("\n").join(", ");
  byId("command").textContent = command.replaceAll(" --", "\n  --");
  byId("made").textContent = Object.entries(made_with).map(([name, value]) => `${name} ${value}`).join(" · ");
  byId("documents").replaceChildren(...run.documents.map(name => tag("a", { href: file(name), textContent: name })));
  byId("conditions").replaceChildren(...run.conditions.flatMap(([name, value]) => [
    tag("dt", { textContent: name.replaceAll("_", " ") }),
    tag("dd", { textContent: value, className: value.includes("\n") ? "many" : "" }),
  ]));
  if (first) byId("settings").replaceChildren(...run.settings.map(showPart));
  byId("metrics").replaceChildren(...showFigures(run.metrics));
  showPictures(first);
  showOthers();
  showScenes();
};

const showState = () => {
  const { step, of, finished, written } = run;
  byId("progress").value = finished ? 1 : step / Math.max(of ?? 0, 1);
  const ago = Math.max(0, Date.now() / 1000 - written);
  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const [unit, name] = units.find(([size]) => ago >= size) ?? [1, "s"];
  const when = `last written ${Math.floor(ago / unit)} ${name} ago`;
  byId("step").textContent = finished ? `finished: ${step} steps` : `step ${step}${of > 0 ? ` of ${of}` : ""}, ${when}`;
};

const rows = pairs => tag("table", {}, tag("tbody", {}, ...pairs.map(([name, value]) => {
  const text = typeof value === "number" ? short(value) : String(value ?? "not finite");
  return tag("tr", {}, tag("th", { scope: "row", textContent: name }),
    tag("td", { textContent: text, className: text.length > 40 ? "long" : "" }));
})));

const showPart = ({ part, class: name, rows: settings }) => {
  const heading = tag("summary", { className: settings.length ? "" : "bare" },
    tag("span", { textContent: part.replaceAll("_", " ") }), tag("b", { textContent: name, title: name }));
  const open = part === "loss" && settings.length > 0 && settings.length <= 2 * MANY;
  return tag("details", { open }, heading, ...(settings.length ? [rows(settings)] : []));
};

const showFigures = metrics => {
  const pairs = Object.entries(metrics);
  return pairs.length ? [tag("h2", { textContent: "Final metrics" }), rows(pairs)] : [];
};

const showCurves = found => {
  curves = found;
  const names = Object.keys(curves), choice = byId("curve"), chosen = choice.value;
  choice.replaceChildren(...names.map(name => tag("option", { value: name, textContent: name })));
  choice.value = names.includes(chosen) ? chosen : names.includes("loss") ? "loss" : names[0] ?? "";
  choice.disabled = byId("log").disabled = !names.length;
  drawCurve();
};

const drawCurve = () => {
  const name = byId("curve").value;
  if (name) plot.show(curves[name], byId("log").checked);
  else byId("reading").textContent = "no metrics logged yet (logs/version_*/metrics.csv)";
};

const showPictures = first => {
  const { pictures } = run, slider = byId("slider");
  byId("pictures").hidden = !pictures.length;
  const last = first || slider.value === slider.max; // stay at the newest picture
  slider.max = Math.max(0, pictures.length - 1);
  if (last) slider.value = slider.max;
  drawPicture();
};

const drawPicture = () => {
  const shown = run.pictures[byId("slider").value];
  if (!shown) return;
  const address = file(shown.file), picture = byId("picture");
  if (picture.getAttribute("src") !== address) picture.src = address;
  picture.alt = `picture at step ${shown.step}`;
  byId("enlarge").href = address;
  byId("slider").setAttribute("aria-valuetext", `step ${shown.step}`);
  byId("when").textContent = `step ${shown.step}`;
};

const showOthers = () => {
  byId("others").hidden = !run.others.length;
  const shown = [...byId("gallery").querySelectorAll("img")].map(image => image.dataset.name);
  if (shown.join() === run.others.join()) return;
  byId("gallery").replaceChildren(...run.others.map(name => {
    const image = tag("img", { src: file(name), alt: name, loading: "lazy" });
    image.dataset.name = name;
    return tag("figure", {}, tag("a", { href: file(name) }, image), tag("figcaption", { textContent: name }));
  }));
};

const showScenes = () => {
  const found = run.scenes, newer = byId("newer");
  byId("scenes").hidden = !found;
  if (!found) return;
  byId("turntables").hidden = !found.turntables;
  if (found.key === null) {
    byId("of").textContent = "available after the first checkpoint";
    return;
  }
  key ??= { key: found.key, step: found.step };
  // Exporting meshes takes CPU time from training, so newer ones are exported on request.
  newer.hidden = key.key === found.key;
  newer.textContent = `show step ${found.step}`;
  byId("of").textContent = `of the checkpoint at step ${key.step}`;
  const kind = document.querySelector("input[name=shown]:checked").value;
  byId("joined").hidden = kind !== "glb";
  scenes.show(found.particles, key.key, kind);
};

byId("curve").addEventListener("change", drawCurve);
byId("log").addEventListener("change", drawCurve);
byId("slider").addEventListener("input", drawPicture);
byId("newer").addEventListener("click", () => { key = null; showScenes(); });
for (const choice of document.querySelectorAll("input[name=shown]")) choice.addEventListener("change", showScenes);
document.addEventListener("visibilitychange", () => document.hidden || poll()); // timers of hidden pages are slow
poll();
