// The particles, each as a mesh or a turntable; the server exports them on the first request.

const WAIT = 1000;
const NAMES = { glb: "mesh", webp: "turntable" };
const ATTEMPTS = 600; // the server may have other exports to finish first

const pause = time => new Promise(done => setTimeout(done, time));

/** Ask until a thing is made: its size in bytes. Throws the server's message where it cannot be made. */
const made = async (url, say) => {
  for (let i = 0; i < ATTEMPTS; i++) {
    const answer = await fetch(url);
    if (answer.status === 200) return (await answer.blob()).size;
    const { error } = await answer.json();
    if (answer.status !== 202) throw new Error(error);
    say();
    await pause(WAIT);
  }
  throw new Error("this takes too long; reload the page to try again");
};

const tag = (name, properties = {}) => Object.assign(document.createElement(name), properties);

const bytes = size => (size < 1e6 ? `${Math.round(size / 1e3)} kB` : `${(size / 1e6).toFixed(1)} MB`);

/** A mesh to turn by mouse, touch or arrow keys. */
const viewer = (url, particle) => {
  const view = tag("model-viewer", { src: url, alt: `mesh of particle ${particle}` });
  const attributes = {
    "camera-controls": "", "camera-orbit": "25deg 72deg auto", "interaction-prompt": "none", "touch-action": "pan-y",
    "tone-mapping": "neutral", "shadow-intensity": "0", "disable-tap": "",
  };
  for (const [key, value] of Object.entries(attributes)) view.setAttribute(key, value);
  // Replaces model-viewer's center mark, which would block the mouse.
  view.append(tag("span", { slot: "pan-target", style: "pointer-events: none" }));
  return view;
};

export class Scenes {
  /** @param {HTMLElement} cards that are filled  @param {() => boolean} together whether all turn when one is turned */
  constructor(cards, together) {
    Object.assign(this, { cards, together, shown: "" });
  }

  /** Show all particles of a checkpoint, as "glb" or as "webp". */
  show(particles, key, kind) {
    const wanted = `${particles} ${key} ${kind}`;
    if (wanted === this.shown) return;
    this.shown = wanted;
    this.cards.replaceChildren(...Array.from({ length: particles }, (_, i) => this.card(i, key, kind)));
  }

  card(particle, key, kind) {
    const figure = tag("figure"), stage = tag("div", { className: "stage" }), caption = tag("figcaption");
    caption.append(tag("span", { textContent: `particle ${particle}` }));
    figure.append(stage, caption);
    this.fill(stage, caption, particle, `/made/${key}/particle_${particle}.${kind}`, kind);
    return figure;
  }

  async fill(stage, caption, particle, url, kind) {
    const say = (text, className = "") => stage.replaceChildren(tag("p", { textContent: text, className }));
    say("…");
    try {
      const size = await made(url, () => stage.isConnected && say(`the ${NAMES[kind]} is being exported`));
      const shown = kind === "glb" ? viewer(url, particle) : tag("img", { src: url, alt: `turntable of particle ${particle}` });
      if (kind === "glb") shown.addEventListener("camera-change", event => this.follow(shown, event));
      stage.replaceChildren(shown);
      caption.append(tag("a", { href: url, download: `particle_${particle}.${kind}`, textContent: `${kind} ${bytes(size)}` }));
    } catch (error) {
      say(error.message, "wrong");
    }
  }

  /** Turn the others as the user turns one. */
  follow(turned, { detail }) {
    if (detail.source !== "user-interaction" || !this.together()) return;
    const { theta, phi } = turned.getCameraOrbit();
    for (const view of this.cards.querySelectorAll("model-viewer")) {
      if (view !== turned) view.cameraOrbit = `${theta}rad ${phi}rad auto`;
    }
  }
}
